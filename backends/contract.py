"""The plugin contract: what a backend declares, and what its engine does once loaded.

A `BackendSpec` is importable without the engine behind it. The engine it names has one of two shapes: a
`StepEngine` computes one planned step at a time and leaves all scheduling to Modelyard; a `StreamEngine`
batches by itself and yields tokens. Both load, tokenize and generate.
"""

import abc
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from typing import Any, Literal, Protocol

import msgspec


class Facts(Protocol):
    """What the repository knows about weights without loading them."""

    @property
    def format(self) -> str: ...
    @property
    def architecture(self) -> str | None: ...
    @property
    def quantisation(self) -> str | None: ...


Claims = Callable[[Facts, Mapping[str, Any]], int]


class PlainClaims(msgspec.Struct, frozen=True, kw_only=True):
    """Claims as data, which also leave the Python environment that their plugin is installed in, as a function cannot.

    Weights of these `formats` (and `architectures`, if any are given) are claimed with `score`. Whoever names the
    backend, by one of `names`, gets it for models without weights too, and for any weights where no formats are given.
    """

    names: tuple[str, ...]
    formats: tuple[str, ...] = ()
    architectures: tuple[str, ...] = ()
    score: int = 50

    def __call__(self, facts: Facts, config: Mapping[str, Any]) -> int:
        if facts.format in self.formats and facts.architecture in (
            self.architectures or (facts.architecture,)
        ):
            return self.score
        is_open = not self.formats or facts.format == "none"
        return int(is_open and config.get("backend") in self.names)


OVERHEAD_BYTES = 160 * 2**20
"""What a worker of a lean engine takes besides weights and KV."""


class BackendSpec(msgspec.Struct, frozen=True, kw_only=True):
    """How a plugin introduces itself.

    `engine` is "module:Class", imported only inside a worker. `options` is the JSON Schema of the top-level
    configuration keys that belong to this backend. `claims(facts, config)` says how well the backend suits
    the weights: 0 not at all, higher is better; the highest score of a family wins. `families` names other backends
    whose models this one may claim: with `backend: transformers`, the plugin of that name and all that name it in
    `families` are asked. A worker of it takes `overhead_bytes` of main memory besides weights and KV: interpreter,
    libraries, compute buffers. `probe` is "module:function" giving a `Probe`, called only where the engine may be
    installed.
    """

    name: str
    engine: str
    claims: Claims
    shape: Literal["step", "stream"] = "step"
    aliases: tuple[str, ...] = ()
    families: tuple[str, ...] = ()
    options: dict[str, Any] = {}
    overhead_bytes: int = OVERHEAD_BYTES
    probe: str = ""
    summary: str = ""


class Probe(msgspec.Struct, frozen=True, kw_only=True):
    """What one Python environment has of a backend. `engine` is its name and version; `devices` are those it could
    compute on, as `main_gpu` names them; `problem` says why it cannot be used, and what to do, or is empty."""

    engine: str = ""
    devices: tuple[str, ...] = ()
    problem: str = ""


class EngineError(Exception):
    """The engine cannot do what was asked; the message says why and what to do next."""


class LoadError(EngineError):
    """The weights cannot be loaded; the message is shown as the model's reason."""


class UnsupportedError(EngineError):
    """A capability this engine lacks; the message names it."""


class UnavailableError(EngineError):
    """What the engine needs cannot be had now; the same request may succeed later."""


class LoadRequest(msgspec.Struct, frozen=True, kw_only=True):
    """What to load and with which limits. Sizes are in tokens; None means that the engine chooses.

    `prefix_cache` is for engines that keep prefixes themselves. `device` "gpu" is a demand: an engine that cannot
    compute on one raises LoadError. Which ones it may use is in its environment.
    """

    model: str
    weights: str
    options: dict[str, Any] = {}
    context_tokens: int | None = None
    lanes: int = 16
    running_lanes: int = 16
    kv_tokens: int | None = None
    memory_bytes: int | None = None
    max_batch_tokens: int = 512
    prefix_cache: bool = True
    threads: int = 1
    device: Literal["auto", "cpu", "gpu"] = "auto"
    embeddings: bool = False


class PromptCache(msgspec.Struct, frozen=True, kw_only=True):
    """That states of prompts are to be kept in `folder`, from one run to the next, in at most `most_bytes`.

    `stamp` stands for all that a state depends on besides adapter and tokens, weights and engine included: what was
    kept under another one is never restored. `whole_texts`: answers too. `is_read_only`: what is there is used, and
    nothing is written.
    """

    folder: str
    stamp: str
    most_bytes: int
    whole_texts: bool = False
    is_read_only: bool = False


class EngineInfo(msgspec.Struct, frozen=True, kw_only=True):
    """What is known once the weights are loaded.

    `prefix` says how the state of a lane can be reused: "tokens" it can be cut anywhere, "tip" only whole
    states can be copied, "none" not at all. `shares_kv`: a forked prefix costs no memory of its own.
    `eos_ids` are all tokens that end a generation; `chat_stops` are texts that do so in a chat by `chat_template`.
    `special_tokens` are texts that the tokenizer turns into control tokens when asked to parse them.
    `embedding_tokens` is the longest text that it makes a vector of, 0 where the context is the limit. `generates` is
    False for a model that makes vectors only. `adapters` are the names that requests may ask for; `mixed_adapters`: one
    step computes rows of several.

    A `text_only` engine has its tokenizer elsewhere: prompts go to it as text, and text comes back. Its `vocabulary`
    is 0, and `context_tokens` too where it does not know.
    """

    vocabulary: int
    context_tokens: int
    kv_tokens: int
    lanes: int
    eos_ids: tuple[int, ...] = ()
    bos_id: int | None = None
    adds_bos: bool = False
    bos_token: str = ""
    eos_token: str = ""
    pad_token: str = ""
    chat_template: str | None = None
    chat_stops: tuple[str, ...] = ()
    special_tokens: tuple[str, ...] = ()
    generation_defaults: dict[str, Any] = {}
    prefix: Literal["tokens", "tip", "none"] = "tokens"
    shares_kv: bool = True
    draftable: bool = False
    mixed_adapters: bool = False
    adapters: tuple[str, ...] = ()
    prompt_cache: PromptCache | None = None
    text_only: bool = False
    capabilities: frozenset[str] = frozenset()
    engine: str = ""
    description: str = ""
    weights_bytes: int = 0
    kv_bytes: int = 0
    trained_context_tokens: int = 0
    embedding_length: int = 0
    embedding_tokens: int = 0
    generates: bool = True


class Sampling(msgspec.Struct, frozen=True, kw_only=True):
    """How one sequence draws its tokens. The defaults change nothing: temperature 1 and everything else off.

    Repeat penalty counts prompt and output (the last `repeat_last_n` tokens, -1 all), frequency and presence
    penalties the output only. `logit_bias` is added to the raw logits; -inf bans a token. `seed` None draws one.
    """

    temperature: float = 1.0
    top_k: int = 0
    top_p: float = 1.0
    min_p: float = 0.0
    typical_p: float = 1.0
    repeat_penalty: float = 1.0
    repeat_last_n: int = 64
    frequency_penalty: float = 0.0
    presence_penalty: float = 0.0
    logit_bias: dict[int, float] = {}
    seed: int | None = None


class PlanRow(msgspec.Struct, frozen=True, kw_only=True):
    """One sequence's share of a step: compute `tokens` at positions `start`.. of `lane`.

    `sample` draws the next token from the last position. `logprobs`: None for no log-probabilities, else how
    many alternatives to return beside the drawn token. `prompt_logprobs`: the same for every computed
    position that has a successor in the row or in `next_token`. `mask`: packed little-endian bits over the
    vocabulary (uint32 words), 1 allowed, applied before sampling. `drafts`: the last that many of `tokens` are
    guesses to verify, on an engine that is `draftable`: a token is drawn after each position as long as the guess
    behind it is what was drawn. The lane holds all of `tokens` afterwards, to be truncated to those that count.
    """

    seq: int
    lane: int
    start: int
    tokens: Sequence[int]
    sample: bool
    drafts: int = 0
    logprobs: int | None = None
    prompt_logprobs: int | None = None
    next_token: int | None = None
    mask: bytes | None = None
    adapter: str | None = None


class StepPlan(msgspec.Struct, frozen=True, kw_only=True):
    """One step: every row has its own lane, and all tokens together fit the engine's `max_batch_tokens`."""

    rows: tuple[PlanRow, ...]

    @property
    def num_tokens(self) -> int:
        return sum([len(row.tokens) for row in self.rows])


class TokenLogprobs(msgspec.Struct, frozen=True, array_like=True):
    """Natural log-probability of `token` under the raw distribution, and the likeliest alternatives."""

    token: int
    logprob: float
    top: tuple[tuple[int, float], ...] = ()


class ResultRow(msgspec.Struct, frozen=True, kw_only=True):
    """What a row gave: the drawn tokens (accepted drafts and one more), or an error of this row alone.

    What the lane of a failed row holds is undefined; the scheduler empties it.
    """

    seq: int
    tokens: tuple[int, ...] = ()
    logprobs: tuple[TokenLogprobs, ...] = ()
    prompt_logprobs: tuple[TokenLogprobs, ...] = ()
    error: str | None = None


class StepResult(msgspec.Struct, frozen=True, kw_only=True):
    """The rows of a plan in its order. `fit` False: nothing was computed and no state changed."""

    rows: tuple[ResultRow, ...] = ()
    fit: bool = True


Progress = Callable[[float], None]


class Engine(abc.ABC):
    """A loaded model. One thread calls `load`, `step` and `unload`; the tokenizer's methods may be called
    from other threads at any time after `load`, several at once."""

    info: EngineInfo

    @abc.abstractmethod
    def load(self, request: LoadRequest, progress: Progress) -> EngineInfo:
        """Load the weights, calling `progress` with 0..1. Raises LoadError with a sentence to act on, or
        UnavailableError where the same load may succeed later."""

    @abc.abstractmethod
    def tokenize(self, text: str, *, special: bool) -> list[int]:
        """Token ids of `text`, without BOS. `special`: texts of control tokens become those tokens."""

    @abc.abstractmethod
    def token_bytes(self, token: int, *, special: bool = False) -> bytes:
        """UTF-8 bytes (perhaps a part of a character) that `token` adds; control tokens give none unless
        `special`."""

    def framed(self, tokens: Sequence[int]) -> list[int]:
        """The tokens of a whole text with what the model wants around them, such as CLS and SEP; what has that already
        stays as it is."""
        return list(tokens)

    def embed(self, batch: Sequence[Sequence[int]]) -> list[list[float]]:
        """One normalised vector of `info.embedding_length` floats per token list, framed or not."""
        raise UnsupportedError(
            "this model was not loaded for embeddings; set `embeddings: true` in its config.yaml"
        )

    def unload(self) -> None:
        """Release what the process's exit would not."""


class StepEngine(Engine):
    """An engine that Modelyard's scheduler drives, one step at a time.

    The scheduler guarantees that a lane computes positions in order, that `start` equals what the lane holds,
    and that the lanes in use stay below `info.lanes`.
    """

    @abc.abstractmethod
    def open(self, seq: int, sampling: Sampling, history: Sequence[int]) -> None:
        """Make the sampler of sequence `seq`; `history` is its prompt. It survives preemption."""

    @abc.abstractmethod
    def close(self, seq: int) -> None:
        """Forget the sampler of `seq`. Its lane keeps its state."""

    @abc.abstractmethod
    def step(self, plan: StepPlan) -> StepResult:
        """Compute the plan. An exception means that the engine is broken; a row's own failure goes into its
        `error`."""

    @abc.abstractmethod
    def truncate(self, lane: int, keep: int) -> int:
        """Drop the state of `lane` after its first `keep` tokens; returns how many are really kept (0 where
        the state cannot be cut)."""

    @abc.abstractmethod
    def fork(self, source: int, target: int, keep: int) -> bool:
        """Make the empty lane `target` hold the first `keep` tokens of `source`. False where impossible."""

    def save(self, lane: int, start: int, stop: int) -> memoryview | None:
        """A copy, in main memory, of what `lane` holds for its tokens `start` to `stop`; the lane stays as it is.
        None where the engine cannot take a part out; one whose `prefix` is "tip" gives all that the lane holds, or
        nothing."""
        return None

    def restore(self, lane: int, start: int, state: memoryview) -> bool:
        """Append to `lane`, which holds exactly `start` tokens, what `save` gave for the tokens from `start` on.
        False, and nothing changed, where there is no room."""
        return False


class Constraint(msgspec.Struct, frozen=True, array_like=True):
    """What an output must match. `source`: a JSON Schema as JSON text, a regular expression, a JSON list of
    strings of which one is to be picked, or a grammar; empty for "json_object". `param` is the request's field that
    asked for it, for errors."""

    kind: Literal["json_object", "json_schema", "regex", "choice", "gbnf", "lark"]
    source: str = ""
    param: str = "response_format"


NO_LIMIT = 2**31 - 1
"""As many tokens as the context holds, where only the engine knows how many those are."""


class EngineRequest(msgspec.Struct, frozen=True, kw_only=True):
    """One sequence for a stream engine. `prompt` holds token ids; `text` is set where the engine is text_only, and
    then `max_tokens` is NO_LIMIT where nobody gave one. `constraint` comes only where the engine has the capability
    of that name. `given` names the fields of `sampling` that somebody asked for, for engines that have defaults of
    their own. `timeout_s`: its answer is of no use later than that."""

    request_id: str
    prompt: tuple[int, ...] = ()
    text: str | None = None
    sampling: Sampling
    given: frozenset[str] = frozenset()
    max_tokens: int
    min_tokens: int = 0
    stop_token_ids: tuple[int, ...] = ()
    ignore_eos: bool = False
    logprobs: int | None = None
    prompt_logprobs: int | None = None
    constraint: Constraint | None = None
    adapter: str | None = None
    cache_salt: str | None = None
    priority: int = 0
    timeout_s: float | None = None


class TokenChunk(msgspec.Struct, frozen=True, kw_only=True):
    """Some tokens (or text, from a text_only engine) of one sequence.

    The last chunk carries `finish` and includes the token that ended the sequence. A text_only engine says how many
    tokens its text was (`num_tokens`) and the prompt is (`prompt_tokens`), as far as it knows.
    """

    tokens: tuple[int, ...] = ()
    text: str | None = None
    logprobs: tuple[TokenLogprobs, ...] = ()
    prompt_logprobs: tuple[TokenLogprobs, ...] = ()
    cached_tokens: int | None = None
    num_tokens: int = 0
    prompt_tokens: int | None = None
    finish: Literal["stop", "length"] | None = None


class StreamEngine(Engine):
    """An engine with continuous batching of its own. Its methods run on the worker's event loop thread."""

    @abc.abstractmethod
    def generate(self, request: EngineRequest) -> AsyncIterator[TokenChunk]:
        """Yield chunks until `finish`. Closing the iterator cancels the work. An EngineError fails this request
        alone; any other exception means that the engine is broken."""

    async def reset_cache(self) -> None:
        """Forget the prefixes of earlier prompts that no running request has."""
