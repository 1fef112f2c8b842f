"""Guesses what a sequence says next from what it has said or read before: prompt look-up.

Owns an index of one sequence's tokens, and how often its guesses are right. How many are worth verifying is decided
elsewhere; the engine verifies them, so what comes out is what would have come out without.
"""

from collections.abc import Sequence

LENGTHS = (4, 2)
"""The last so many tokens are looked for, the longer run first: it is the better sign."""


FIRST_GUESS = 0.7
"""The chance that a guess is right, before any was verified."""

_WEIGHT = 0.1  # of one verified guess in the running mean
_RECOVERY = 0.02  # of the first guess, each time that none was made: what was copied once may be copied again


class PromptLookup:
    """The runs of tokens in `tokens`, which grows at its end and is never changed otherwise. `acceptance` is the
    chance that a guess is right, given that those before it were."""

    def __init__(self, tokens: Sequence[int]) -> None:
        self.acceptance = FIRST_GUESS
        self._tokens = tokens
        self._indexed = 0
        # What followed a run the last time: its place in the tokens.
        self._places: tuple[dict[tuple[int, ...], int], ...] = tuple({} for _ in LENGTHS)

    def guess(self, count: int) -> list[int]:
        """Up to `count` tokens that may come next; none where the end has not been seen before.

        Where the text repeats itself up to its end, it is taken to go on doing so.
        """
        tokens = self._tokens
        self._catch_up()
        for length, places in zip(LENGTHS, self._places, strict=True):
            place = places.get(tuple(tokens[-length:])) if len(tokens) > length else None
            if place is not None:
                period = len(tokens) - place
                return [tokens[place + ahead % period] for ahead in range(max(0, count))]
        return []

    def learn(self, guessed: int, right: int) -> None:
        """Of `guessed` tokens that were verified the first `right` were right. None guessed: none was worth it."""
        if not guessed:
            self.acceptance += _RECOVERY * (FIRST_GUESS - self.acceptance)
        for is_right in (*[1.0] * right, *[0.0] * (right < guessed)):
            self.acceptance += _WEIGHT * (is_right - self.acceptance)

    def _catch_up(self) -> None:
        """Index every run that has a token behind it; the newest place of a run is the one that counts."""
        tokens = self._tokens
        for place in range(max(self._indexed, 1), len(tokens)):
            for length, places in zip(LENGTHS, self._places, strict=True):
                if place >= length:
                    places[tuple(tokens[place - length : place])] = place
        self._indexed = len(tokens)
