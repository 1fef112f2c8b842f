"""Finds tool calls in a model's text and reads them as they come, whatever the format.

A call is announced once its tool is known, then its arguments follow as they are written. Text that only looked
like a call comes out as content. Of a call that breaks off after it was announced, what had come stays.
"""

import json
import re
from collections.abc import Callable, Mapping
from typing import Any

import msgspec

from runner.worker.output.json_text import JsonFollower
from runner.worker.output.parameters import ParameterFollower
from runner.worker.output.parts import Kind, Part
from runner.worker.output.tool_formats import ToolFormat
from runner.worker.text import overlap

_S = r"[ \t\n\r]*"
_HEAD = re.compile(
    rf'{{{_S}"name"{_S}:{_S}"([^"\\\x00-\x1f]+)"{_S},{_S}"(?:arguments|parameters)"{_S}:{_S}(?={{)'
)
_NAME = re.compile(rf'{{{_S}"name"{_S}:{_S}"([^"\\\x00-\x1f]+)"')
_FIRST_KEY = re.compile(rf'{{{_S}"([^"\\]*)"')
_COMMA = re.compile(r",\s*")
_SEPARATOR = re.compile(r"\s*;?\s*")
_KEYS = frozenset(("name", "arguments", "parameters", "type", "id", "function"))
_ARGUMENTS = ("arguments", "parameters")
_LONGEST_NAME = 256


class ToolCallReader:
    """The calls of one answer. `tools`: the schemas of those there are by name, of which a call must be that nothing
    announces. `most`: nothing is read beyond so many calls."""

    def __init__(
        self, format: ToolFormat, tools: Mapping[str, Mapping[str, Any]], *, most: int | None = None
    ) -> None:
        self._format = format
        self._tools = tools
        self._most = most
        self._marks = (format.open, *format.section)
        self._open = re.compile(re.escape(format.open) + r"\s*(\[)?\s*")
        self._named = re.compile(format.named) if format.named else None
        self._num_whole = 0
        self._text = ""
        self._state: Callable[[list[Part]], bool] = self._answer if format.bare else self._content
        self._lead = self._open
        self._in_array = False
        self._is_bare = False
        self._is_object = True
        self._follower: JsonFollower | ParameterFollower = JsonFollower()
        self._object_at = self._followed = 0
        self._object_text: list[str] = []

    @property
    def is_done(self) -> bool:
        """As many calls as there may be have been read."""
        return self._most is not None and self._num_whole >= self._most

    def feed(self, text: str) -> list[Part]:
        """What `text` makes certain."""
        self._text += text
        parts: list[Part] = []
        while self._text and not self.is_done and self._state(parts):
            pass
        return parts

    def flush(self) -> list[Part]:
        """What was held back, now that nothing follows."""
        held, self._text = self._text, ""
        if not held or self.is_done or self._state in (self._rest, self._next):
            return []  # what follows a call and is no call is the beginning of more markup
        if self._state != self._arguments:
            return [Part(Kind.CONTENT, held)]
        return [Part(Kind.ARGUMENTS, held)] if isinstance(self._follower, JsonFollower) else []

    # Each state takes what it can from the front of the text, and returns whether another may go on with it.

    def _answer(self, parts: list[Part]) -> bool:
        """The answer's beginning, where a bare object is a call."""
        start = self._text.lstrip()
        if not start:
            return False
        if start[0] == "{":
            self._begin(_SEPARATOR, is_bare=True)
        else:
            self._state = self._content
        return True

    def _content(self, parts: list[Part]) -> bool:
        """Text, up to the next mark."""
        found = [(at, mark) for mark in self._marks if (at := self._text.find(mark)) >= 0]
        if not found:
            keep = max(overlap(self._text, mark) for mark in self._marks)
            parts += _content(self._take(len(self._text) - keep))
            return False
        at, mark = min(found)
        parts += _content(self._take(at))
        if mark == self._format.open:
            self._begin(self._open)
        else:
            self._take(len(mark))
        return True

    def _head(self, parts: list[Part]) -> bool:
        """What leads to a call. Nothing is taken before it is certain that this is one."""
        lead = self._lead.match(self._text)
        at = lead.end() if lead else 0
        if at == len(self._text):
            return False
        self._in_array |= lead is not None and lead.lastindex is not None
        if self._text[at] != "{":
            return self._name(at, parts)
        self._follower = JsonFollower()
        self._object_at, self._object_text = at, []
        self._followed = at
        self._state = self._object
        return True

    def _object(self, parts: list[Part]) -> bool:
        """An object with name and arguments. In the usual order the arguments are passed on as they come, else
        all of it must be there."""
        at = self._object_at
        if (name := _NAME.match(self._text, at)) and not self._is_known(name.group(1)):
            return self._refuse(at, parts)
        if head := _HEAD.match(self._text, at):
            self._take(head.end())
            self._announce(head.group(1), parts, is_object=True)
            return True
        if (first := _FIRST_KEY.match(self._text, at)) and first.group(1) not in _KEYS:
            return self._refuse(at, parts)
        text, self._followed = self._follower.feed(self._text, self._followed)
        self._object_text.append(text)
        if self._follower.is_broken:
            return self._refuse(at, parts)
        if not self._follower.is_complete:
            return False
        call = _read("".join(self._object_text))
        if call is None or not self._is_known(call[0]):
            return self._refuse(at, parts)
        self._take(self._followed)
        self._announce(call[0], parts, is_object=True)
        parts.append(Part(Kind.ARGUMENTS, call[1]))
        self._end(parts)
        self._state = self._next
        return True

    def _name(self, at: int, parts: list[Part]) -> bool:
        """Arguments alone, with the name before them."""
        if self._named is None or self._in_array or self._is_bare:
            return self._refuse(at, parts)
        if self._format.parameters is not None:
            named, is_whole = self._named.match(self._text, at), len(self._text) - at >= _LONGEST_NAME
        else:
            brace = self._text.find("{", at, at + _LONGEST_NAME)
            is_whole = brace >= 0 or len(self._text) - at >= _LONGEST_NAME
            named = self._named.fullmatch(self._text, at, brace) if brace >= 0 else None
        if named is None:
            return is_whole and self._refuse(at, parts)
        self._take(named.end())
        self._announce(named.group("name"), parts, is_object=False, id=named.groupdict().get("id") or "")
        return True

    def _arguments(self, parts: list[Part]) -> bool:
        text, end = self._follower.feed(self._text)
        self._take(end)
        if text:
            parts.append(Part(Kind.ARGUMENTS, text))
        if self._follower.is_complete:
            self._end(parts)
            self._follower = JsonFollower.inside_object()
            self._state = self._rest if self._is_object else self._next
        elif self._follower.is_broken:
            self._state = self._content
        else:
            return False
        return True

    def _rest(self, parts: list[Part]) -> bool:
        """The end of the object that held the arguments, which a model may forget."""
        self._take(self._follower.feed(self._text).end)
        if not self._follower.is_complete and not self._follower.is_broken:
            return False
        self._state = self._next
        return True

    def _next(self, parts: list[Part]) -> bool:
        """Behind a call: another one, or the end of the calls."""
        self._text = self._text.lstrip()
        if not self._text:
            return False
        format = self._format
        if self._in_array:
            if self._text[0] == ",":
                self._begin(_COMMA)
                return True
            self._in_array = False
            if self._text[0] == "]":
                self._take(1)
                return True
        if format.close and self._text.startswith(format.close):
            self._take(len(format.close))
            self._state = self._content
        elif format.close.startswith(self._text):
            return False
        elif format.separator and self._text[0] == format.separator:
            self._begin(_SEPARATOR, is_bare=True)
        else:
            self._state = self._content
        return True

    def _begin(self, lead: re.Pattern[str], *, is_bare: bool = False) -> None:
        """What `lead` matches is to be followed by a call; its group stands for the beginning of an array."""
        self._lead, self._is_bare = lead, is_bare
        self._state = self._head

    def _is_known(self, name: str) -> bool:
        return not self._is_bare or name in self._tools

    def _announce(self, name: str, parts: list[Part], *, is_object: bool, id: str = "") -> None:
        parts.append(Part(Kind.CALL, name, id))
        self._is_object = is_object
        marks = self._format.parameters
        if is_object or marks is None:
            self._follower = JsonFollower()
        else:
            self._follower = ParameterFollower(marks, self._tools.get(name, {}))
        self._state = self._arguments

    def _end(self, parts: list[Part]) -> None:
        parts.append(Part(Kind.END, ""))
        self._num_whole += 1

    def _refuse(self, at: int, parts: list[Part]) -> bool:
        """It was no call: what led here is content, and the rest may be anything."""
        parts += _content(self._take(max(at, 1)))
        self._in_array = False
        self._state = self._content
        return True

    def _take(self, size: int) -> str:
        taken, self._text = self._text[:size], self._text[size:]
        return taken


def _content(text: str) -> list[Part]:
    return [Part(Kind.CONTENT, text)] if text else []


def _read(text: str) -> tuple[str, str] | None:
    """Name and arguments of a call's whole object, in whatever order it has them."""
    try:
        call = msgspec.json.decode(text)
        if isinstance(call.get("function"), dict):
            call = call["function"]
        given: Any = next((call[key] for key in _ARGUMENTS if call.get(key) is not None), {})
        if isinstance(given, str):
            given = msgspec.json.decode(given)
    except (msgspec.DecodeError, RecursionError):
        return None
    name = call.get("name")
    if not isinstance(name, str) or not isinstance(given, dict):
        return None
    return name, json.dumps(given, ensure_ascii=False)
