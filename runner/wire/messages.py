"""The messages between a server and its worker. The first frame in each direction carries the protocol version."""

from typing import Any, Literal

import msgspec

from backends.contract import EngineInfo, LoadRequest
from runner.errors import WireError
from runner.wire.requests import Delta, Finished, GenerateRequest, Prompt

PROTOCOL = 1


class QueueLimits(msgspec.Struct, frozen=True, kw_only=True):
    """The queue of one priority level. `max_queue_size`: sequences beyond those that lanes are free for.

    Who waits longer than `queue_timeout_s` is refused, or with "delay" goes behind those that came since.
    """

    max_queue_size: int = 256
    queue_timeout_s: float | None = None
    timeout_action: Literal["reject", "delay"] = "reject"

    def timeout_for(self, asked_s: float | None) -> float | None:
        """The shorter of this queue's limit and a caller's own."""
        given = [each for each in (asked_s, self.queue_timeout_s) if each is not None]
        return min(given, default=None)


class SchedulerLimits(msgspec.Struct, frozen=True, kw_only=True):
    """What the step scheduler may use; sizes in sequences and tokens.

    `offload_bytes` of main memory keep prefixes that left the KV cache. `queues` are those of the priority levels,
    the highest, which is 1, first.
    """

    max_lanes: int = 16
    cached_lanes: int = 16
    max_batch_tokens: int = 512
    offload_bytes: int = 0
    prefix_cache: bool = True
    prompt_lookup: bool = False
    queues: tuple[QueueLimits, ...] = (QueueLimits(),)
    default_level: int = 1
    request_timeout_s: float | None = None

    def queue(self, level: int) -> QueueLimits:
        """The queue of a level; 0 stands for the default level."""
        return self.queues[min(level or self.default_level, len(self.queues)) - 1]


class TemplateTexts(msgspec.Struct, frozen=True, kw_only=True):
    """What a configuration says of the model's templates and markup; None means what the model itself has.

    The templates are Jinja2; of `chat` and its like those of the model itself are used where it has one and
    `prefers_own` is set. `joiner` stands between messages that `chat_message` or `roles` made; `reply_prefix` begins
    every answer; `system_prompt` is for chats without one. `tool_format` names a format of tool calls, "none" for none.
    `reasoning_tags` are the texts before and behind reasoning, none of them where it is not to be told apart.
    `variables` are those of the chat template that a request does not give.
    """

    chat: str | None = None
    chat_message: str | None = None
    completion: str | None = None
    edit: str | None = None
    function: str | None = None
    joiner: str = "\n"
    reply_prefix: str = ""
    roles: dict[str, str] = {}
    system_prompt: str = ""
    prefers_own: bool = False
    tool_format: str | None = None
    reasoning_tags: tuple[str, ...] | None = None
    variables: dict[str, Any] = {}


class Pattern(msgspec.Struct, frozen=True, array_like=True):
    """A regular expression for Python's `regex` package, for a text as it is, and for one that may still grow."""

    whole: str
    growing: str


class CleanUp(msgspec.Struct, frozen=True, kw_only=True):
    """What is done to every answer, in this order: matches of `cutstrings` are cut; of `extract_regex` the first
    matches stay alone; each prefix and each suffix is cut, with the space around."""

    cutstrings: tuple[Pattern, ...] = ()
    extract_regex: tuple[Pattern, ...] = ()
    trimspace: tuple[str, ...] = ()
    trimsuffix: tuple[str, ...] = ()


# Server to worker.


class Start(msgspec.Struct, frozen=True, tag="start", array_like=True, kw_only=True):
    """The first frame: which engine to load, with what, and the request defaults of the model. `grammar` is GBNF that
    binds answers which their request does not bind."""

    protocol: int
    engine: str
    load: LoadRequest
    limits: SchedulerLimits
    template: TemplateTexts = TemplateTexts()
    defaults: dict[str, Any] = {}
    stop: tuple[str, ...] = ()
    warmup: tuple[str, ...] = ()
    matryoshka: bool = False
    grammar: str | None = None
    clean_up: CleanUp | None = None


class Submit(msgspec.Struct, frozen=True, tag="submit", array_like=True):
    """Begin a request; `call` is a number of the server's own that all its events carry."""

    call: int
    request: GenerateRequest


class Cancel(msgspec.Struct, frozen=True, tag="cancel", array_like=True):
    """Stop a request. Nothing more is sent for it."""

    call: int


class Tokenize(msgspec.Struct, frozen=True, tag="tokenize", array_like=True):
    """Tokens of a prompt, rendered first where it is a chat; answered by Tokenized. `add_special`: with BOS where
    the model wants one. `with_pieces`: what each token stands for is wanted too."""

    call: int
    prompt: Prompt
    add_special: bool = True
    with_pieces: bool = False


class Detokenize(msgspec.Struct, frozen=True, tag="detokenize", array_like=True):
    """Text of tokens, control tokens included; answered by Detokenized."""

    call: int
    tokens: tuple[int, ...]


class Embed(msgspec.Struct, frozen=True, tag="embed", array_like=True):
    """Vectors of prompts, cut to `dimensions` where that is given; answered by Embedded."""

    call: int
    prompts: tuple[Prompt, ...]
    dimensions: int | None = None


class ResetCache(msgspec.Struct, frozen=True, tag="reset-cache", array_like=True):
    """Forget all idle prefixes; answered by Done."""

    call: int


class Stop(msgspec.Struct, frozen=True, tag="stop", array_like=True):
    """End the worker; whatever runs is cancelled."""


ToWorker = Start | Submit | Cancel | Tokenize | Detokenize | Embed | ResetCache | Stop


# Worker to server.


class Loading(msgspec.Struct, frozen=True, tag="loading", array_like=True):
    """How far the load is, 0..1."""

    fraction: float


class Ready(msgspec.Struct, frozen=True, tag="ready", array_like=True, kw_only=True):
    """The model is loaded and warm."""

    protocol: int
    info: EngineInfo
    load_s: float


class LoadRefused(msgspec.Struct, frozen=True, tag="load-refused", array_like=True):
    """The model cannot be loaded; the worker ends after this. `may_pass`: a later load may succeed."""

    reason: str
    may_pass: bool = False


class CallAccepted(msgspec.Struct, frozen=True, tag="accepted", array_like=True):
    call: int
    prompt_tokens: int
    queue_position: int
    idle: tuple[str, ...] = ()


class CallDelta(msgspec.Struct, frozen=True, tag="delta", array_like=True):
    call: int
    delta: Delta


class CallFinished(msgspec.Struct, frozen=True, tag="finished", array_like=True):
    call: int
    finished: Finished


class CallFailed(msgspec.Struct, frozen=True, tag="failed", array_like=True):
    call: int
    error: WireError


class Tokenized(msgspec.Struct, frozen=True, tag="tokenized", array_like=True):
    call: int
    tokens: tuple[int, ...]
    text: str
    pieces: tuple[bytes, ...] = ()


class Detokenized(msgspec.Struct, frozen=True, tag="detokenized", array_like=True):
    call: int
    text: str


class Embedded(msgspec.Struct, frozen=True, tag="embedded", array_like=True):
    """Vectors are little-endian float32."""

    call: int
    vectors: tuple[bytes, ...]
    prompt_tokens: int


class Done(msgspec.Struct, frozen=True, tag="done", array_like=True):
    call: int


class WorkerStats(msgspec.Struct, frozen=True, array_like=True, tag="stats"):
    """The scheduler's state after a step, and totals since the start."""

    running: int = 0
    waiting: int = 0
    kv_tokens_used: int = 0
    kv_tokens_total: int = 0
    lanes_cached: int = 0
    steps_total: int = 0
    preemptions_total: int = 0
    prefix_hit_tokens_total: int = 0
    prompt_tokens_total: int = 0
    generated_tokens_total: int = 0
    step_s: float = 0.0
    step_tokens: int = 0
    step_rows: int = 0
    offloaded_bytes: int = 0
    guessed_tokens_total: int = 0
    right_guesses_total: int = 0


FromWorker = (
    Loading
    | Ready
    | LoadRefused
    | CallAccepted
    | CallDelta
    | CallFinished
    | CallFailed
    | Tokenized
    | Detokenized
    | Embedded
    | Done
    | WorkerStats
)
