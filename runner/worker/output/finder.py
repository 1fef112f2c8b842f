"""Finds a pattern in a text that comes in pieces, the same matches however it is cut.

A match is certain once no further text could make it longer, or another. Until then it is held back, up to a bound.
"""

import logging
from typing import NamedTuple

import regex

from runner.wire.messages import Pattern

logger = logging.getLogger(__name__)

END = "\ufdd0"
"""Stands behind a text that may grow, as patterns know."""

MOST_CHARACTERS = 4096
"""A match is looked for within so many characters: no more than these are ever held back."""

MOST_SECONDS = 0.1
"""A pattern that takes longer at a time would hold up everyone's answers: it rests."""


class Found(NamedTuple):
    """A part of the text: a match of the pattern, which may be empty, or what lies between two."""

    text: str
    is_match: bool


class Finder:
    """The matches of one pattern in one text, leftmost first, none overlapping."""

    def __init__(self, pattern: Pattern) -> None:
        self._whole = regex.compile(pattern.whole, regex.V1)
        self._growing = regex.compile(pattern.growing, regex.V1)
        # What is settled has left but for its last character, which what follows may look back at.
        self._text = ""
        self._settled = 0
        self._rests = False

    def feed(self, text: str) -> list[Found]:
        """What `text` makes certain."""
        found: list[Found] = []
        while text:
            room = MOST_CHARACTERS - (len(self._text) - self._settled)
            self._text += text[:room]
            text = text[room:]
            found += self._settle(is_last=False)
        return found

    def flush(self) -> list[Found]:
        """The rest, now that nothing follows."""
        return self._settle(is_last=True)

    def _settle(self, *, is_last: bool) -> list[Found]:
        found: list[Found] = []
        while not self._rests and self._settled < len(self._text):
            try:
                span = self._next(is_last=is_last)
            except TimeoutError:
                logger.warning("%r takes too long and is not looked for in this answer", self._whole.pattern)
                self._rests = True
                break
            if span is None:
                break
            start, end = span
            self._pass(start, found)
            if end < 0:  # it may still become a match, or a longer one
                return self._forgetting(found)
            found.append(Found(self._text[start:end], is_match=True))
            self._settled = end
            if start == end:
                self._pass(start + 1, found)
        self._pass(len(self._text), found)
        return self._forgetting(found)

    def _next(self, *, is_last: bool) -> tuple[int, int] | None:
        """Where the next match is; its end is -1 as long as that is open."""
        at = self._settled
        while not is_last:
            match = self._growing.search(self._text + END, at, timeout=MOST_SECONDS)
            if match is None:
                return None
            if match.end() < len(self._text):
                return match.span()
            start = match.start()
            if len(self._text) - start < MOST_CHARACTERS:
                return start, -1
            settled = self._whole.match(self._text, start, timeout=MOST_SECONDS)
            if settled is not None:
                return settled.span()
            at = start + 1
        match = self._whole.search(self._text, at, timeout=MOST_SECONDS)
        return None if match is None else match.span()

    def _pass(self, end: int, found: list[Found]) -> None:
        """No match begins before `end`."""
        if end > self._settled:
            found.append(Found(self._text[self._settled : end], is_match=False))
            self._settled = min(end, len(self._text))

    def _forgetting(self, found: list[Found]) -> list[Found]:
        gone = max(0, self._settled - 1)
        self._text, self._settled = self._text[gone:], self._settled - gone
        return found
