"""The interface that adapters hold. `runner.runner.Runner` implements it in this process.

Arguments and results are values, so that a remote implementation can stand in. Errors are `runner.errors`.
"""

from collections.abc import AsyncIterator, Mapping, Sequence
from typing import Any, Literal, Protocol

import msgspec

from runner.wire.requests import Event, GenerateRequest, Prompt

NOT_LOADED = "not loaded"
"""The reason of a version that was never loaded."""

UNLOADED = "unloaded"
"""The reason of a version that was unloaded on purpose; it does not make the server unready."""

State = Literal["UNAVAILABLE", "LOADING", "READY", "UNLOADING"]


class VersionStatus(msgspec.Struct, frozen=True, kw_only=True):
    """One version of a model in the index. `progress`: 0..1 while it loads."""

    version: int | None
    state: State
    reason: str = ""
    progress: float | None = None


class ModelStatus(msgspec.Struct, frozen=True, kw_only=True):
    """A model of the repository. `ready`: it answers, or (on demand) can be loaded to answer.

    `created`: when its newest version's weights were last changed, in seconds since 1970.
    """

    name: str
    versions: tuple[VersionStatus, ...]
    default_version: int | None = None
    ready: bool = False
    reason: str = ""
    description: str = ""
    usage: str = ""
    backend: str = ""
    aliases: tuple[str, ...] = ()
    context_tokens: int | None = None
    created: int = 0
    disabled: bool = False


class ModelMetadata(msgspec.Struct, frozen=True, kw_only=True):
    """What a loaded model is."""

    name: str
    versions: tuple[int, ...]
    version: int
    backend: str
    engine: str
    context_tokens: int
    vocabulary: int
    eos_token: str = ""
    bos_token: str = ""
    pad_token: str = ""
    chat_template: str | None = None
    capabilities: tuple[str, ...] = ()
    generates: bool = True
    embedding_length: int = 0


class QueueInfo(msgspec.Struct, frozen=True, kw_only=True):
    """The queue of one priority level: how many may wait, for how long, and what becomes of who waited longer."""

    max_queue_size: int
    queue_timeout_s: float | None = None
    timeout_action: Literal["reject", "delay"] = "reject"


class ModelConfigInfo(msgspec.Struct, frozen=True, kw_only=True):
    """How a loaded model is configured.

    `version_policy` and `parameters` (defaults of requests) are as in config.yaml, `options` are the backend's own.
    `queues`: one per priority level, the highest, which is 1, first.
    """

    name: str
    version: int
    backend: str
    engine: str
    generates: bool
    embedding_length: int
    context_tokens: int
    version_policy: dict[str, Any]
    instance_count: int
    instance_kind: Literal["auto", "cpu", "gpu"]
    gpus: tuple[int, ...]
    max_lanes: int
    queues: tuple[QueueInfo, ...]
    default_priority_level: int
    warmup: tuple[str, ...] = ()
    parameters: dict[str, Any] = {}
    options: dict[str, Any] = {}


class Tally(msgspec.Struct, frozen=True):
    """How often something happened, and how long it took altogether in nanoseconds."""

    count: int = 0
    ns: int = 0


class ModelStats(msgspec.Struct, frozen=True, kw_only=True):
    """What one loaded version has done since the server started.

    `success`: from submission to the last event, which is the sum of `queue` (waiting for the model and for a
    lane), `compute_input` (from there to the first token), `compute_infer` and `compute_output` (making text of
    tokens). `fail` has cancelled requests too; `failures` counts them by reason, in Triton's words. `cache_hit` and
    `cache_miss`: `compute_input` of requests that found, or did not find, a beginning of their prompt in the prefix
    cache. `inference_count`: samples and vectors; `execution_count`: steps of the engine. `batches`: steps by the
    number of sequences in them. `last_inference_ms` counts from 1970. `pending`: sequences that wait for a lane now.
    """

    model: str
    version: int
    last_inference_ms: int = 0
    inference_count: int = 0
    execution_count: int = 0
    success: Tally = Tally()
    fail: Tally = Tally()
    queue: Tally = Tally()
    compute_input: Tally = Tally()
    compute_infer: Tally = Tally()
    compute_output: Tally = Tally()
    cache_hit: Tally = Tally()
    cache_miss: Tally = Tally()
    failures: dict[str, int] = {}
    batches: dict[int, Tally] = {}
    pending: int = 0
    memory_bytes: int = 0


class TokenizeResult(msgspec.Struct, frozen=True, kw_only=True):
    """Token ids and the exact text they were made from, or stand for where the prompt is tokens. `pieces`: what
    each token stands for, control tokens included; empty where that was not asked for."""

    tokens: tuple[int, ...]
    text: str
    context_tokens: int
    pieces: tuple[bytes, ...] = ()


class EmbedResult(msgspec.Struct, frozen=True, kw_only=True):
    """One vector per prompt, in order, each as little-endian float32. `model` and `version` are what made them."""

    model: str
    vectors: tuple[bytes, ...]
    prompt_tokens: int
    version: int | None = None


class RunnerApi(Protocol):
    """Models by name: `name` or `name:version`. `bearer`, in open mode, is a token that may name a model."""

    def generate(self, model: str, request: GenerateRequest) -> AsyncIterator[Event]:
        """Accepted, then Deltas, then Finished. Raises RunnerError, at the first event or later.

        Loads the model first if need be. Closing the iterator cancels the work.
        """
        ...

    async def embed(
        self, model: str, prompts: Sequence[Prompt], *, dimensions: int | None = None
    ) -> EmbedResult:
        """Unit vectors of prompts. `dimensions`: only so many numbers of each, where the model can do that."""
        ...

    async def tokenize(
        self, model: str, prompt: Prompt, *, add_special_tokens: bool = True, with_pieces: bool = False
    ) -> TokenizeResult:
        """What `generate` would make of `prompt`; without `add_special_tokens` no BOS is put before it."""
        ...

    async def detokenize(self, model: str, tokens: Sequence[int]) -> str: ...

    def resolve_name(self, model: str | None, *, bearer: str | None = None) -> str:
        """The name that an inference request means: its own `model`, else a bearer token that is a model's
        name, else the one model there is. Raises ModelNotFound with close names."""
        ...

    def request_defaults(self, model: str) -> Mapping[str, Any]:
        """What `parameters` of the model's configuration say of an answer's shape, as far as they do: `n`, `logprobs`,
        `top_logprobs`, `echo`, `max_tokens`. Empty for a model that is not there. Loads nothing."""
        ...

    def index(self) -> tuple[ModelStatus, ...]:
        """Every model of the repository, by name. Loads nothing and touches no idle timer."""
        ...

    def is_live(self) -> bool: ...

    def is_ready(self) -> bool: ...

    def model_ready(self, model: str) -> bool:
        """Whether the model (or version) answers; False for one that is not there."""
        ...

    async def metadata(self, model: str) -> ModelMetadata: ...

    async def model_config(self, model: str) -> ModelConfigInfo: ...

    def statistics(self, model: str | None = None) -> tuple[ModelStats, ...]:
        """Every loaded version's, or one model's (`name`, `name:version`). Loads nothing. Raises ModelNotFound
        where nothing of that name is loaded."""
        ...

    async def load(
        self, model: str, *, config: str | None = None, files: Mapping[str, bytes] | None = None
    ) -> None:
        """Load and wait until READY.

        `config`: keys of config.yaml as JSON text, which replace those of the file; `files`: contents by
        `version/name`, which take the place of the files of these names. Both are for this load only.
        Raises ModelNotFound, InvalidRequest (a file's name), LoadFailed, InsufficientMemory, ActionNotAllowed.
        """
        ...

    async def unload(self, model: str) -> None:
        """Begin to unload: running requests finish, new ones are refused."""
        ...

    async def reset_cache(self, model: str) -> None: ...

    def metrics(self) -> bytes:
        """All metrics in Prometheus' text format."""
        ...
