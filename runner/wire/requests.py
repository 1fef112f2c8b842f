"""The work a caller asks of a model, in values that any process can hold: no callables, no live objects."""

from typing import Any

import msgspec

from backends.contract import TokenLogprobs


class TextPrompt(msgspec.Struct, frozen=True, tag="text"):
    """Raw text; control-token texts in it are parsed, and BOS is put before it where the model wants one."""

    text: str


class TokenPrompt(msgspec.Struct, frozen=True, tag="tokens"):
    """Token ids, taken as they are."""

    tokens: tuple[int, ...]


class ChatPrompt(msgspec.Struct, frozen=True, tag="chat", kw_only=True):
    """Messages for the model's chat template.

    Messages are plain maps (`role`, `content` as a string, and what else the template reads). Text in a
    message that looks like a control token stays plain text. `template_kwargs` reach the template as they are.
    """

    messages: tuple[dict[str, Any], ...]
    tools: tuple[dict[str, Any], ...] | None = None
    template_kwargs: dict[str, Any] = {}
    add_generation_prompt: bool = True
    continue_final_message: bool = False


Prompt = TextPrompt | TokenPrompt | ChatPrompt


class GenerateRequest(msgspec.Struct, frozen=True, kw_only=True):
    """One prompt, `n` samples. None means "not given": the model's own defaults then apply.

    `sampling` holds only the fields the caller gave (names of `backends.contract.Sampling`). `max_tokens` None:
    until the context is full. `stop` texts never appear in the output unless `include_stop`. `logprobs` and
    `prompt_logprobs`: how many alternatives beside the token itself. `timeout_s` counts from submission.
    Sample i uses seed + i.
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
    skip_special_tokens: bool = True
    logprobs: int | None = None
    prompt_logprobs: int | None = None
    priority: int = 0
    adapter: str | None = None
    cache_salt: str | None = None
    timeout_s: float | None = None
    request_id: str = ""


class Accepted(msgspec.Struct, frozen=True, array_like=True, tag="accepted"):
    """The first event: the request is valid and queued. `model` and `version` name what will run it."""

    model: str
    version: int
    prompt_tokens: int
    queue_position: int


class TokenText(msgspec.Struct, frozen=True, array_like=True):
    """A token with its log-probabilities and the bytes it and each alternative stand for."""

    logprobs: TokenLogprobs
    data: bytes
    top_data: tuple[bytes, ...] = ()


class Delta(msgspec.Struct, frozen=True, array_like=True, tag="delta"):
    """What sample `index` gained. `finish`: "stop" or "length" in its last one. `stop_reason` tells which stop
    text or token id ended it. `text` never splits a character and may be empty."""

    index: int
    text: str
    token_ids: tuple[int, ...] = ()
    logprobs: tuple[TokenText, ...] = ()
    prompt_logprobs: tuple[TokenText | None, ...] = ()
    finish: str | None = None
    stop_reason: str | int | None = None


class Usage(msgspec.Struct, frozen=True, array_like=True):
    """Token counts of a whole request: the prompt once, the output of all samples together."""

    prompt_tokens: int
    completion_tokens: int
    cached_tokens: int = 0


class Finished(msgspec.Struct, frozen=True, array_like=True, tag="finished"):
    """The last event, once every sample has finished. `queue_s`: waiting for the first lane."""

    usage: Usage
    queue_s: float = 0.0


Event = Accepted | Delta | Finished
