"""How much prefill a step may carry beside running streams, learnt from the steps so far."""

STRETCH = 2.0
"""A step with prefill may take this many times the time of one without: the gap that streams notice."""

UNNOTICED_S = 0.1
"""Or as long as this, where that is more: nobody reads faster, and who waits for a first token gains."""

FIRST_GUESS_TOKENS = 16
SMALLEST_TOKENS = 8
"""Prefill goes on at this pace even where it stretches a step further than it should."""

TILE_TOKENS = 8
"""Matrix kernels work on so many tokens at once: on a CPU with AVX-512 a step of 7 takes longer than one of 8."""

_WEIGHT = 0.2  # of the newest step in the running means
_MOST_DRIFT = 2.0
"""One step says no more than this of how much quicker or slower the machine has become."""


class StepCost:
    """Running means of a pure decode step's seconds, by its rows, and of a prefill token's seconds in a mixed step."""

    def __init__(self, stretch: float = STRETCH, *, unnoticed_s: float = UNNOTICED_S) -> None:
        self._stretch = stretch
        self._unnoticed_s = unnoticed_s
        self._decode_s: dict[int, float] = {}
        self._token_s: float | None = None

    def record(self, *, decodes: int, prefill_tokens: int, elapsed_s: float) -> None:
        """Learn from a step that took `elapsed_s` for so many decode rows and prefill tokens."""
        if prefill_tokens == 0:
            self._decode_s[decodes] = _mean(self._decode_s.get(decodes), elapsed_s)
        elif decodes and self._decode_s:
            alone_s = self._decode_step_s(decodes)
            if self._token_s is None:
                self._token_s = max(elapsed_s - alone_s, 0.05 * elapsed_s) / prefill_tokens
            else:
                self._drift(elapsed_s / (alone_s + self._token_s * prefill_tokens))

    def _drift(self, ratio: float) -> None:
        """Move everything towards what a mixed step took, `ratio` times what was expected. While there is always
        prefill nobody sees a step without: were only the prefill to become dearer on a machine that is busy for a
        while, there would be ever less of it, and it would never be found out."""
        factor = min(max(ratio, 1 / _MOST_DRIFT), _MOST_DRIFT) ** _WEIGHT
        self._decode_s = {decodes: factor * seconds for decodes, seconds in self._decode_s.items()}
        self._token_s = factor * (self._token_s or 0.0)

    def prefill_tokens(self, decodes: int, *, newcomers: int = 1) -> int:
        """How many prefill tokens fit beside so many decodes without stretching the step too far. Together they
        fill whole tiles. Where more `newcomers` wait for their first token than streams run, they get as many times
        more: what a step takes longer, all of them would wait."""
        if not self._decode_s or not self._token_s:
            wanted = FIRST_GUESS_TOKENS
        else:
            alone_s = self._decode_step_s(decodes)
            longest_s = max(self._stretch * alone_s, self._unnoticed_s)
            wanted = max(SMALLEST_TOKENS, int((longest_s - alone_s) / self._token_s))
        wanted = int(wanted * max(1.0, newcomers / max(1, decodes)))
        tiles = max((decodes + wanted) // TILE_TOKENS, decodes // TILE_TOKENS + 1)
        return tiles * TILE_TOKENS - decodes

    def _decode_step_s(self, decodes: int) -> float:
        """What a step of so many decodes takes, or of the nearest number that was seen."""
        return self._decode_s[min(self._decode_s, key=lambda seen: abs(seen - decodes))]


def _mean(old: float | None, new: float) -> float:
    return new if old is None else old + _WEIGHT * (new - old)
