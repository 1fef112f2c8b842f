"""Reads one YAML file into a tree of nodes that know their line and column.

Scalars mean what YAML 1.2's core schema says (`no`, `12:30` and `1_000` are text, `010` is ten); duplicate
keys are refused; size, depth and alias expansion are bounded. Whatever the bytes are, the answer is a
`Document` with located problems, never an exception. What the keys mean is not known here.
"""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, TypeAlias

import yaml
from msgspec import Struct

from repository.problem import Problem

MAX_BYTES = 1 << 20
MAX_DEPTH = 64
MAX_NODES = 50_000

Scalar: TypeAlias = bool | int | float | str | None

_TAG = "tag:yaml.org,2002:"
_UNPRINTABLE = re.compile("[^\t\n\r\x20-\x7e\x85\xa0-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
_NULL = re.compile(r"(?:null|Null|NULL|~|)\Z")
_BOOL = re.compile(r"(?:true|True|TRUE|false|False|FALSE)\Z")
_INT = re.compile(r"(?:[-+]?[0-9]+|0o[0-7]+|0x[0-9a-fA-F]+)\Z")
_FLOAT = re.compile(r"[-+]?(?:\.[0-9]+|[0-9]+(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]+)?\Z")
_INFINITE = re.compile(r"(?:[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN))\Z")


class Entry(Struct, frozen=True):
    """One `key: value` of a mapping."""

    key: "Node"
    value: "Node"


class Node(Struct, frozen=True):
    """A value and where it was written (line and column from 1). `size`: its nodes, aliases expanded."""

    value: Scalar | tuple["Node", ...] | dict[str, Entry]
    line: int = 0
    column: int = 0
    text: str | None = None  # a scalar as it was written
    is_plain: bool = False  # written without quotes
    size: int = 1

    def plain(self) -> Any:
        """The value without positions: dicts with text keys, lists and scalars."""
        match self.value:
            case dict(entries):
                return {key: entry.value.plain() for key, entry in entries.items()}
            case tuple(items):
                return [item.plain() for item in items]
            case scalar:
                return scalar


class Document(Struct, frozen=True):
    """`root` is None when the text could not be read at all; otherwise it holds all that was understood."""

    root: Node | None
    problems: tuple[Problem, ...] = ()


def read_document(path: Path) -> Document:
    """The YAML document in a file of at most `MAX_BYTES` bytes."""
    try:
        with path.open("rb") as file:
            data = file.read(MAX_BYTES + 1)
    except OSError as error:
        return Document(None, (Problem(str(path), 0, 0, f"cannot be read: {error.strerror}"),))
    return parse_document(data, str(path))


def parse_document(data: bytes, path: str) -> Document:
    """The YAML document in UTF-8 bytes; `path` only names it in problems."""
    if len(data) > MAX_BYTES:
        return Document(
            None,
            (
                Problem(
                    path, 1, 1, f"larger than {MAX_BYTES >> 20} MiB; this cannot be a model's configuration"
                ),
            ),
        )
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        before = data[: error.start].decode("utf-8")
        return Document(
            None, (_at_end_of(before, path, f"byte 0x{data[error.start]:02x} is not UTF-8 text"),)
        )
    if bad := _UNPRINTABLE.search(text):
        message = f"the control character U+{ord(bad[0]):04X} is not allowed in YAML"
        return Document(None, (_at_end_of(text[: bad.start()], path, message),))
    builder = _Builder(path)
    try:
        root = builder.build(yaml.parse(text, Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader)))
    except _Refused as refused:
        return Document(None, (*builder.problems, refused.problem))
    except yaml.MarkedYAMLError as error:
        return Document(None, (*builder.problems, _syntax_problem(error, text, path)))
    except yaml.YAMLError as error:
        return Document(None, (*builder.problems, Problem(path, 1, 1, f"not readable as YAML: {error}")))
    return Document(root, tuple(builder.problems))


def read_scalar(text: str) -> Scalar:
    """What an unquoted scalar means in YAML 1.2's core schema. ValueError: an integer beyond 64 bits."""
    if _NULL.match(text):
        return None
    if _BOOL.match(text):
        return text[0] in "tT"
    if _INT.match(text):
        return _integer(text)
    if _FLOAT.match(text):
        return float(text)
    if _INFINITE.match(text):
        return float(text.lower().replace(".", ""))
    return text


def _integer(text: str) -> int:
    base = {"0o": 8, "0x": 16}.get(text[:2], 10)
    digits = text[2:] if base != 10 else text
    value = int(digits, base) if len(digits.lstrip("+-0")) <= 22 else None
    if value is None or not -(1 << 63) <= value < 1 << 64:
        raise ValueError("this whole number does not fit 64 bits")
    return value


class _Refused(Exception):
    def __init__(self, problem: Problem) -> None:
        self.problem = problem


class _Frame:
    """A list or mapping not ended yet; a mapping's children are key, value, key, value ..."""

    def __init__(self, event: yaml.CollectionStartEvent) -> None:
        self.event = event
        self.children: list[Node] = []


class _Builder:
    """Turns parser events into nodes; its stack is a list, so that depth is bounded by a number of ours."""

    def __init__(self, path: str) -> None:
        self.path = path
        self.problems: list[Problem] = []
        self._anchors: dict[str, Node] = {}
        self._open: list[_Frame] = []
        self._nodes = 0

    def build(self, events: Iterator[yaml.Event]) -> Node:
        root: Node | None = None
        for event in events:
            match event:
                case yaml.DocumentStartEvent() if root is not None:
                    raise self._refused(event, "a second document (---) begins here; a file holds one")
                case yaml.CollectionStartEvent():
                    self._check_tag(event, "map" if isinstance(event, yaml.MappingStartEvent) else "seq")
                    if len(self._open) == MAX_DEPTH:
                        raise self._refused(event, f"nested deeper than {MAX_DEPTH} levels")
                    self._open.append(_Frame(event))
                    continue
                case yaml.CollectionEndEvent():
                    frame = self._open.pop()
                    node = (
                        self._mapping(frame) if isinstance(event, yaml.MappingEndEvent) else self._list(frame)
                    )
                    self._remember(frame.event.anchor, node)
                case yaml.ScalarEvent():
                    node = self._scalar(event)
                    self._remember(event.anchor, node)
                case yaml.AliasEvent():
                    if event.anchor not in self._anchors:
                        raise self._refused(
                            event, f"*{event.anchor} has no &{event.anchor} that ends before it"
                        )
                    node = self._anchors[event.anchor]
                case _:
                    continue
            self._count(event, node.size if isinstance(event, yaml.AliasEvent) else 1)
            if self._open:
                self._open[-1].children.append(node)
            else:
                root = node
        return root if root is not None else Node(None, 1, 1)

    def _remember(self, anchor: str | None, node: Node) -> None:
        if anchor is not None:
            self._anchors[anchor] = node

    def _count(self, event: yaml.Event, nodes: int) -> None:
        self._nodes += nodes
        if self._nodes > MAX_NODES:
            raise self._refused(event, f"holds more than {MAX_NODES} values, aliases expanded")

    def _scalar(self, event: yaml.ScalarEvent) -> Node:
        value: Scalar = event.value
        name = (event.tag or "").removeprefix(_TAG)
        try:
            if (event.implicit[0] and name != "!") or name in ("null", "bool", "int", "float"):
                value = read_scalar(event.value)
                if name == "float" and type(value) is int:
                    value = float(value)
                if name and _tag_name(value) != name:
                    self._problem(event, f'"{event.value}" is not what the tag !!{name} says')
            elif name not in ("", "!", "str"):
                self._check_tag(event, "str")
        except ValueError as error:
            self._problem(event, str(error))
            value = 0
        line, column = _position(event)
        return Node(value, line, column, event.value, event.implicit[0])

    def _list(self, frame: _Frame) -> Node:
        line, column = _position(frame.event)
        return Node(tuple(frame.children), line, column, size=1 + sum(child.size for child in frame.children))

    def _mapping(self, frame: _Frame) -> Node:
        own: dict[str, Entry] = {}
        inherited: dict[str, Entry] = {}
        for key, value in zip(frame.children[::2], frame.children[1::2], strict=True):
            if key.text is None:
                self._problem(key, "a key must be text, not a list or a mapping")
            elif key.is_plain and key.text == "<<":
                self._merge(frame, value, inherited)
            elif key.text in own:
                first = own[key.text].key.line
                self._problem(key, f'the key "{key.text}" is given twice (first in line {first})')
            else:
                own[key.text] = Entry(key, value)
        entries = inherited | own
        size = 1 + sum(1 + entry.value.size for entry in entries.values())
        line, column = _position(frame.event)
        return Node(entries, line, column, size=size)

    def _merge(self, frame: _Frame, source: Node, into: dict[str, Entry]) -> None:
        """`<<: *base` or `<<: [*a, *b]`, where the first to give a key wins."""
        for node in source.value if isinstance(source.value, tuple) else (source,):
            if not isinstance(node.value, dict):
                self._problem(source, "<< takes a mapping or a list of mappings")
                return
            self._count(frame.event, node.size)
            for key, entry in node.value.items():
                into.setdefault(key, entry)

    def _check_tag(self, event: yaml.NodeEvent, expected: str) -> None:
        tag = getattr(event, "tag", None)
        if tag not in (None, "!", _TAG + expected):
            raise self._refused(event, f"the tag {tag.replace(_TAG, '!!')} is not supported")

    def _problem(self, where: yaml.Event | Node, message: str) -> None:
        line, column = (where.line, where.column) if isinstance(where, Node) else _position(where)
        self.problems.append(Problem(self.path, line, column, message))

    def _refused(self, event: yaml.Event, message: str) -> _Refused:
        return _Refused(Problem(self.path, *_position(event), message))


def _tag_name(value: Scalar) -> str:
    return {bool: "bool", int: "int", float: "float", str: "str"}.get(type(value), "null")


def _position(event: yaml.Event) -> tuple[int, int]:
    mark = event.start_mark
    return (mark.line + 1, mark.column + 1) if mark else (1, 1)


def _at_end_of(before: str, path: str, message: str) -> Problem:
    return Problem(path, before.count("\n") + 1, len(before) - before.rfind("\n"), message)


def _syntax_problem(error: yaml.MarkedYAMLError, text: str, path: str) -> Problem:
    mark = error.problem_mark or error.context_mark
    line, column = (mark.line + 1, mark.column + 1) if mark else (1, 1)
    written = [*text.splitlines(), ""][line - 1 : line]
    if written and "\t" in written[0][:column] and not written[0][:column].strip():
        return Problem(path, line, column, "a tab cannot indent YAML; use spaces")
    message = error.problem or "not readable as YAML"
    if error.context:
        message += f" ({error.context}"
        message += f" begun in line {error.context_mark.line + 1})" if error.context_mark else ")"
    return Problem(path, line, column, message)
