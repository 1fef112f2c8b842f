"""Messages and their blocks as chat templates are written for: results of tools are messages of their own, and what
an assistant thought, said and called in one turn is one message.
"""

import itertools
import operator
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

from adapters.anthropic.schema import (
    BLOCKS,
    Block,
    InputMessage,
    TextBlock,
    ThinkingBlock,
    ToolResultBlock,
    ToolUseBlock,
)
from adapters.openai.decode import convert, refuse_nul
from adapters.openai.errors import invalid, missing, unsupported
from adapters.openai.unknown import unknown_inside

Content = str | list[dict[str, Any]]

_ALLOWED: Mapping[str, tuple[type[Block], ...]] = MappingProxyType(
    {
        "user": (TextBlock, ToolResultBlock),
        "assistant": (TextBlock, ThinkingBlock, ToolUseBlock),
        "system": (TextBlock,),
    }
)


class History:
    """Takes messages in order, then its `end`. `unknown`: paths of fields that nobody knows; `idle`: of those that do
    nothing."""

    def __init__(self) -> None:
        self.messages: list[dict[str, Any]] = []
        self.unknown: list[str] = []
        self.idle: list[str] = []
        self._names: dict[str, str] = {}

    def add(self, message: InputMessage, path: str) -> None:
        """Raises ApiError 400 naming the block."""
        for where, block in self._blocks(message.role, message.content, f"{path}.content"):
            match block:
                case TextBlock(text=text):
                    self._say(message.role, text)
                case ThinkingBlock(thinking=text):
                    self._turn("assistant").setdefault("reasoning_content", []).append(text)
                case ToolUseBlock(id=id, name=name):
                    self._names[id] = name
                    call = {
                        "id": id,
                        "type": "function",
                        "function": {"name": name, "arguments": block.input},
                    }
                    self._turn("assistant").setdefault("tool_calls", []).append(call)
                case ToolResultBlock():
                    self._add_result(block, where)

    def add_system(self, content: Content) -> None:
        """The `system` field. Raises ApiError 400."""
        for _, block in self._blocks("system", content, "system"):
            if isinstance(block, TextBlock):
                self._say("system", block.text)

    def end(self) -> bool:
        """Whether the answer goes on with what the last message, an assistant's, has begun to say. Raises ApiError
        400 where it cannot."""
        for message in self.messages:
            for field in message.keys() & {"content", "reasoning_content"}:
                message[field] = _joined(message[field])
        last = self.messages[-1] if self.messages else {"role": "user"}
        if last["role"] != "assistant":
            return False
        if "tool_calls" in last:
            raise invalid("messages", "`messages` ends with a tool call; its result has to come after it.")
        begun = last.get("content", "")
        if begun != begun.rstrip():
            raise invalid(
                "messages", "`messages`: what the assistant is to go on with must not end with space."
            )
        if not begun:
            self.messages.pop()
        return bool(begun)

    def _add_result(self, block: ToolResultBlock, path: str) -> None:
        if block.tool_use_id not in self._names:
            raise invalid(
                f"{path}.tool_use_id",
                f'`{path}.tool_use_id`: no tool call before it has the id "{block.tool_use_id[:80]}".',
            )
        if block.is_error:
            self.idle.append(f"{path}.is_error")
        texts = [
            part.text
            for _, part in self._blocks("system", block.content or "", f"{path}.content")
            if isinstance(part, TextBlock)
        ]
        self.messages.append(
            {
                "role": "tool",
                "content": "\n".join(texts),
                "tool_call_id": block.tool_use_id,
                "name": self._names[block.tool_use_id],
            }
        )

    def _blocks(self, role: str, content: Content, path: str) -> list[tuple[str, Block]]:
        """The blocks with their paths."""
        if isinstance(content, str):
            refuse_nul(content, path)
            return [(path, TextBlock(text=content))]
        return [
            (where, self._block(role, given, where))
            for j, given in enumerate(content)
            if (where := f"{path}[{j}]")
        ]

    def _block(self, role: str, given: dict[str, Any], path: str) -> Block:
        name = given.get("type")
        if name is None:
            raise missing(f"{path}.type")
        kind = BLOCKS.get(name) if isinstance(name, str) else None
        if kind is None:
            raise unsupported(
                path, f"`{path}`: blocks of type {str(name)[:40]!r} are not supported; this model takes text."
            )
        if kind not in _ALLOWED[role]:
            raise invalid(path, f'`{path}`: a block of type "{name}" has no place here.')
        block = convert(given, kind, path)
        self.unknown += [f"{path}.{one}" for one in given.keys() - {"type", *kind.__struct_fields__}]
        self.unknown += [f"{path}.{one}" for one in unknown_inside(given, kind)]
        for field in ("text", "thinking"):
            refuse_nul(getattr(block, field, ""), f"{path}.{field}")
        return block

    def _say(self, role: str, text: str) -> None:
        self._turn(role)["content"].append(text)

    def _turn(self, role: str) -> dict[str, Any]:
        """The last message, a new one where that is of another role: turns of one role that follow are one."""
        if not self.messages or self.messages[-1]["role"] != role:
            self.messages.append({"role": role, "content": []})
        return self.messages[-1]


def _joined(texts: str | list[str]) -> str:
    """Texts of one turn, a line each; empty ones before them add none."""
    return texts if isinstance(texts, str) else "\n".join(itertools.dropwhile(operator.not_, texts))
