"""How many guesses a step should verify, learnt from how long steps of so many tokens took.

A step that verifies guesses has more tokens and takes longer; what it gains depends on how many are right. Both are
measured, and what gives the most tokens a second is taken. Guesses nothing itself.
"""

import bisect
import math
from collections.abc import Sequence
from typing import NamedTuple

WIDTHS = (3, 7, 15, 31, 63)
"""Numbers of guesses to choose from: with the token before them they fill a kernel's tiles."""

TILE_TOKENS = 8
"""Steps of so many tokens more take about as long as the fullest of them, and are learnt as one."""

WORTH = 1.1
"""Guessing must promise so many times the speed: of many promises the best one is mostly too good."""

_SLOWER, _QUICKER = 0.1, 0.5
"""What the newest step counts in the running means: what else the machine does makes a step longer, never shorter."""

_HOPE = 0.8
"""What was seen once may have been held up: it is taken to be so much quicker until it is seen again."""

_FORGET_AFTER = 1000
"""What was not seen for so many times its own length is taken to take half as long, so that it is tried again some
time: the longer a step, the more seldom."""

_BEYOND_TOKENS, _BEYOND = 16, 2
"""Steps of up to so many tokens, or so many times the largest step known, are tried; larger ones are not yet."""

_SUPERLINEAR = 1.5
"""A step of twice the tokens takes twice as long at most, apart from this; what took longer was held up."""


class Choice(NamedTuple):
    """Verify `width` guesses for each stream whose chance is at least `chance`."""

    width: int
    chance: float


NONE = Choice(0, 1.0)


class _Seen:
    """Steps of one size: the running mean of their seconds, how many there were, and when the last one ended."""

    __slots__ = ("count", "last_s", "mean_s")

    def __init__(self, mean_s: float) -> None:
        self.mean_s = mean_s
        self.count = 0
        self.last_s = 0.0


class Drafting:
    """Running means of the seconds of a step without prefill, by its tokens."""

    def __init__(self) -> None:
        self._now_s = 0.0  # all steps so far, one after another
        self._seen: dict[int, _Seen] = {}
        self._sizes: list[int] = []  # of those seen, in order

    def record(self, *, tokens: int, elapsed_s: float) -> None:
        """A step of running streams only, guesses and all, had so many tokens."""
        self._now_s += elapsed_s
        tokens = _size(tokens)
        seen = self._seen.get(tokens)
        if seen is None:
            seen = self._seen[tokens] = _Seen(elapsed_s)
            bisect.insort(self._sizes, tokens)
        weight = _SLOWER if elapsed_s > seen.mean_s else _QUICKER
        seen.mean_s += weight * (elapsed_s - seen.mean_s)
        seen.count += 1
        seen.last_s = self._now_s

    def choose(self, chances: Sequence[float], *, streams: int, most: int) -> Choice:
        """What to verify in a step of `streams`, some of which have guesses that are right with these `chances`; at
        most `most` guesses in all."""
        best, most_per_s = NONE, WORTH * streams / self._expected_s(streams)
        ordered = sorted(chances, reverse=True)
        for width in WIDTHS:
            gained = 0.0
            for count, chance in enumerate(ordered, start=1):
                if width * count > most:
                    break
                gained += _expected(width, chance)
                per_s = (streams + gained) / self._expected_s(streams + width * count)
                if per_s > most_per_s:
                    best, most_per_s = Choice(width, chance), per_s
        return best

    def _expected_s(self, tokens: int) -> float:
        """What a step of so many tokens takes. Between two known sizes it is between them. A little beyond the known
        ones it is taken to be quick, so that it is tried; far beyond them it is not to be had."""
        sizes, tokens = self._sizes, _size(tokens)
        if not sizes:
            return 1.0
        at = bisect.bisect_left(sizes, tokens)
        if at < len(sizes) and (at == 0 or sizes[at] == tokens):
            return self._known_s(at)
        if at == len(sizes):
            if tokens > max(_BEYOND_TOKENS, _BEYOND * sizes[-1]):
                return math.inf
            growth = 1.0 if tokens <= _BEYOND_TOKENS else (1 + tokens / sizes[-1]) / 2
            return growth * self._known_s(at - 1)
        below, above = sizes[at - 1], sizes[at]
        share = (tokens - below) / (above - below)
        return (1 - share) * self._known_s(at - 1) + share * self._known_s(at)

    def _known_s(self, at: int) -> float:
        """What a step of the size at this place takes."""
        seen = self._seen[self._sizes[at]]
        mean_s = seen.mean_s
        if at > 0:
            growth = _SUPERLINEAR * self._sizes[at] / self._sizes[at - 1]
            mean_s = min(mean_s, growth * self._seen[self._sizes[at - 1]].mean_s)
        hope = _HOPE if seen.count == 1 else 1.0
        return hope * mean_s / (1 + (self._now_s - seen.last_s) / (_FORGET_AFTER * mean_s))


def _size(tokens: int) -> int:
    """As a whole number of tiles, or as it is where it fills none."""
    return tokens if tokens <= TILE_TOKENS else -(-tokens // TILE_TOKENS) * TILE_TOKENS


def _expected(width: int, chance: float) -> float:
    """How many of `width` guesses are right before the first wrong one, where each is with this chance."""
    return float(width) if chance >= 1 else chance * (1 - chance**width) / (1 - chance)
