"""The tools of a chat request, the deprecated functions among them: what the template is shown, and how they may
be called.
"""

import re
from collections.abc import Collection, Iterable, Sequence
from typing import Any

import msgspec

from adapters.openai.decode import refuse_nul
from adapters.openai.errors import invalid, missing, unsupported
from adapters.openai.schema import ChatRequest, Function, FunctionName, NamedTool, Tool, ToolChoice
from runner.wire.requests import STRICT, ToolUse

_NAME = re.compile(r"[a-zA-Z0-9_-]{1,64}")


class OfferedTools(msgspec.Struct, frozen=True, kw_only=True):
    """`shown`: for the template, None without tools. `use` None: no call is looked for."""

    shown: tuple[dict[str, Any], ...] | None = None
    use: ToolUse | None = None


def offered_tools(body: ChatRequest) -> OfferedTools:
    """What the model is offered. Tools that it must not call are not shown to it. Raises ApiError 400."""
    if body.functions is not None or body.function_call not in (None, "none"):
        return _offered_functions(body)
    if body.tools is None:
        if body.tool_choice not in (None, "none"):
            raise invalid("tool_choice", "`tool_choice` is only allowed together with `tools`.")
        return OfferedTools()
    functions = [_function_of(tool, f"tools[{i}]") for i, tool in enumerate(body.tools)]
    for i, function in enumerate(functions):
        check_function(function, f"tools[{i}].function")
    names = [function.name for function in functions]
    parallel = body.parallel_tool_calls is not False
    match body.tool_choice:
        case "none":
            return OfferedTools()
        case None | "auto":
            return _offered(functions, ToolUse(parallel=parallel, strict=strict_names(functions)))
        case "required":
            return _offered(functions, ToolUse(choice="required", parallel=parallel))
        case ToolChoice(type="allowed_tools") as choice:
            return _allowed(choice, functions, names, parallel=parallel)
        case ToolChoice() as choice:
            name = _chosen(choice, names, "tool_choice")
            return _offered(functions, ToolUse(choice="function", name=name, parallel=parallel))


def strict_fields(body: ChatRequest) -> dict[str, Sequence[str]]:
    """The fields that ask for calls that fit, by what a worker says that cannot bind them."""
    paths = [f"tools[{i}].function.strict" for i, tool in enumerate(body.tools or ()) if _is_strict(tool)]
    paths += [f"functions[{i}].strict" for i, function in enumerate(body.functions or ()) if function.strict]
    return dict.fromkeys(paths, (STRICT,))


def strict_names(functions: Iterable[Function]) -> tuple[str, ...]:
    """Those whose calls must fit also where they are left to the model."""
    return tuple(function.name for function in functions if function.strict)


def check_function(function: Function, path: str) -> None:
    """Raises ApiError 400 for a name or a schema that no function can have."""
    if not _NAME.fullmatch(function.name):
        raise invalid(
            f"{path}.name",
            f'`{path}.name`: "{function.name[:80]}" must be 1 to 64 of the characters a-z, A-Z, 0-9, _ and -.',
        )
    refuse_nul(function.description or "", f"{path}.description")
    if (kind := (function.parameters or {}).get("type", "object")) != "object":
        raise invalid(
            f"{path}.parameters",
            f"`{path}.parameters` must be the JSON Schema of an object, but its type is {str(kind)[:40]!r}.",
        )


def shown_tool(function: Function) -> dict[str, Any]:
    """A tool as chat templates are written for."""
    shown: dict[str, Any] = {"name": function.name}
    if function.description is not None:
        shown["description"] = function.description
    shown["parameters"] = function.parameters or {"type": "object", "properties": {}}
    return {"type": "function", "function": shown}


def _offered(functions: Sequence[Function], use: ToolUse) -> OfferedTools:
    return OfferedTools(shown=tuple(map(shown_tool, functions)), use=use)


def _offered_functions(body: ChatRequest) -> OfferedTools:
    """The deprecated fields, by which a message has one call at most."""
    if body.tools is not None:
        raise invalid("functions", "Give either `tools` or the deprecated `functions`, not both.")
    if body.functions is None:
        raise invalid("function_call", "`function_call` is only allowed together with `functions`.")
    for i, function in enumerate(body.functions):
        check_function(function, f"functions[{i}]")
    match body.function_call:
        case "none":
            return OfferedTools()
        case FunctionName(name=name):
            _require_known(name, [function.name for function in body.functions], "function_call.name")
            use = ToolUse(choice="function", name=name, parallel=False)
        case _:
            use = ToolUse(parallel=False, strict=strict_names(body.functions))
    return _offered(body.functions, use)


def _allowed(
    choice: ToolChoice, functions: Sequence[Function], names: Collection[str], *, parallel: bool
) -> OfferedTools:
    """Only the allowed ones are shown, so that no other can be called."""
    path = "tool_choice.allowed_tools"
    if choice.allowed_tools is None:
        raise missing(path)
    allowed = {
        _chosen(tool, names, f"{path}.tools[{i}]") for i, tool in enumerate(choice.allowed_tools.tools)
    }
    shown = [function for function in functions if function.name in allowed]
    use = ToolUse(choice=choice.allowed_tools.mode, parallel=parallel, strict=strict_names(shown))
    return _offered(shown, use)


def _is_strict(tool: Tool) -> bool:
    return tool.function is not None and bool(tool.function.strict)


def _function_of(tool: Tool, path: str) -> Function:
    if tool.type not in (None, "function"):
        raise unsupported(
            f"{path}.type", f'`{path}.type`: only "function" tools are supported, not "{tool.type[:40]}".'
        )
    if tool.function is None:
        raise missing(f"{path}.function")
    return tool.function


def _chosen(choice: NamedTool, names: Collection[str], path: str) -> str:
    if choice.type != "function":
        raise unsupported(
            f"{path}.type", f'`{path}.type`: only functions can be chosen, not "{choice.type[:40]}".'
        )
    if choice.function is None:
        raise missing(f"{path}.function")
    _require_known(choice.function.name, names, f"{path}.function.name")
    return choice.function.name


def _require_known(name: str, names: Collection[str], path: str) -> None:
    if name not in names:
        raise invalid(path, f'`{path}`: there is no tool "{name[:80]}"; given are {", ".join(names)[:400]}.')
