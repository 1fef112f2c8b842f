"""From the fields of a body to a GenerateRequest: only what was given is passed on."""

from collections.abc import Mapping
from types import MappingProxyType

from adapters.fields import given_sampling
from adapters.openai.errors import invalid
from adapters.openai.schema import ChatRequest, CompletionRequest, GenerationFields, RequestFields
from adapters.openai.structured import asked_constraint
from runner.wire.requests import GenerateRequest, Prompt, ServiceTier, ToolUse

_TIERS: Mapping[str, ServiceTier] = MappingProxyType(
    {"flex": "flex", "priority": "priority", "fast": "priority"}
)


def build_request(
    body: RequestFields,
    prompt: Prompt,
    *,
    request_id: str,
    n: int,
    max_tokens: int | None,
    logprobs: int | None,
    prompt_logprobs: int | None = None,
    tool_use: ToolUse | None = None,
    split_reasoning: bool = False,
) -> GenerateRequest:
    """One prompt's request; the endpoint says `n`, limits, log-probabilities and how the output is to be read.
    Raises ApiError 400."""
    if max_tokens is not None and body.min_tokens is not None and body.min_tokens > max_tokens:
        raise invalid(
            "min_tokens", f"`min_tokens` is {body.min_tokens}, over the limit of {max_tokens} tokens."
        )
    sampling = given_sampling(body)
    if body.logit_bias:
        sampling["logit_bias"] = {_token_id(key): value for key, value in body.logit_bias.items()}
    stop = (body.stop,) if isinstance(body.stop, str) else tuple(body.stop or ())
    return GenerateRequest(
        prompt=prompt,
        sampling=sampling,
        n=n,
        max_tokens=max_tokens,
        min_tokens=body.min_tokens,
        stop=stop,
        stop_token_ids=tuple(body.stop_token_ids or ()),
        include_stop=bool(body.include_stop_str_in_output),
        ignore_eos=body.ignore_eos,
        prompt_lookup=body.prompt_lookup,
        skip_special_tokens=body.skip_special_tokens is not False,
        logprobs=logprobs,
        prompt_logprobs=prompt_logprobs,
        priority=body.priority or 0,
        constraint=asked_constraint(body),
        tool_use=tool_use,
        split_reasoning=split_reasoning,
        service_tier=_TIERS.get(body.service_tier or "auto", "default"),
        affinity=body.prompt_cache_key or body.safety_identifier or body.user,
        cache_salt=body.cache_salt,
        request_id=request_id,
    )


def check_stream_options(body: GenerationFields) -> None:
    """Raises ApiError 400 where `stream_options` comes without `stream`."""
    if body.stream_options is not None and not body.stream:
        raise invalid("stream_options", "`stream_options` is only allowed together with `stream: true`.")


def check_prompt_logprobs(body: ChatRequest | CompletionRequest) -> None:
    """Raises ApiError 400 where the prompt's log-probabilities are asked for in a stream, which cannot tell them."""
    if body.prompt_logprobs is not None and body.stream:
        raise invalid("prompt_logprobs", "`prompt_logprobs` is not possible together with `stream: true`.")


def idle_fields(body: RequestFields) -> list[str]:
    """Fields whose sisters go first, or say that they are of no use."""
    idle = []
    form = body.response_format if isinstance(body, GenerationFields) else None
    if form is not None and form.type != "json_schema" and form.json_schema is not None:
        idle.append("response_format.json_schema")
    if form is not None and form.type != "json_object" and form.schema is not None:
        idle.append("response_format.schema")
    if body.repeat_penalty is not None and body.repetition_penalty is not None:
        idle.append("repetition_penalty")
    if isinstance(body, ChatRequest) and None not in (body.max_tokens, body.max_completion_tokens):
        idle.append("max_tokens")
    return idle


def _token_id(key: str) -> int:
    if not (key.isascii() and key.isdecimal() and len(key) <= 10):
        raise invalid("logit_bias", f'`logit_bias`: keys are token ids in decimal digits, not "{key[:40]}".')
    return int(key)
