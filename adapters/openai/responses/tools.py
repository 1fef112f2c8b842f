"""The tools of a request for a response, which are written more flatly than a chat's."""

from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta

from adapters.openai.decode import convert
from adapters.openai.errors import invalid, unsupported
from adapters.openai.responses.schema import InputTokensRequest
from adapters.openai.schema import Function
from adapters.openai.tools import OfferedTools, check_function, shown_tool, strict_names
from runner.wire.requests import ToolUse


class FunctionTool(Function, frozen=True, kw_only=True):
    type: Literal["function"]


class FunctionChoice(msgspec.Struct, frozen=True, kw_only=True):
    type: Literal["function"]
    name: str


class AllowedTools(msgspec.Struct, frozen=True, kw_only=True):
    type: Literal["allowed_tools"]
    mode: Literal["auto", "required"]
    tools: Annotated[list[FunctionChoice], Meta(min_length=1)]


def offered_tools(body: InputTokensRequest, unknown: list[str]) -> OfferedTools:
    """What the model is offered; fields that nobody knows are added to `unknown`. Raises ApiError 400."""
    tools = [_read_tool(given, f"tools[{i}]", unknown) for i, given in enumerate(body.tools or ())]
    choice, parallel = body.tool_choice, body.parallel_tool_calls is not False
    if not tools:
        if choice not in (None, "none", "auto"):
            raise invalid("tool_choice", "`tool_choice` is only allowed together with `tools`.")
        return OfferedTools()
    names = {tool.name for tool in tools}
    match choice:
        case "none":
            return OfferedTools()
        case None | "auto":
            use = ToolUse(parallel=parallel, strict=strict_names(tools))
        case "required":
            use = ToolUse(choice="required", parallel=parallel)
        case {"type": "function"}:
            named = convert(choice, FunctionChoice, "tool_choice")
            _require_known(named.name, names, "tool_choice.name")
            use = ToolUse(choice="function", name=named.name, parallel=parallel)
        case {"type": "allowed_tools"}:
            allowed = convert(choice, AllowedTools, "tool_choice")
            for i, one in enumerate(allowed.tools):
                _require_known(one.name, names, f"tool_choice.tools[{i}].name")
            chosen = {one.name for one in allowed.tools}
            tools = [tool for tool in tools if tool.name in chosen]  # what is not shown cannot be called
            use = ToolUse(choice=allowed.mode, parallel=parallel, strict=strict_names(tools))
        case _:
            raise unsupported(
                "tool_choice",
                '`tool_choice` must be "none", "auto", "required", or an object whose type is "function" or '
                '"allowed_tools".',
            )
    return OfferedTools(shown=tuple(map(shown_tool, tools)), use=use)


def _read_tool(given: dict[str, Any], path: str, unknown: list[str]) -> FunctionTool:
    kind = given.get("type")
    if isinstance(kind, str) and kind != "function":
        raise unsupported(
            f"{path}.type", f'`{path}.type`: only "function" tools are supported, not "{kind[:40]}".'
        )
    tool = convert(given, FunctionTool, path)
    check_function(tool, path)
    unknown += [f"{path}.{name}" for name in given.keys() - set(FunctionTool.__struct_fields__)]
    return tool


def _require_known(name: str, names: set[str], path: str) -> None:
    if name not in names:
        raise invalid(
            path, f'`{path}`: there is no tool "{name[:80]}"; given are {", ".join(sorted(names))[:400]}.'
        )
