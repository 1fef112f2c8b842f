"""From the fields of a body to what a model is asked: messages, tools, form of the answer."""

import re
from collections.abc import Sequence
from typing import Any

import msgspec

from adapters.anthropic.history import History
from adapters.anthropic.schema import CountTokensRequest, MessagesRequest, Tool
from adapters.openai.decode import convert, refuse_nul
from adapters.openai.errors import invalid, missing, unsupported
from adapters.openai.messages import THINKING, template_depends, template_kwargs
from adapters.openai.schema import Function
from adapters.openai.tools import OfferedTools, shown_tool
from adapters.openai.unknown import unknown_inside
from runner.wire.requests import STRICT, ChatPrompt, Constraint, ToolUse

_NAME = re.compile(r"[a-zA-Z0-9_-]{1,128}")


class Asked(msgspec.Struct, frozen=True, kw_only=True):
    """What a body comes to. `unknown`: its fields that nobody knows; `idle`: those which do nothing; `depends`: those
    that only some models have a use for, by what a worker then says."""

    prompt: ChatPrompt
    tool_use: ToolUse | None
    constraint: Constraint | None
    unknown: list[str]
    idle: list[str]
    depends: dict[str, Sequence[str]]


def read_prompt(body: CountTokensRequest, unknown: Sequence[str]) -> Asked:
    """What `body` asks. Raises ApiError 400 naming the message and the block."""
    history = History()
    if body.system is not None:
        history.add_system(body.system)
    for i, message in enumerate(body.messages):
        history.add(message, f"messages[{i}]")
    continues = history.end()
    tools = _offered(body, history.unknown)
    form = body.output_config.format if body.output_config is not None else None
    return Asked(
        prompt=ChatPrompt(
            messages=tuple(history.messages),
            tools=tools.shown,
            template_kwargs=_wishes(body),
            add_generation_prompt=not continues,
            continue_final_message=continues,
        ),
        tool_use=tools.use,
        constraint=None
        if form is None
        else Constraint("json_schema", msgspec.json.encode(form.schema).decode(), "output_config.format"),
        unknown=sorted([*unknown, *history.unknown]),
        idle=history.idle + _idle(body),
        depends=_depends(body),
    )


def _wishes(body: CountTokensRequest) -> dict[str, Any]:
    """What templates are told. "adaptive" leaves it to the model whether it thinks."""
    effort = body.output_config.effort if body.output_config is not None else None
    wishes = template_kwargs(None, effort=effort)
    if body.thinking is not None:
        if isinstance(body, MessagesRequest) and (body.thinking.budget_tokens or 0) >= body.max_tokens:
            raise invalid(
                "thinking.budget_tokens", "`thinking.budget_tokens` must be less than `max_tokens`."
            )
        if body.thinking.type != "adaptive":
            wishes |= dict.fromkeys(THINKING, body.thinking.type == "enabled")
    return wishes


def _depends(body: CountTokensRequest) -> dict[str, Sequence[str]]:
    effort = body.output_config.effort if body.output_config is not None else None
    depends = template_depends(
        None, effort=None if effort is None else "output_config.effort", verbosity=None
    )
    if body.thinking is not None and body.thinking.type != "adaptive":
        depends["thinking.type"] = THINKING
    strict = [f"tools[{i}].strict" for i, tool in enumerate(body.tools or ()) if tool.get("strict")]
    return depends | dict.fromkeys(strict, (STRICT,))


def _idle(body: CountTokensRequest) -> list[str]:
    if body.thinking is None:
        return []
    return [
        f"thinking.{name}"
        for name in ("budget_tokens", "display")
        if getattr(body.thinking, name) is not None
    ]


def _offered(body: CountTokensRequest, unknown: list[str]) -> OfferedTools:
    tools = [_read_tool(given, f"tools[{i}]", unknown) for i, given in enumerate(body.tools or ())]
    choice = body.tool_choice
    if not tools:
        if choice is not None and choice.type != "none":
            raise invalid("tool_choice", "`tool_choice` is only allowed together with `tools`.")
        return OfferedTools()
    strict = tuple(tool.name for tool in tools if tool.strict)
    if choice is None:
        use = ToolUse(strict=strict)
    elif choice.type == "none":
        return OfferedTools()
    else:
        parallel = not choice.disable_parallel_tool_use
        match choice.type:
            case "auto":
                use = ToolUse(parallel=parallel, strict=strict)
            case "any":
                use = ToolUse(choice="required", parallel=parallel)
            case "tool":
                use = ToolUse(choice="function", name=_chosen(choice.name, tools), parallel=parallel)
    return OfferedTools(shown=tuple(map(_shown, tools)), use=use)


def _chosen(name: str | None, tools: Sequence[Tool]) -> str:
    if name is None:
        raise missing("tool_choice.name")
    names = [tool.name for tool in tools]
    if name not in names:
        raise invalid(
            "tool_choice.name",
            f'`tool_choice.name`: there is no tool "{name[:80]}"; given are {", ".join(names)[:400]}.',
        )
    return name


def _read_tool(given: dict[str, Any], path: str, unknown: list[str]) -> Tool:
    kind = given.get("type")
    if isinstance(kind, str) and kind != "custom":
        raise unsupported(
            f"{path}.type",
            f'`{path}.type`: "{kind[:40]}" is a tool that the server would have to bring; only tools with an '
            "`input_schema` are supported.",
        )
    tool = convert(given, Tool, path)
    if not _NAME.fullmatch(tool.name):
        raise invalid(
            f"{path}.name",
            f'`{path}.name`: "{tool.name[:80]}" must be 1 to 128 of the characters a-z, A-Z, 0-9, _ and -.',
        )
    if tool.input_schema.get("type", "object") != "object":
        raise invalid(f"{path}.input_schema", f"`{path}.input_schema` must be the JSON Schema of an object.")
    refuse_nul(tool.description or "", f"{path}.description")
    unknown += [f"{path}.{name}" for name in given.keys() - set(Tool.__struct_fields__)]
    unknown += [f"{path}.{name}" for name in unknown_inside(given, Tool)]
    return tool


def _shown(tool: Tool) -> dict[str, Any]:
    return shown_tool(
        Function(
            name=tool.name, description=tool.description, parameters=tool.input_schema, strict=tool.strict
        )
    )
