"""Text that looks like a control token and must stay plain text: swapped for private-use characters before a prompt is
rendered and put back afterwards, as pieces tokenised without special parsing.
"""

import re
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

_PRIVATE_USE = 0xF0000
_OPEN, _CLOSE, _END = (chr(_PRIVATE_USE + i) for i in range(3))
_SWAPPED = re.compile(f"{_OPEN}([0-9]+){_CLOSE}")

END = _END
"""Marks a place in a text until it is rendered."""


class Piece(NamedTuple):
    """A part of a prompt; control-token texts in it count only if `special`."""

    text: str
    special: bool


class ControlTexts:
    """Those of one model."""

    def __init__(self, tokens: Sequence[str]) -> None:
        ordered = sorted((token for token in tokens if token), key=len, reverse=True)
        self.pattern = re.compile("|".join(map(re.escape, ordered))) if ordered else None


class Guard:
    """What was swapped in one prompt."""

    def __init__(self, control_texts: ControlTexts) -> None:
        self._pattern = control_texts.pattern
        self._swapped: list[str] = []

    def hide(self, value: Any) -> Any:
        """`value` with control-token texts, in strings at any depth, swapped for placeholders."""
        if isinstance(value, str):
            for mark in (_OPEN, _CLOSE, _END):
                value = value.replace(mark, "")
            return value if self._pattern is None else self._pattern.sub(self._swap, value)
        if isinstance(value, Mapping):
            return {self.hide(key): self.hide(item) for key, item in value.items()}
        if isinstance(value, (list, tuple)):
            return [self.hide(item) for item in value]
        return value

    def pieces(self, text: str) -> list[Piece]:
        """A rendered text; one piece where nothing was swapped."""
        if not self._swapped:
            return [Piece(text, special=True)]
        pieces = [
            Piece(self._swapped_at(part) if at % 2 else part, special=at % 2 == 0)
            for at, part in enumerate(_SWAPPED.split(text))
        ]
        return [piece for piece in pieces if piece.text]

    def _swapped_at(self, number: str) -> str:
        """What a template was given without being hidden can look like a placeholder, and stands for nothing."""
        at = int(number[:9])
        return self._swapped[at] if at < len(self._swapped) else ""

    def _swap(self, match: re.Match[str]) -> str:
        self._swapped.append(match.group())
        return f"{_OPEN}{len(self._swapped) - 1}{_CLOSE}"


def cut_at_end(text: str) -> str | None:
    """The text up to the last END, without any; None where there is none."""
    begun, end, _ = text.rpartition(_END)
    return begun.replace(_END, "") if end else None
