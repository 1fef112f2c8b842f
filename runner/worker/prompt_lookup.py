"""Guesses what a sequence says next from what it has said or read before: prompt look-up.

Owns an index of one sequence's tokens, the place that its end is following, and how often what stood there came next.
How many guesses are worth verifying is decided elsewhere; the engine verifies them, so what comes out is what would
have come out without.
"""

from collections.abc import Sequence

LENGTHS = (4, 2)
"""The last so many tokens are looked for, the longer run first: it is the better sign."""

LEVELS = (16, 4, 1, 0)
FIRST_CHANCES = (0.95, 0.8, 0.5, 0.2, 0.4)
"""The chance that a guess is right, before any was seen, where at least so many tokens came as they stood before; and
where one word was put for another."""

SKIPS_AFTER = 8
"""Where so many tokens came as they stood before and the next one did not, one word may have been put for another."""

MOST_READ = 4096
"""Tokens of a prompt that are read in one step: running streams must not notice."""

_WEIGHT, _WEIGHT_FOR_ALL = 0.1, 0.02
"""Of the newest token in the running means of one sequence and of all of a model."""


class Chances:
    """How often guesses were right in all sequences of a model so far: what the next one begins with. What a model is
    asked is mostly of one kind, and one answer is too short to learn it from."""

    def __init__(self) -> None:
        self.of_level = list(FIRST_CHANCES)


class PromptLookup:
    """The runs of tokens in `tokens`, which grows at its end and is never changed otherwise.

    Whether guesses are right is seen from the tokens that come, verified or not: guessing costs nothing until then.
    """

    def __init__(self, tokens: Sequence[int], chances: Chances | None = None) -> None:
        self._tokens = tokens
        self._common = chances or Chances()
        self._prompt = len(tokens)
        self._read = 0
        # What followed a run the last time: its place in the tokens.
        self._places: tuple[dict[tuple[int, ...], int], ...] = tuple({} for _ in LENGTHS)
        self._source: int | None = None  # where the next token is taken to stand already
        self._streak = 0  # so many of the newest tokens came as they stood before it
        self._skipped = False  # the newest token stood not there, and the text is followed all the same
        self._chances = list(self._common.of_level)

    @property
    def chance(self) -> float:
        """How likely the next guess is right, given that those before it were."""
        return self._chances[self._level]

    def guess(self, count: int) -> list[int]:
        """Up to `count` tokens that may come next; none where the end has not been seen before.

        Where the text repeats itself up to its end, it is taken to go on doing so.
        """
        tokens, source = self._tokens, self._catch_up()
        if source is None or count <= 0:
            return []
        period = len(tokens) - source
        return [tokens[source + ahead % period] for ahead in range(count)]

    @property
    def _level(self) -> int:
        if self._skipped:
            return len(LEVELS)
        return next(level for level, streak in enumerate(LEVELS) if self._streak >= streak)

    def _catch_up(self) -> int | None:
        """Read the tokens that are new: index the runs before them, and follow the text that they repeat."""
        end = min(len(self._tokens), self._read + MOST_READ)
        for place in range(self._read, end):
            self._index(place)
            source = self._source
            is_right = source is not None and self._tokens[source] == self._tokens[place]
            if source is not None and place >= self._prompt:
                self._learn(is_right)
            if source is not None and is_right:
                self._source = source + 1
                self._streak += 1
                self._skipped = False
                continue
            self._source = self._find(place + 1)
            self._skipped = False
            if self._source is None and source is not None and self._streak >= SKIPS_AFTER:
                self._source, self._skipped = source + 1, True
            self._streak = 0
        self._read = end
        return self._source if end == len(self._tokens) else None

    def _learn(self, is_right: bool) -> None:
        level, common = self._level, self._common.of_level
        self._chances[level] += _WEIGHT * (is_right - self._chances[level])
        common[level] += _WEIGHT_FOR_ALL * (is_right - common[level])

    def _index(self, place: int) -> None:
        """Keep the runs that end before `place`; the newest place of a run is the one that counts."""
        for length, places in zip(LENGTHS, self._places, strict=True):
            if place >= length:
                places[tuple(self._tokens[place - length : place])] = place

    def _find(self, end: int) -> int | None:
        """What followed the last time where the tokens before `end` stood."""
        for length, places in zip(LENGTHS, self._places, strict=True):
            place = places.get(tuple(self._tokens[end - length : end])) if end > length else None
            if place is not None:
                return place
        return None
