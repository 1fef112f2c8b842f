"""How many guesses a step should verify, learnt from how long steps of so many tokens took.

A step that verifies guesses has more tokens and takes longer; what it gains depends on how many are right. Both are
measured, and what gives the most tokens a second is taken. Guesses nothing itself.
"""

import bisect
from collections.abc import Sequence
from typing import NamedTuple

WIDTHS = (3, 7, 15, 31, 63)
"""Numbers of guesses to choose from: with the token before them they fill a kernel's tiles."""

_SLOWER, _QUICKER = 0.1, 0.5
"""What the newest step counts in the running means: what else the machine does makes a step longer, never shorter."""

_HOPE = 0.8
"""What was seen once may have been held up: it is taken to be so much quicker until it is seen again."""

_FORGET = 0.9995
"""And what is not seen is taken to be quicker from step to step, so that it is tried again some time."""
_LEAST = 0.01
"""However long ago it was: a time of nothing cannot be compared."""


class Choice(NamedTuple):
    """Verify `width` guesses for each stream whose chance is at least `chance`."""

    width: int
    chance: float


NONE = Choice(0, 1.0)


class _Seen:
    """Steps of one size: the running mean of their seconds, how many there were, and which was the last."""

    __slots__ = ("count", "last", "mean_s")

    def __init__(self, mean_s: float) -> None:
        self.mean_s = mean_s
        self.count = 0
        self.last = 0


class Drafting:
    """Running means of the seconds of a step without prefill, by its tokens."""

    def __init__(self) -> None:
        self._steps = 0
        self._seen: dict[int, _Seen] = {}
        self._sizes: list[int] = []  # of those seen, in order

    def record(self, *, tokens: int, elapsed_s: float) -> None:
        """A step of running streams only, guesses and all, had so many tokens."""
        self._steps += 1
        seen = self._seen.get(tokens)
        if seen is None:
            seen = self._seen[tokens] = _Seen(elapsed_s)
            bisect.insort(self._sizes, tokens)
        weight = _SLOWER if elapsed_s > seen.mean_s else _QUICKER
        seen.mean_s += weight * (elapsed_s - seen.mean_s)
        seen.count += 1
        seen.last = self._steps

    def choose(self, chances: Sequence[float], *, streams: int, most: int) -> Choice:
        """What to verify in a step of `streams`, some of which have guesses that are right with these `chances`; at
        most `most` guesses in all."""
        best, most_per_s = NONE, streams / self._expected_s(streams)
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
        """What a step of so many tokens takes. Between two known sizes it is between them; beyond the known ones it is
        taken to be as quick as the nearest, so that it is tried."""
        sizes = self._sizes
        if not sizes:
            return 1.0
        at = bisect.bisect_left(sizes, tokens)
        if at == len(sizes) or at == 0 or sizes[at] == tokens:
            return self._known_s(sizes[min(at, len(sizes) - 1)])
        below, above = sizes[at - 1], sizes[at]
        share = (tokens - below) / (above - below)
        return (1 - share) * self._known_s(below) + share * self._known_s(above)

    def _known_s(self, tokens: int) -> float:
        seen = self._seen[tokens]
        hope = _HOPE if seen.count == 1 else 1.0
        return float(hope * seen.mean_s * max(_FORGET ** (self._steps - seen.last), _LEAST))


def _expected(width: int, chance: float) -> float:
    """How many of `width` guesses are right before the first wrong one, where each is with this chance."""
    return float(width) if chance >= 1 else chance * (1 - chance**width) / (1 - chance)
