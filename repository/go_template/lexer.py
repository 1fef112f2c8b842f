"""Cuts a template into text and the tokens of its actions; trim markers and comments are gone afterwards."""

import bisect
import re
from collections.abc import Generator, Iterator
from typing import Literal, cast

from msgspec import Struct

from repository.go_template.fault import Place
from repository.go_template.literals import read_character, read_number, read_string

Kind = Literal[
    "text",
    "end",  # of an action
    "name",  # a keyword, a constant or a function
    "field",  # .Name
    "dot",
    "variable",  # $ or $name
    "constant",  # a string, a number or a character
    "declare",  # :=
    "assign",  # =
    "pipe",
    "open",  # (
    "close",  # )
    "comma",
    "eof",
]

_SPACE = " \t\r\n"
_OPENING = re.compile(r"\{\{(-(?=[ \t\r\n]))?")
_COMMENT = re.compile(r"[ \t\r\n]*/\*.*?\*/", re.DOTALL)
_CLOSING = re.compile(r"([ \t\r\n]+-)?\}\}")
_TOKEN = re.compile(
    r"""
    (?P<space>[ \t\r\n]+)
  | (?P<field>\.[^\W\d]\w*)
  | (?P<variable>\$\w*)
  | (?P<string>"(?:[^"\\\n]|\\.)*"|`[^`]*`)
  | (?P<character>'(?:[^'\\\n]|\\.)+')
  | (?P<number>[+-]?(?:0[xX][0-9a-fA-F_]+|0[oO][0-7_]+|0[bB][01_]+
        |(?:[0-9][0-9_]*(?:\.[0-9_]*)?|\.[0-9][0-9_]*)(?:[eE][+-]?[0-9]+)?))
  | (?P<name>[^\W\d]\w*)
  | (?P<declare>:=)
  | (?P<assign>=)
  | (?P<pipe>\|)
  | (?P<open>\()
  | (?P<close>\))
  | (?P<comma>,)
  | (?P<dot>\.)
    """,
    re.VERBOSE,
)


class Token(Struct, frozen=True):
    """`value`: the text, a name without its mark, or what a constant stands for. `is_glued`: no space before it."""

    kind: Kind
    value: str | int | float
    place: Place
    is_glued: bool = False

    @property
    def text(self) -> str:
        return str(self.value)


def tokens(template: str) -> Iterator[Token]:
    """The tokens in order; the last is `eof`. Raises GoTemplateError."""
    places = _Places(template)
    at, trims_next = 0, False
    while True:
        opening = _OPENING.search(template, at)
        end = opening.start() if opening is not None else len(template)
        text = template[at:end]
        start = at
        if trims_next:
            stripped = text.lstrip(_SPACE)
            start += len(text) - len(stripped)
            text = stripped
        if opening is not None and opening[1]:
            text = text.rstrip(_SPACE)
        if text:
            yield Token("text", text, places[start])
        if opening is None:
            yield Token("eof", "", places[len(template)])
            return
        at = opening.end()
        comment = _COMMENT.match(template, at)
        if comment is not None and (opening[1] or template[at] == "/"):
            closing = _CLOSING.match(template, comment.end())
            if closing is None:
                raise places[at].error(
                    'a comment ends with "*/}}" or "*/ -}}"; nothing else stands beside it'
                )
        else:
            closing = yield from _action(template, at, places, opening.start())
        at, trims_next = closing.end(), bool(closing[1])


def _action(template: str, at: int, places: "_Places", begun: int) -> Generator[Token, None, re.Match[str]]:
    """The tokens of the action whose inside begins at `at`; returns the match of what closes it."""
    is_glued = False
    while (closing := _CLOSING.match(template, at)) is None:
        match = _TOKEN.match(template, at)
        if match is None or match.lastgroup is None:
            raise _stray(template, at, places, begun)
        place, text = places[at], match.group()
        at = match.end()
        match match.lastgroup:
            case "space":
                is_glued = False
                continue
            case "string":
                yield Token("constant", read_string(text, place), place, is_glued)
            case "character":
                yield Token("constant", read_character(text, place), place, is_glued)
            case "number":
                if template[at : at + 1].isalnum():
                    raise place.error(f'"{text}{template[at]}" is not a number')
                yield Token("constant", read_number(text, place), place, is_glued)
            case "field":
                yield Token("field", text[1:], place, is_glued)
            case kind:
                yield Token(cast(Kind, kind), text, place, is_glued)
        is_glued = True
    yield Token("end", "", places[at])
    return closing


def _stray(template: str, at: int, places: "_Places", begun: int) -> Exception:
    if at >= len(template):
        return places[begun].error('this action is never closed; it ends with "}}"')
    match template[at]:
        case '"' | "`" | "'":
            return places[at].error("this text is never closed, on its line where it stands in quotes")
        case "/":
            return places[at].error('a comment stands alone in its action: "{{/* ... */}}"')
        case "{":
            return places[at].error('"{" has no meaning here; an action before it may lack its "}}"')
        case other:
            return places[at].error(f"{other!r} has no meaning in an action")


class _Places:
    """Offsets as lines and columns."""

    def __init__(self, text: str) -> None:
        self._starts = [0, *(match.end() for match in re.finditer("\n", text))]

    def __getitem__(self, offset: int) -> Place:
        line = bisect.bisect_right(self._starts, offset)
        return Place(line, offset - self._starts[line - 1] + 1)
