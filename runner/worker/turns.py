"""Whose turn it is on an engine that batches by itself: so many sequences at once, the others wait here by rank, as
they do in the step scheduler. Knows no engine.
"""

import asyncio
import bisect
import contextlib
import itertools

from runner.worker.sequence import delayed_due, due_at


class Place:
    """A sequence's place among the others. Times are those of the event loop; without a `deadline` it waits for ever.
    `is_waiting` and `level` may be read from any thread."""

    __slots__ = ("arrival", "deadline", "due", "is_delayable", "is_waiting", "level", "submitted_at", "turn")

    def __init__(
        self, *, level: int, submitted_at: float, arrival: int, timeout_s: float | None, is_delayable: bool
    ) -> None:
        self.level = level
        self.submitted_at = submitted_at
        self.due = due_at(submitted_at, level)
        self.arrival = arrival
        self.deadline = None if timeout_s is None else submitted_at + timeout_s
        self.is_delayable = is_delayable
        self.is_waiting = True
        self.turn: asyncio.Future[None] | None = None

    @property
    def rank(self) -> tuple[float, int]:
        """Lower goes first."""
        return (self.due, self.arrival)


class Turns:
    """`most` sequences have theirs at once. All methods but `place` are for the event loop's thread."""

    def __init__(self, most: int, loop: asyncio.AbstractEventLoop) -> None:
        self._most = most
        self._free = most
        self._loop = loop
        self._line: list[Place] = []
        self._arrivals = itertools.count()

    @property
    def num_waiting(self) -> int:
        return len(self._line)

    @property
    def num_running(self) -> int:
        return self._most - self._free

    def place(self, level: int, *, timeout_s: float | None, is_delayable: bool) -> Place:
        """A place for a sequence that comes now."""
        return Place(
            level=level,
            submitted_at=self._loop.time(),
            arrival=next(self._arrivals),
            timeout_s=timeout_s,
            is_delayable=is_delayable,
        )

    async def take(self, place: Place) -> None:
        """Returns when the turn of `place` has come; `give_back` ends it. Raises TimeoutError at its deadline, unless
        that was taken away meanwhile or it goes behind those that came since."""
        while self._free == 0:
            place.turn = self._loop.create_future()
            bisect.insort(self._line, place, key=_rank)
            try:
                async with asyncio.timeout_at(place.deadline):
                    await place.turn
                return
            except BaseException as error:
                has_turn = not place.is_waiting
                is_late = isinstance(error, TimeoutError)
                if has_turn and is_late:
                    return  # both came in the same turn of the loop
                if has_turn:
                    self.give_back()
                    raise
                with contextlib.suppress(ValueError):
                    self._line.remove(place)
                if not is_late or (place.deadline is not None and not place.is_delayable):
                    raise
                if place.deadline is not None:
                    place.due, place.deadline = delayed_due(self._loop.time(), place.level), None
        self._free -= 1
        place.is_waiting = False

    def give_back(self) -> None:
        """A turn has ended: it is the next one's."""
        while self._line:
            place = self._line.pop(0)
            if place.turn is not None and not place.turn.done():  # else it is about to leave the line
                place.is_waiting = False
                place.turn.set_result(None)
                return
        self._free += 1


def _rank(place: Place) -> tuple[float, int]:
    return place.rank
