"""Regular expressions as configurations write them, which is Go's syntax, in that of Python's `regex` package.

Go's have no look-around and no back-references, and `\\d`, `\\s` and `\\w` know ASCII alone. Running them is the
worker's matter.
"""

import re

import regex
from msgspec import Struct

END = "\ufdd0"
"""Stands behind a text that may grow; no text has this character."""

_ALIKE = frozenset("afnrtv0")  # escapes that mean the same in both
_ASSERTIONS = {"A": r"\A", "z": r"\Z", "b": r"\b", "B": r"\B"}
_CLASSES = {"d": "0-9", "s": r"\t\n\f\r ", "w": "0-9A-Za-z_"}
_GROUP = re.compile(
    r"\(\?(?:P?<(?P<name>[A-Za-z_]\w*)>|(?P<flags>[a-zA-Z]*)(?:-(?P<off>[a-zA-Z]+))?[:)])", re.ASCII
)
_REPEAT = re.compile(r"\{[0-9]+(?:,[0-9]*)?\}")
_CODE = re.compile(r"x(?:\{([0-9A-Fa-f]{1,6})\}|([0-9A-Fa-f]{2}))")
_PROPERTY = re.compile(r"([pP])(?:(\{\^?\w+\})|(\w))")
_CLASS_NAME = re.compile(r"\[:\^?[a-z]+:\]")
_IN_CLASS = frozenset("[&|~")  # of a meaning of their own there in the other syntax, at least when doubled


class PatternError(Exception):
    """A pattern cannot be used; the message says why."""


class Pattern(Struct, frozen=True):
    """A pattern for `regex.compile` with V1, in two forms. `growing` is for a text with END behind it, where it matches
    up to END whatever some continuation of the text could make it match."""

    whole: str
    growing: str


def python_pattern(pattern: str) -> Pattern:
    """The same pattern in Python's syntax. Raises PatternError."""
    translation = _Translation(pattern)
    translated = Pattern("".join(translation.whole), "".join(translation.growing))
    try:
        regex.compile(translated.whole, regex.V1)
        regex.compile(translated.growing, regex.V1)
    except regex.error as error:
        raise PatternError(str(error)) from error
    return translated


class _Translation:
    """One walk over a pattern."""

    def __init__(self, pattern: str) -> None:
        self.whole: list[str] = []
        self.growing: list[str] = []
        self._pattern = pattern
        self._at = 0
        # Otherwise `$` would match before a line break at the end, too.
        self._end = "$" if re.search(r"\(\?[a-zA-Z]*m", pattern) else r"\Z"
        self._walk()

    def _walk(self) -> None:
        repeats = ""  # what repeats the last atom
        while self._at < len(self._pattern):
            char = self._pattern[self._at]
            before, repeats = repeats, ""
            match char:
                case "\\":
                    self._escape()
                case "[":
                    self._class()
                case "(":
                    self._group()
                case ")" | "|":
                    self._mark(1)
                case "*" | "+" | "?" | "{":
                    repeat = _REPEAT.match(self._pattern, self._at) if char == "{" else None
                    if char == "{" and repeat is None:
                        self._atom(1, r"\{")
                        continue
                    if before and (char != "?" or before == "lazily"):
                        raise PatternError(f"{char!r} at {self._at} repeats what is repeated already")
                    repeats = "lazily" if before else "greedily"
                    self._mark(len(repeat.group()) if repeat else 1)
                case "^" | ".":
                    self._atom(1, char)
                case "$":
                    self._atom(1, self._end)
                case _:
                    self._atom(1, re.escape(char))

    def _mark(self, length: int, text: str | None = None) -> None:
        """What stands for no character: the next `length` ones, or `text` in their place."""
        text = self._pattern[self._at : self._at + length] if text is None else text
        self._at += length
        self.whole.append(text)
        self.growing.append(text)

    def _atom(self, length: int, *texts: str) -> None:
        """What matches one character, or the place between two, each; written with `length` of them."""
        self._at += length
        self.whole += texts
        self.growing += [f"(?:(?={END})|{text})" for text in texts]

    def _escape(self) -> None:
        letter = self._pattern[self._at + 1 : self._at + 2]
        if letter == "Q":
            quoted, end, _ = self._pattern[self._at + 2 :].partition(r"\E")
            self._atom(2 + len(quoted) + len(end), *map(re.escape, quoted))
        elif letter in _ASSERTIONS:
            self._atom(2, _ASSERTIONS[letter])
        elif letter in _CLASSES:
            self._atom(2, f"[{_CLASSES[letter]}]")
        elif letter.lower() in _CLASSES:
            self._atom(2, f"[^{_CLASSES[letter.lower()]}]")
        else:
            escape = self._character()
            self._atom(len(escape.written), escape.text)

    def _character(self) -> "_Escape":
        """The escape of a character, or of a kind of them, that stands here."""
        rest = self._pattern[self._at + 1 :]
        letter = rest[:1]
        if not letter:
            raise PatternError("it ends with a lone backslash")
        if code := _CODE.match(rest):
            number = int(code[1] or code[2], 16)
            if number > 0x10FFFF:
                raise PatternError(rf"there is no character \{code[0]}")
            return _Escape("\\" + code[0], re.escape(chr(number)))
        if kind := _PROPERTY.match(rest):
            return _Escape("\\" + kind[0], rf"\{kind[1]}{kind[2] or '{' + kind[3] + '}'}")
        if letter.isdecimal() and letter != "0":
            raise PatternError(rf"\{letter} at {self._at} refers back, which these patterns cannot")
        if letter.isalnum() and letter not in _ALIKE:
            raise PatternError(rf"there is no \{letter} here (at {self._at})")
        return _Escape("\\" + letter, "\\" + letter if letter.isalnum() else re.escape(letter))

    def _class(self) -> None:
        start = self._at
        opening = re.compile(r"\[\^?\]?").match(self._pattern, start)
        assert opening is not None
        at, written = opening.end(), opening[0].replace("]", r"\]")
        while True:
            char = self._pattern[at : at + 1]
            if not char:
                raise PatternError(f"the bracket at {start} is not closed")
            self._at = at
            letter = self._pattern[at + 1 : at + 2]
            if name := _CLASS_NAME.match(self._pattern, at):
                at, text = name.end(), name[0]
            elif char != "\\":
                at, text = at + 1, "\\" + char if char in _IN_CLASS else char
            elif letter.lower() in _CLASSES:
                others = f"[^{_CLASSES[letter.lower()]}]"
                at, text = at + 2, _CLASSES.get(letter, others)
            else:
                escape = self._character()
                at, text = at + len(escape.written), escape.text
            written += text
            if char == "]":
                break
        self._at = start
        self._atom(at - start, written)

    def _group(self) -> None:
        if not self._pattern.startswith("(?", self._at):
            self._mark(1)
            return
        group = _GROUP.match(self._pattern, self._at)
        if group is None:
            raise PatternError(f"there is no group that begins as the one at {self._at}; look-around neither")
        if unknown := set((group["flags"] or "") + (group["off"] or "")) - set("ims"):
            raise PatternError(f"the flag {min(unknown)!r} at {self._at} cannot be used; i, m and s can")
        self._mark(len(group[0]), f"(?P<{group['name']}>" if group["name"] else None)


class _Escape(Struct, frozen=True):
    """As it is `written`, and its `text` in the other syntax."""

    written: str
    text: str
