"""Follows arguments that a model writes as marked parameters, `<parameter=city>Paris</parameter>`, and passes them
on as the JSON text of an object. What a value is, a text or something else, the tool's schema says.
"""

import json
import re
from collections.abc import Iterator, Mapping
from typing import Any

import msgspec

from runner.worker.output.json_text import Followed
from runner.worker.text import overlap

_TYPES = {str: "string", bool: "boolean", int: "integer", float: "number", list: "array", dict: "object"}
_WORDS = {"True": True, "False": False, "None": None}
_LONGEST_KEY = 256


class ParameterMarks(msgspec.Struct, frozen=True, kw_only=True):
    """What stands around parameters. `opening` begins one, `key` (a regular expression with the group "key") is all
    that leads to its value, `close` ends it and `end` ends them all. A `pad`, one letter or none, next to a value
    belongs to the markup. `written`: one of them as the model was trained to write it, with KEY and VALUE."""

    opening: str
    key: str
    close: str
    end: str
    written: str
    pad: str = ""


class ParameterFollower:
    """The parameters of one call, to be used as a JsonFollower is. `parameters`: the tool's schema."""

    def __init__(self, marks: ParameterMarks, parameters: Mapping[str, Any]) -> None:
        self.is_complete = False
        self.is_broken = False
        self._marks = marks
        self._key = re.compile(r"\s*" + marks.key)
        self._properties = parameters.get("properties") or {}
        self._num_keys = 0
        self._schema: Any = None
        self._is_inside = False
        self._is_text = False
        self._is_at_start = False

    def feed(self, text: str, start: int = 0) -> Followed:
        """Follow `text` from `start`; what was not followed comes again at the beginning of the next text."""
        passed: list[str] = []
        at = start
        while at < len(text) and not self.is_complete and not self.is_broken:
            end = self._value(text, at, passed) if self._is_inside else self._mark(text, at, passed)
            if end == at:
                break
            at = end
        return Followed("".join(passed), at)

    def _mark(self, text: str, at: int, passed: list[str]) -> int:
        """A key, or the end of all; returns where it ends, or `at` where more is needed."""
        rest = text[at:].lstrip()
        if key := self._key.match(text, at):
            self._begin(key.group("key").strip(), passed)
            return key.end()
        if rest.startswith(self._marks.end):
            passed.append("}" if self._num_keys else "{}")
            self.is_complete = True
            return len(text) - len(rest) + len(self._marks.end)
        may_come = self._marks.end.startswith(rest) or self._marks.opening.startswith(rest)
        if may_come or (rest.startswith(self._marks.opening) and len(rest) < _LONGEST_KEY):
            return at
        self.is_broken = True
        return at

    def _begin(self, key: str, passed: list[str]) -> None:
        self._schema = self._properties.get(key)
        self._is_text = types_of(self._schema) == {"string"}
        self._is_inside = self._is_at_start = True
        passed.append(f"{', ' if self._num_keys else '{'}{_quoted(key)}: {_QUOTE if self._is_text else ''}")
        self._num_keys += 1

    def _value(self, text: str, at: int, passed: list[str]) -> int:
        """A piece of a text, or a whole value of another kind; returns where it ends."""
        pad, close = self._marks.pad, self._marks.close
        if self._is_at_start and self._is_text:
            self._is_at_start = False
            if pad and text.startswith(pad, at):
                return at + len(pad)
        closes = text.find(close, at)
        if closes >= 0:
            value = text[at:closes].removesuffix(pad)
            passed.append(_escaped(value) + _QUOTE if self._is_text else self._converted(value))
            self._is_inside = False
            return closes + len(close)
        if not self._is_text:
            return at
        keep = max(overlap(text[at:], mark) for mark in (close, pad + close))
        passed.append(_escaped(text[at : len(text) - keep]))
        return len(text) - keep

    def _converted(self, value: str) -> str:
        """JSON for a value that may be no text: what it says where the schema allows that, otherwise its letters."""
        word = value.strip()
        try:
            found = _WORDS[word] if word in _WORDS else msgspec.json.decode(word)
        except (msgspec.DecodeError, RecursionError):
            return _quoted(value.removeprefix(self._marks.pad))
        types = types_of(self._schema)
        kind = _TYPES.get(type(found), "null")
        if "string" in types and kind not in types and not (kind == "integer" and "number" in types):
            return _quoted(value.removeprefix(self._marks.pad))
        return json.dumps(found, ensure_ascii=False)


_QUOTE = '"'


def types_of(schema: Any) -> set[str]:
    """The JSON types that `schema` allows as far as it says so plainly; empty where it does not."""
    return set(_types(schema)) if isinstance(schema, Mapping) else set()


def _types(schema: Mapping[str, Any]) -> Iterator[str]:
    kinds = schema.get("type")
    if isinstance(kinds, str):
        yield kinds
    elif isinstance(kinds, list):
        yield from (kind for kind in kinds if isinstance(kind, str))
    else:
        for value in (*_listed(schema, "enum"), *((schema["const"],) if "const" in schema else ())):
            yield _TYPES.get(type(value), "null")
        for name in ("anyOf", "oneOf"):
            for one in _listed(schema, name):
                yield from types_of(one)


def _listed(schema: Mapping[str, Any], name: str) -> list[Any]:
    values = schema.get(name)
    return values if isinstance(values, list) else []


def _escaped(text: str) -> str:
    return _quoted(text)[1:-1]


def _quoted(text: str) -> str:
    return json.dumps(text, ensure_ascii=False)
