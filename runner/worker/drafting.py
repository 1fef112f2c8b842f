"""How many guesses a step should verify, learnt from how long steps of so many tokens took.

A step that verifies guesses has more tokens and takes longer; what it gains depends on how many are right. Both are
measured, and the number with the most tokens a second is taken. Guesses nothing itself.
"""

from collections.abc import Sequence

WIDTHS = (0, 3, 7, 15, 31)
"""Numbers of guesses to choose from: with the token before them they fill a kernel's tiles."""

_WEIGHT = 0.2  # of the newest step in the running means


class Drafting:
    """Running means of the seconds of a step without prefill, by its tokens."""

    def __init__(self) -> None:
        self._step_s: dict[int, float] = {}

    def record(self, *, tokens: int, elapsed_s: float) -> None:
        """A step of running streams only, guesses and all, had so many tokens."""
        old = self._step_s.get(tokens)
        self._step_s[tokens] = elapsed_s if old is None else old + _WEIGHT * (elapsed_s - old)

    def width(self, acceptances: Sequence[float], *, streams: int, most: int) -> int:
        """How many guesses for each of the streams whose chances are `acceptances`, in a step of `streams`; at most
        `most` in all."""

        def tokens_per_s(width: int) -> float:
            gained = sum(_expected(width, chance) for chance in acceptances)
            return (streams + gained) / self._expected_s(streams + width * len(acceptances))

        if not acceptances:
            return 0
        return max((w for w in WIDTHS if w * len(acceptances) <= most), key=tokens_per_s)

    def _expected_s(self, tokens: int) -> float:
        """What a step of so many tokens takes. Between two known sizes it is between them; beyond the known ones it is
        taken to be as quick as the nearest, so that it is tried."""
        known = sorted(self._step_s)
        if not known:
            return 1.0
        below = max((size for size in known if size <= tokens), default=known[0])
        above = min((size for size in known if size >= tokens), default=known[-1])
        if below == above or not below <= tokens <= above:
            return self._step_s[below]
        share = (tokens - below) / (above - below)
        return self._step_s[below] + share * (self._step_s[above] - self._step_s[below])


def _expected(width: int, chance: float) -> float:
    """How many of `width` guesses are right before the first wrong one, where each is with this chance."""
    return sum(chance**count for count in range(1, width + 1))
