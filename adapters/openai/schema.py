"""The fields of the request bodies with their types and ranges, and the fields that are not served yet.

Null means "not given". `decode.py` reads bodies by these; what a field does is said in `sampling.py`.
"""

from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta

INT64 = 2**63

Count = Annotated[int, Meta(ge=1, le=2**31 - 1)]
TokenId = Annotated[int, Meta(ge=0, le=2**31 - 1)]
Penalty = Annotated[float, Meta(ge=-2, le=2)]
StopText = Annotated[str, Meta(min_length=1)]


class StreamOptions(msgspec.Struct, frozen=True, kw_only=True):
    include_usage: bool | None = None
    include_obfuscation: bool | None = None  # padding is never sent, which the API allows
    continuous_usage_stats: bool | None = None


class RequestFields(msgspec.Struct, frozen=True, kw_only=True):
    """What chat, completions and responses share."""

    model: str | None = None
    stream: bool | None = None
    stop: StopText | Annotated[list[StopText], Meta(max_length=4)] | None = None
    temperature: Annotated[float, Meta(ge=0, le=2)] | None = None
    top_p: Annotated[float, Meta(ge=0, le=1)] | None = None
    top_k: Annotated[int, Meta(ge=-1, le=2**31 - 1)] | None = None
    min_p: Annotated[float, Meta(ge=0, le=1)] | None = None
    typical_p: Annotated[float, Meta(ge=0, le=1)] | None = None
    repetition_penalty: Annotated[float, Meta(ge=0.01, le=10)] | None = None
    repeat_penalty: Annotated[float, Meta(ge=0.01, le=10)] | None = None
    repeat_last_n: Annotated[int, Meta(ge=-1, le=2**31 - 1)] | None = None
    frequency_penalty: Penalty | None = None
    presence_penalty: Penalty | None = None
    logit_bias: dict[str, Annotated[float, Meta(ge=-100, le=100)]] | None = None
    seed: Annotated[int, Meta(ge=-INT64, le=INT64 - 1)] | None = None
    min_tokens: Annotated[int, Meta(ge=0, le=2**31 - 1)] | None = None
    ignore_eos: bool | None = None
    prompt_lookup: bool | None = None
    stop_token_ids: list[TokenId] | None = None
    include_stop_str_in_output: bool | None = None
    skip_special_tokens: bool | None = None
    priority: Annotated[int, Meta(ge=-(2**31), le=2**31 - 1)] | None = None
    cache_salt: Annotated[str, Meta(min_length=1, max_length=512)] | None = None
    request_id: Annotated[str, Meta(min_length=1, max_length=128)] | None = None
    user: str | None = None
    safety_identifier: Annotated[str, Meta(max_length=64)] | None = None
    prompt_cache_key: str | None = None
    service_tier: Literal["auto", "default", "flex", "scale", "priority", "fast"] | None = None
    metadata: (
        Annotated[
            dict[Annotated[str, Meta(max_length=64)], Annotated[str, Meta(max_length=512)]],
            Meta(max_length=16),
        ]
        | None
    ) = None


class JsonSchemaFormat(msgspec.Struct, frozen=True, kw_only=True):
    name: Annotated[str, Meta(min_length=1, max_length=64)]
    schema: dict[str, Any] | None = None
    strict: bool | None = None  # the answer matches either way
    description: str | None = None


class ResponseFormat(msgspec.Struct, frozen=True, kw_only=True):
    """`schema` is what some servers take beside the type "json_object"."""

    type: Annotated[str, Meta(extra_json_schema={"enum": ["text", "json_object", "json_schema"]})]
    json_schema: JsonSchemaFormat | None = None
    schema: dict[str, Any] | None = None


class StructuredOutputs(msgspec.Struct, frozen=True, kw_only=True):
    """Exactly one of these."""

    json: str | dict[str, Any] | None = None
    regex: str | None = None
    choice: Annotated[list[str], Meta(min_length=1)] | None = None
    grammar: str | None = None
    json_object: bool | None = None


class GenerationFields(RequestFields, frozen=True, kw_only=True):
    """What chat and completions share. What binds the answer to a form is read by `structured.py`."""

    stream_options: StreamOptions | None = None
    n: Annotated[int, Meta(ge=1, le=128)] | None = None
    response_format: ResponseFormat | None = None
    grammar: str | None = None
    guided_json: str | dict[str, Any] | None = None
    guided_regex: str | None = None
    guided_choice: Annotated[list[str], Meta(min_length=1)] | None = None
    guided_grammar: str | None = None
    structured_outputs: StructuredOutputs | None = None


class ContentPart(msgspec.Struct, frozen=True, kw_only=True):
    type: str
    text: str | None = None
    refusal: str | None = None


class FunctionCall(msgspec.Struct, frozen=True, kw_only=True):
    name: str
    arguments: str | None = None


class ToolCall(msgspec.Struct, frozen=True, kw_only=True):
    function: FunctionCall | None = None
    id: str | None = None
    type: str | None = None


class Function(msgspec.Struct, frozen=True, kw_only=True):
    """What a tool is called and takes; `parameters` is a JSON Schema of an object."""

    name: Annotated[str, Meta(extra_json_schema={"pattern": "^[a-zA-Z0-9_-]{1,64}$"})]
    description: str | None = None
    parameters: dict[str, Any] | None = None
    strict: bool | None = None


class Tool(msgspec.Struct, frozen=True, kw_only=True):
    type: str | None = None
    function: Function | None = None


class FunctionName(msgspec.Struct, frozen=True, kw_only=True):
    name: str


class NamedTool(msgspec.Struct, frozen=True, kw_only=True):
    type: str = "function"
    function: FunctionName | None = None


class AllowedTools(msgspec.Struct, frozen=True, kw_only=True):
    mode: Literal["auto", "required"]
    tools: Annotated[list[NamedTool], Meta(min_length=1)]


class ToolChoice(NamedTool, frozen=True, kw_only=True):
    allowed_tools: AllowedTools | None = None


class Message(msgspec.Struct, frozen=True, kw_only=True):
    role: str
    content: str | list[ContentPart] | None = None
    name: str | None = None
    refusal: str | None = None
    tool_calls: list[ToolCall] | None = None
    function_call: FunctionCall | None = None
    tool_call_id: str | None = None
    reasoning: str | None = None
    reasoning_content: str | None = None


class ChatRequest(GenerationFields, frozen=True, kw_only=True):
    messages: Annotated[list[Message], Meta(min_length=1)]
    max_completion_tokens: Count | None = None
    max_tokens: Count | None = None
    logprobs: bool | None = None
    top_logprobs: Annotated[int, Meta(ge=0, le=20)] | None = None
    add_generation_prompt: bool | None = None
    continue_final_message: bool | None = None
    chat_template_kwargs: dict[str, Any] | None = None
    tools: Annotated[list[Tool], Meta(min_length=1, max_length=128)] | None = None
    tool_choice: Literal["none", "auto", "required"] | ToolChoice | None = None
    parallel_tool_calls: bool | None = None
    functions: Annotated[list[Function], Meta(min_length=1, max_length=128)] | None = None
    function_call: Literal["none", "auto"] | FunctionName | None = None
    reasoning_effort: Literal["none", "minimal", "low", "medium", "high", "xhigh", "max"] | None = None
    verbosity: Literal["low", "medium", "high"] | None = None
    return_token_ids: bool | None = None
    prompt_logprobs: Annotated[int, Meta(ge=0, le=20)] | None = None


class CompletionRequest(GenerationFields, frozen=True, kw_only=True):
    prompt: str | list[str | TokenId | list[TokenId]]
    suffix: str | None = None
    max_tokens: Annotated[int, Meta(ge=0, le=2**31 - 1)] | None = None
    logprobs: Annotated[int, Meta(ge=0, le=20)] | None = None
    echo: bool | None = None
    best_of: Annotated[int, Meta(ge=0, le=20)] | None = None
    return_token_ids: bool | None = None
    prompt_logprobs: Annotated[int, Meta(ge=0, le=20)] | None = None


def shared_refusals() -> dict[str, tuple[Any, ...]]:
    """Fields that are known and not served yet, with the values beside null that change nothing."""
    return {
        "prompt_cache_options": (),
        "prompt_cache_retention": ("in_memory",),
        "keep_alive": (),
        "ttl": (),
        "timings": (False,),
        "timings_per_token": (False,),
    }


def token_refusals() -> dict[str, tuple[Any, ...]]:
    """What chat and completions tell about tokens, for APIs that have no place for it."""
    return {"return_token_ids": (False,), "prompt_logprobs": ()}


def form_refusals() -> dict[str, tuple[Any, ...]]:
    """What binds an answer to a form in chat and completions, for APIs that have a way of their own."""
    own = GenerationFields.__struct_fields__
    names = [name for name in own if name == "grammar" or name.startswith(("guided_", "structured_"))]
    return dict.fromkeys(["response_format", *names], ())


def chat_refusals() -> dict[str, tuple[Any, ...]]:
    return shared_refusals() | {
        "prediction": (),
        "audio": (),
        "modalities": (["text"],),
        "web_search_options": (),
        "store": (False,),
        "moderation": (),
    }


def completion_refusals() -> dict[str, tuple[Any, ...]]:
    return shared_refusals()
