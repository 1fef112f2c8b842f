"""The items that responses are asked with and consist of, and what a chat template gets of them.

Items come as open maps, since one without a `type` is a message; `read_items` makes them these Structs, which is
also how they are stored. Made items, those of an answer, are `output.py`'s.
"""

import secrets
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta
from msgspec.structs import replace

from adapters.openai.decode import convert, refuse_nul
from adapters.openai.errors import invalid, missing, unsupported
from adapters.openai.messages import template_call
from adapters.openai.unknown import unknown_inside

Status = Literal["in_progress", "completed", "incomplete"]


class Tagged(msgspec.Struct, frozen=True, kw_only=True, tag_field="type"):
    """Told apart by `type`."""


class InputText(Tagged, frozen=True, tag="input_text"):
    text: str


class OutputText(Tagged, frozen=True, tag="output_text"):
    text: str
    annotations: list[Any] = []
    logprobs: list[Any] | None = None


class Refusal(Tagged, frozen=True, tag="refusal"):
    refusal: str


class ReasoningText(Tagged, frozen=True, tag="reasoning_text"):
    text: str


class SummaryText(Tagged, frozen=True, tag="summary_text"):
    text: str


class MessageItem(Tagged, frozen=True, tag="message"):
    role: Literal["user", "assistant", "system", "developer"]
    content: str | list[InputText | OutputText | Refusal]
    id: str | None = None
    status: Status | None = None
    phase: Literal["commentary", "final_answer"] | None = None


class FunctionCallItem(Tagged, frozen=True, tag="function_call"):
    """`arguments`: the JSON text of an object."""

    call_id: Annotated[str, Meta(min_length=1)]
    name: Annotated[str, Meta(min_length=1)]
    arguments: str
    id: str | None = None
    status: Status | None = None


class CallOutputItem(Tagged, frozen=True, tag="function_call_output"):
    call_id: Annotated[str, Meta(min_length=1)]
    output: str | list[InputText]
    id: str | None = None
    status: Status | None = None


class ReasoningItem(Tagged, frozen=True, tag="reasoning"):
    summary: list[SummaryText] = []
    content: list[ReasoningText] | None = None
    id: str | None = None
    status: Status | None = None
    encrypted_content: None = None  # is never made here, and cannot be read


Item = MessageItem | FunctionCallItem | CallOutputItem | ReasoningItem

_KINDS: Mapping[str, type[Item]] = MappingProxyType(
    {
        "message": MessageItem,
        "function_call": FunctionCallItem,
        "function_call_output": CallOutputItem,
        "reasoning": ReasoningItem,
    }
)
_PREFIXES: Mapping[type[Item], str] = MappingProxyType(
    {MessageItem: "msg", FunctionCallItem: "fc", CallOutputItem: "fco", ReasoningItem: "rs"}
)
_PARTS = ("input_text", "output_text", "refusal", "reasoning_text", "summary_text")
_LISTS = ("content", "output", "summary")


def new_id(kind: type[Item]) -> str:
    """An id for an item of this kind."""
    return f"{_PREFIXES[kind]}_{secrets.token_hex(12)}"


def read_items(given: str | Sequence[dict[str, Any]], unknown: list[str]) -> list[Item]:
    """The items of `input`, each with an id; the paths of fields that nobody knows are added to `unknown`.

    Raises ApiError 400 naming the item and the field.
    """
    if isinstance(given, str):
        refuse_nul(given, "input")
        return [_with_id(MessageItem(role="user", content=given))]
    if not given:
        raise invalid("input", "`input` is an empty list; give at least one item.")
    return [_with_id(_read_item(item, f"input[{i}]", unknown)) for i, item in enumerate(given)]


def check_calls(items: Sequence[Item], num_stored: int) -> None:
    """Raises ApiError 400 where the output of a call has no call before it. The first `num_stored` items are not
    of this request."""
    calls = set()
    for i, item in enumerate(items, -num_stored):
        match item:
            case FunctionCallItem():
                calls.add(item.call_id)
            case CallOutputItem() if item.call_id not in calls:
                raise invalid(
                    f"input[{i}].call_id",
                    f'`input[{i}].call_id`: no function call before it has the id "{item.call_id[:80]}"; send the '
                    "call too, or the `previous_response_id` of the response that made it.",
                )


def chat_messages(items: Sequence[Item], instructions: str | None) -> list[dict[str, Any]]:
    """The messages for a chat template. What an assistant thought, said and called in one turn is one message, and
    all that a system says at the beginning too: templates know neither otherwise."""
    messages: list[dict[str, Any]] = []
    opening = [instructions] if instructions else []
    names: dict[str, str] = {}
    for item in items:
        match item:
            case MessageItem(role="assistant"):
                turn = _turn(messages, without=("content", "tool_calls"))
                turn["content"] = text_of(item.content)
            case MessageItem(role="system" | "developer") if not messages:
                opening.append(text_of(item.content))
            case MessageItem():
                role = "system" if item.role == "developer" else item.role
                messages.append({"role": role, "content": text_of(item.content)})
            case ReasoningItem():
                turn = _turn(messages, without=("reasoning_content", "content", "tool_calls"))
                turn["reasoning_content"] = "\n".join(part.text for part in item.content or item.summary)
            case FunctionCallItem():
                names[item.call_id] = item.name
                _turn(messages).setdefault("tool_calls", []).append(
                    template_call(item.name, item.arguments, item.call_id)
                )
            case CallOutputItem():
                answer = {"role": "tool", "content": text_of(item.output), "tool_call_id": item.call_id}
                messages.append(answer | {"name": names[item.call_id]})
    for message in messages:
        message.setdefault("content", "")
    return [{"role": "system", "content": "\n\n".join(opening)}, *messages] if opening else messages


def text_of(content: str | Sequence[InputText | OutputText | Refusal]) -> str:
    if isinstance(content, str):
        return content
    return "\n".join(part.refusal if isinstance(part, Refusal) else part.text for part in content)


def _read_item(given: dict[str, Any], path: str, unknown: list[str]) -> Item:
    name = given.get("type") or "message"
    kind = _KINDS.get(name) if isinstance(name, str) else None
    if kind is None:
        raise unsupported(
            f"{path}.type",
            f"`{path}`: items of type {_shown(name)} are not supported; known: {', '.join(_KINDS)}.",
        )
    for field in _LISTS:
        parts = given.get(field)
        for j, part in enumerate(parts) if isinstance(parts, list) else ():
            _check_part(part, f"{path}.{field}[{j}]")
    if kind is ReasoningItem and given.get("encrypted_content") and not given.get("content"):
        raise unsupported(
            f"{path}.encrypted_content",
            f"`{path}.encrypted_content`: this server cannot read what another one encrypted; leave the item out.",
        )
    given = {**given, "type": name}
    if kind is ReasoningItem and given.pop("encrypted_content", None):
        unknown.append(f"{path}.encrypted_content")
    item = convert(given, kind, path)
    unknown += [f"{path}.{field}" for field in given.keys() - {"type", *kind.__struct_fields__}]
    unknown += [f"{path}.{field}" for field in unknown_inside(given, kind)]
    _check_texts(item, path)
    return item


def _check_part(part: Any, path: str) -> None:
    name = part.get("type") if isinstance(part, dict) else None
    if isinstance(part, dict) and name is None:
        raise missing(f"{path}.type")
    if name is not None and name not in _PARTS:
        raise unsupported(path, f"`{path}`: this model takes text only, not {_shown(name)} parts.")


def _check_texts(item: Item, path: str) -> None:
    match item:
        case MessageItem():
            refuse_nul(text_of(item.content), f"{path}.content")
        case CallOutputItem():
            refuse_nul(text_of(item.output), f"{path}.output")
        case FunctionCallItem():
            refuse_nul(item.arguments, f"{path}.arguments")
        case ReasoningItem():
            for part in (*item.summary, *(item.content or ())):
                refuse_nul(part.text, f"{path}.content")


def _with_id(item: Item) -> Item:
    """The item as it is stored and listed: with an id, a status and parts that suit its role."""
    if isinstance(item, MessageItem):
        parts = [InputText(text=item.content)] if isinstance(item.content, str) else item.content
        kind = OutputText if item.role == "assistant" else InputText
        suited = [part if isinstance(part, Refusal) else kind(text=part.text) for part in parts]
        item = replace(item, content=suited)
    return replace(item, id=item.id or new_id(type(item)), status=item.status or "completed")


def _turn(messages: list[dict[str, Any]], *, without: Sequence[str] = ()) -> dict[str, Any]:
    """The assistant's message at the end, a new one where the last has one of these parts already."""
    last = messages[-1] if messages else None
    if last is None or last["role"] != "assistant" or any(name in last for name in without):
        messages.append(last := {"role": "assistant"})
    return last


def _shown(name: Any) -> str:
    return f'"{name[:40]}"' if isinstance(name, str) else "of another kind"
