"""The interface that adapters hold. `runner.runner.Runner` implements it in this process.

Arguments and results are values, so that a remote implementation can stand in. Errors are `runner.errors`.
"""

from collections.abc import AsyncIterator, Sequence
from typing import Literal, Protocol

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
    chat_template: str | None = None
    capabilities: tuple[str, ...] = ()


class TokenizeResult(msgspec.Struct, frozen=True, kw_only=True):
    """Token ids and the exact text they were made from."""

    tokens: tuple[int, ...]
    text: str
    context_tokens: int


class EmbedResult(msgspec.Struct, frozen=True, kw_only=True):
    """One vector per prompt, in order."""

    model: str
    vectors: tuple[tuple[float, ...], ...]
    prompt_tokens: int


class RunnerApi(Protocol):
    """Models by name: `name` or `name:version`. `bearer`, in open mode, is a token that may name a model."""

    def generate(self, model: str, request: GenerateRequest) -> AsyncIterator[Event]:
        """Accepted, then Deltas, then Finished. Raises RunnerError, at the first event or later.

        Loads the model first if need be. Closing the iterator cancels the work.
        """
        ...

    async def embed(self, model: str, prompts: Sequence[Prompt]) -> EmbedResult: ...

    async def tokenize(self, model: str, prompt: Prompt) -> TokenizeResult: ...

    async def detokenize(self, model: str, tokens: Sequence[int]) -> str: ...

    def resolve_name(self, model: str | None, *, bearer: str | None = None) -> str:
        """The name that an inference request means: its own `model`, else a bearer token that is a model's
        name, else the one model there is. Raises ModelNotFound with close names."""
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

    async def load(self, model: str) -> None:
        """Load and wait until READY. Raises ModelNotFound, LoadFailed, InsufficientMemory, ActionNotAllowed."""
        ...

    async def unload(self, model: str) -> None:
        """Begin to unload: running requests finish, new ones are refused."""
        ...

    async def reset_cache(self, model: str) -> None: ...

    def metrics(self) -> bytes:
        """All metrics in Prometheus' text format."""
        ...
