"""A chat's history as chat templates are written for: texts for parts, objects for arguments, tool messages for the
deprecated functions.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from adapters.openai.decode import refuse_nul
from adapters.openai.errors import invalid, missing, unsupported
from adapters.openai.schema import ContentPart, FunctionCall, Message

THINKING = ("enable_thinking", "thinking")
"""What templates call the wish that the model thinks."""

_TEMPLATE_OWN = ("messages", "tools", "add_generation_prompt")
_ROLES = ("developer", "system", "user", "assistant", "tool", "function")


def template_messages(messages: Sequence[Message]) -> tuple[dict[str, Any], ...]:
    """The messages as maps. Raises ApiError 400 naming the message and its part."""
    made: list[dict[str, Any]] = []
    last_function = ""
    for i, message in enumerate(messages):
        if message.function_call is not None:
            last_function = f"{i:09}"  # some templates take nothing but nine letters or digits
        made.append(_template_message(f"messages[{i}]", message, function_id=last_function))
    return tuple(made)


def template_kwargs(
    given: Mapping[str, Any] | None, *, effort: str | None = None, verbosity: str | None = None
) -> dict[str, Any]:
    """What templates are told beside messages and tools; each family has a name of its own for the wish to reason.
    Raises ApiError 400 where `given` holds what is not its business."""
    for name in _TEMPLATE_OWN:
        if name in (given or {}):
            raise invalid(
                "chat_template_kwargs",
                f"`chat_template_kwargs` must not hold `{name}`; it has a field of its own.",
            )
    wishes: dict[str, Any] = {}
    if effort is not None:
        wishes["reasoning_effort"] = effort
        wishes |= dict.fromkeys(THINKING, effort != "none")
    if verbosity is not None:
        wishes["verbosity"] = verbosity
    return {**wishes, **(given or {})}


def template_depends(
    given: Mapping[str, Any] | None, *, effort: str | None, verbosity: str | None
) -> dict[str, Sequence[str]]:
    """The fields that ask something of the template, by what it must read for them to act. `effort` and `verbosity` are
    their paths, None where they are not given."""
    depends: dict[str, Sequence[str]] = {f"chat_template_kwargs.{name}": (name,) for name in given or {}}
    if effort is not None:
        depends[effort] = ("reasoning_effort", *THINKING)
    if verbosity is not None:
        depends[verbosity] = ("verbosity",)
    return depends


def template_call(name: str, arguments: str, id: str | None) -> dict[str, Any]:
    """A call that was made, as templates print it: they turn arguments into JSON themselves, so they get the object
    behind the API's string."""
    function: dict[str, Any] = {"name": name, "arguments": arguments}
    try:
        made = msgspec.json.decode(arguments)
        msgspec.msgpack.encode(made)  # an integer that a model wrote may be larger than a worker can be sent
        function["arguments"] = made
    except (msgspec.DecodeError, OverflowError, RecursionError):
        pass  # the template shows it as the model wrote it
    call: dict[str, Any] = {"type": "function", "function": function}
    if id is not None:
        call["id"] = id
    return call


def _template_message(path: str, message: Message, *, function_id: str) -> dict[str, Any]:
    role = message.role
    if role not in _ROLES:
        raise invalid(f"{path}.role", f'`{path}.role`: "{role[:40]}" is none of {", ".join(_ROLES)}.')
    made: dict[str, Any] = {
        "role": {"developer": "system", "function": "tool"}.get(role, role),
        "content": _content(message, path),
    }
    if role == "tool":
        if message.tool_call_id is None:
            raise missing(f"{path}.tool_call_id")
        made["tool_call_id"] = message.tool_call_id
    if role == "function":
        if message.name is None:
            raise missing(f"{path}.name")
        made["tool_call_id"] = function_id
    if message.name is not None:
        made["name"] = message.name
    if calls := _calls(message, path, function_id=function_id):
        made["tool_calls"] = calls
    reasoning = message.reasoning_content if message.reasoning_content is not None else message.reasoning
    if reasoning is not None:
        refuse_nul(reasoning, f"{path}.reasoning_content")
        made["reasoning_content"] = reasoning
    return made


def _content(message: Message, path: str) -> str:
    if message.content is not None:
        text = _text(message.content, path)
    elif message.role != "assistant" or not (
        message.refusal is not None or message.tool_calls or message.function_call
    ):
        raise missing(f"{path}.content")
    else:
        text = message.refusal or ""
    refuse_nul(text, f"{path}.content")
    return text


def _text(content: str | list[ContentPart], path: str) -> str:
    if isinstance(content, str):
        return content
    texts = []
    for j, part in enumerate(content):
        where = f"{path}.content[{j}]"
        if part.type not in ("text", "refusal"):
            raise unsupported(where, f'`{where}`: this model takes text only, not "{part.type[:40]}" parts.')
        text = part.text if part.type == "text" else part.refusal
        if text is None:
            raise missing(f"{where}.{part.type}")
        texts.append(text)
    return "\n".join(texts)


def _calls(message: Message, path: str, *, function_id: str) -> list[dict[str, Any]]:
    if (message.tool_calls or message.function_call) and message.role != "assistant":
        name = "tool_calls" if message.tool_calls else "function_call"
        raise invalid(f"{path}.{name}", f'`{path}.{name}`: only messages of the role "assistant" have calls.')
    if message.function_call is not None:
        if message.tool_calls:
            raise invalid(
                f"{path}.function_call",
                f"`{path}`: give either `tool_calls` or the deprecated `function_call`, not both.",
            )
        return [_call(message.function_call, function_id, f"{path}.function_call")]
    calls = []
    for j, call in enumerate(message.tool_calls or ()):
        where = f"{path}.tool_calls[{j}]"
        if call.type not in (None, "function"):
            raise unsupported(
                f"{where}.type",
                f'`{where}.type`: only "function" tools are supported, not "{call.type[:40]}".',
            )
        if call.function is None:
            raise missing(f"{where}.function")
        calls.append(_call(call.function, call.id, f"{where}.function"))
    return calls


def _call(function: FunctionCall, id: str | None, path: str) -> dict[str, Any]:
    refuse_nul(function.name, f"{path}.name")
    arguments = "{}" if function.arguments is None else function.arguments
    refuse_nul(arguments, f"{path}.arguments")
    return template_call(function.name, arguments, id)
