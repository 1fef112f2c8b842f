"""The work a caller asks of a model, in values that any process can hold: no callables, no live objects."""

from typing import Any, Literal

import msgspec

from backends.contract import Constraint as Constraint  # noqa: PLC0414  (part of a request, so exported)
from backends.contract import TokenLogprobs


class TextPrompt(msgspec.Struct, frozen=True, tag="text"):
    """Raw text; control-token texts in it are parsed, and BOS is put before it where the model wants one. With a
    `suffix` what belongs between the two is asked for."""

    text: str
    suffix: str | None = None


class TokenPrompt(msgspec.Struct, frozen=True, tag="tokens"):
    """Token ids, taken as they are."""

    tokens: tuple[int, ...]


class ChatPrompt(msgspec.Struct, frozen=True, tag="chat", kw_only=True):
    """Messages for the model's chat template.

    Messages are plain maps (`role`, `content` as a string, and what else the template reads). Text in a
    message that looks like a control token stays plain text. `template_kwargs` reach the template as they are.
    `param` is the request's field that they came in, for errors.
    """

    messages: tuple[dict[str, Any], ...]
    tools: tuple[dict[str, Any], ...] | None = None
    template_kwargs: dict[str, Any] = {}
    add_generation_prompt: bool = True
    continue_final_message: bool = False
    param: str = "messages"


class EditPrompt(msgspec.Struct, frozen=True, tag="edit", kw_only=True):
    """A text and what is to be done with it, for the model's edit template, or its chat template where it has
    no other. Text in either that looks like a control token stays plain text."""

    text: str
    instruction: str


Prompt = TextPrompt | TokenPrompt | ChatPrompt | EditPrompt
ServiceTier = Literal["flex", "default", "priority"]


class ToolUse(msgspec.Struct, frozen=True, kw_only=True):
    """How the model may call the tools of its ChatPrompt.

    `choice`: "auto" leaves it to the model, "required" makes it call some tool, "function" the tool `name`.
    The last two constrain what the model writes. `parallel`: more than one call in one answer is allowed, but for
    "function", which is one call. `strict` names tools whose calls must fit their schemas wherever they are made; where
    a call must be made, all do.
    """

    choice: Literal["auto", "required", "function"] = "auto"
    name: str | None = None
    parallel: bool = True
    strict: tuple[str, ...] = ()


class GenerateRequest(msgspec.Struct, frozen=True, kw_only=True):
    """One prompt, `n` samples. None means "not given": the model's own defaults then apply.

    `sampling` holds only the fields the caller gave (names of `backends.contract.Sampling`). `max_tokens` None:
    until the context is full. `stop` texts never appear in the output unless `include_stop`. `logprobs` and
    `prompt_logprobs`: how many alternatives beside the token itself. `timeout_s` counts from submission.
    `priority`: 1 is the highest of the model's levels, 0 its default one, which `service_tier` then moves to the
    lowest ("flex") or the highest. `queue_timeout_s`: the caller's own limit on waiting, where it is shorter than
    the model's. Requests with the same `affinity` are answered by the same version where a model has several that
    share the requests. Sample i uses seed + i. `constraint` binds the answer, not the reasoning before it.
    `tool_use` None: calls in the output are plain text. `split_reasoning`: text between the model's reasoning tags
    is told apart. `prompt_lookup`: guess from what was read and said before, and verify several tokens at once.
    """

    prompt: Prompt
    sampling: dict[str, Any] = {}
    n: int = 1
    max_tokens: int | None = None
    min_tokens: int | None = None
    stop: tuple[str, ...] = ()
    stop_token_ids: tuple[int, ...] = ()
    include_stop: bool = False
    ignore_eos: bool | None = None
    prompt_lookup: bool | None = None
    skip_special_tokens: bool = True
    logprobs: int | None = None
    prompt_logprobs: int | None = None
    priority: int = 0
    service_tier: ServiceTier = "default"
    constraint: Constraint | None = None
    tool_use: ToolUse | None = None
    split_reasoning: bool = False
    adapter: str | None = None
    cache_salt: str | None = None
    affinity: str | None = None
    queue_timeout_s: float | None = None
    timeout_s: float | None = None
    request_id: str = ""


STRICT = "tool_use.strict"


class Accepted(msgspec.Struct, frozen=True, array_like=True, tag="accepted"):
    """The first event: the request is valid and queued. `model` and `version` name what will run it;
    `service_tier` is the one that its priority level amounts to. `idle`: what the model has no use for, which are names
    of `template_kwargs` that its template does not read, and STRICT where calls it is free to make cannot be bound."""

    model: str
    version: int
    prompt_tokens: int
    queue_position: int
    service_tier: ServiceTier = "default"
    idle: tuple[str, ...] = ()


class TokenText(msgspec.Struct, frozen=True, array_like=True):
    """A token with its log-probabilities and the bytes it and each alternative stand for."""

    logprobs: TokenLogprobs
    data: bytes
    top_data: tuple[bytes, ...] = ()


class ToolCallDelta(msgspec.Struct, frozen=True, array_like=True):
    """A part of one tool call. The first of each `index` (dense from 0) has `id` and `name`; later ones only more
    `arguments`, which joined are the JSON text of an object."""

    index: int
    arguments: str = ""
    id: str | None = None
    name: str | None = None


class Delta(msgspec.Struct, frozen=True, array_like=True, tag="delta"):
    """What sample `index` gained. `finish`: "stop", "length" or "tool_calls" in its last one. `stop_reason` tells
    which stop text or token id ended it. `text` and `reasoning` never split a character, may be empty, and hold
    no markup of reasoning or tool calls. An engine that gives text instead of `token_ids` says how many tokens it was:
    `num_text_tokens`, and by then also how many the prompt is: `prompt_tokens`, 0 where Accepted told it."""

    index: int
    text: str
    token_ids: tuple[int, ...] = ()
    logprobs: tuple[TokenText, ...] = ()
    prompt_logprobs: tuple[TokenText | None, ...] = ()
    finish: str | None = None
    stop_reason: str | int | None = None
    reasoning: str = ""
    tool_calls: tuple[ToolCallDelta, ...] = ()
    num_text_tokens: int = 0
    prompt_tokens: int = 0


class Usage(msgspec.Struct, frozen=True, array_like=True):
    """Token counts of a whole request: the prompt once, the output of all samples together, of which
    `reasoning_tokens` were reasoning."""

    prompt_tokens: int
    completion_tokens: int
    cached_tokens: int = 0
    reasoning_tokens: int = 0


class Finished(msgspec.Struct, frozen=True, array_like=True, tag="finished"):
    """The last event, once every sample has finished. `queue_s`: waiting for the first lane. `decode_s`: from the
    first token to the last, of which `output_s` was spent on making text of tokens."""

    usage: Usage
    queue_s: float = 0.0
    decode_s: float = 0.0
    output_s: float = 0.0


Event = Accepted | Delta | Finished
