"""From the fields of a body to what a model is asked: prompt, tools, form of the answer."""

from collections.abc import Sequence

import msgspec

from adapters.openai.decode import refuse_nul
from adapters.openai.errors import invalid, missing
from adapters.openai.messages import template_depends, template_kwargs
from adapters.openai.responses.items import Item, chat_messages, check_calls, read_items
from adapters.openai.responses.schema import InputTokensRequest, ResponseRequest
from adapters.openai.responses.tools import offered_tools
from runner.wire.requests import STRICT, ChatPrompt, Constraint, ToolUse

_LOGPROBS = "message.output_text.logprobs"
_IDLE_INCLUDES = (
    "reasoning.encrypted_content",  # reasoning is told openly, and can be sent back as it is
    "web_search_call.results",
    "web_search_call.action.sources",
    "file_search_call.results",
    "code_interpreter_call.outputs",
    "computer_call_output.output.image_url",
    "message.input_image.image_url",
)


class Asked(msgspec.Struct, frozen=True, kw_only=True):
    """What a body comes to. `given`: its own input; `unknown`: its fields that nobody knows; `depends`: those
    that only some models have a use for, by what a worker then says."""

    prompt: ChatPrompt
    given: list[Item]
    tool_use: ToolUse | None
    constraint: Constraint | None
    unknown: list[str]
    depends: dict[str, Sequence[str]]


def read_prompt(body: InputTokensRequest, stored: Sequence[Item], unknown: Sequence[str]) -> Asked:
    """What `body` asks, after the `stored` items of the conversation that it goes on with. Raises ApiError 400."""
    if body.input is None:
        raise missing("input")
    refuse_nul(body.instructions or "", "instructions")
    inside = list(unknown)
    given = read_items(body.input, inside)
    items = [*stored, *given]
    check_calls(items, len(stored))
    tools = offered_tools(body, inside)
    wishes = template_kwargs(
        body.chat_template_kwargs,
        effort=body.reasoning.effort if body.reasoning is not None else None,
        verbosity=body.text.verbosity if body.text is not None else None,
    )
    return Asked(
        prompt=ChatPrompt(
            messages=tuple(chat_messages(items, body.instructions)),
            tools=tools.shown,
            template_kwargs=wishes,
            param="input",
        ),
        given=given,
        tool_use=tools.use,
        constraint=_constraint(body),
        unknown=sorted(inside),
        depends=_depends(body),
    )


def wanted_logprobs(body: ResponseRequest) -> int | None:
    """How many alternatives each token is told with; None for no log-probabilities at all. Raises ApiError 400."""
    for i, name in enumerate(body.include or ()):
        if name != _LOGPROBS and name not in _IDLE_INCLUDES:
            raise invalid(f"include[{i}]", f'`include[{i}]`: "{name[:80]}" is not known.')
    if body.top_logprobs is None and _LOGPROBS not in (body.include or ()):
        return None
    return body.top_logprobs or 0


def idle_fields(body: InputTokensRequest) -> list[str]:
    """Fields of `body` that are known and do nothing here."""
    idle = []
    if body.reasoning is not None:
        wishes = ("summary", "generate_summary")
        idle += [f"reasoning.{name}" for name in wishes if getattr(body.reasoning, name) is not None]
    if isinstance(body, ResponseRequest):
        idle += [f"include[{i}]" for i, name in enumerate(body.include or ()) if name in _IDLE_INCLUDES]
    return idle


def _depends(body: InputTokensRequest) -> dict[str, Sequence[str]]:
    has_effort = body.reasoning is not None and body.reasoning.effort is not None
    has_verbosity = body.text is not None and body.text.verbosity is not None
    asked = template_depends(
        body.chat_template_kwargs,
        effort="reasoning.effort" if has_effort else None,
        verbosity="text.verbosity" if has_verbosity else None,
    )
    strict = [f"tools[{i}].strict" for i, tool in enumerate(body.tools or ()) if tool.get("strict")]
    return asked | dict.fromkeys(strict, (STRICT,))


def _constraint(body: InputTokensRequest) -> Constraint | None:
    form = body.text.format if body.text is not None else None
    if form is None or form.type == "text":
        return None
    if form.type == "json_object":
        return Constraint("json_object", param="text.format")
    if form.type != "json_schema":
        raise invalid(
            "text.format.type",
            f'`text.format.type`: "{form.type[:40]}" is none of text, json_object, json_schema.',
        )
    for name in ("name", "schema"):
        if getattr(form, name) is None:
            raise missing(f"text.format.{name}")
    return Constraint("json_schema", msgspec.json.encode(form.schema).decode(), "text.format")
