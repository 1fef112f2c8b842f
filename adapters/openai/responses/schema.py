"""The fields of a request for a response, and those that are known and not served."""

from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta

from adapters.openai.schema import RequestFields, form_refusals, shared_refusals, token_refusals

Effort = Literal["none", "minimal", "low", "medium", "high", "xhigh", "max"]


class ResponseStreamOptions(msgspec.Struct, frozen=True, kw_only=True):
    include_obfuscation: bool | None = None  # padding is never sent, which the API allows


class Reasoning(msgspec.Struct, frozen=True, kw_only=True):
    effort: Effort | None = None
    summary: Literal["auto", "concise", "detailed"] | None = None
    generate_summary: Literal["auto", "concise", "detailed"] | None = None


class TextFormat(msgspec.Struct, frozen=True, kw_only=True):
    type: str
    name: Annotated[str, Meta(min_length=1, max_length=64)] | None = None
    schema: dict[str, Any] | None = None
    strict: bool | None = None
    description: str | None = None


class TextConfig(msgspec.Struct, frozen=True, kw_only=True):
    format: TextFormat | None = None
    verbosity: Literal["low", "medium", "high"] | None = None


class InputTokensRequest(RequestFields, frozen=True, kw_only=True):
    """What a prompt is made of. Items are read by `items.py`, tools by `tools.py`."""

    input: str | list[dict[str, Any]] | None = None
    instructions: str | None = None
    previous_response_id: str | None = None
    tools: Annotated[list[dict[str, Any]], Meta(max_length=128)] | None = None
    tool_choice: str | dict[str, Any] | None = None
    parallel_tool_calls: bool | None = None
    text: TextConfig | None = None
    reasoning: Reasoning | None = None
    chat_template_kwargs: dict[str, Any] | None = None


class ResponseRequest(InputTokensRequest, frozen=True, kw_only=True):
    max_output_tokens: Annotated[int, Meta(ge=16, le=2**31 - 1)] | None = None
    max_tool_calls: Annotated[int, Meta(ge=1)] | None = None  # counts calls of built-in tools: there are none
    include: list[str] | None = None
    store: bool | None = None
    stream_options: ResponseStreamOptions | None = None
    top_logprobs: Annotated[int, Meta(ge=0, le=20)] | None = None


def response_refusals() -> dict[str, tuple[Any, ...]]:
    """Fields to refuse by name, with the values beside null that change nothing."""
    return (
        shared_refusals()
        | token_refusals()
        | form_refusals()
        | {
            "background": (False,),
            "background_options": (),
            "context_management": (),
            "conversation": (),
            "prompt": (),
            "moderation": (),
            "access_programs": (),
            "image": (),
            "personality": (),
            "truncation": ("disabled",),
        }
    )
