"""Doing something again after pauses that double, until it works or nobody wants it any more."""

import asyncio
from collections.abc import Callable

FIRST_PAUSE_S = 10.0
LONGEST_PAUSE_S = 300.0


class Retry:
    """One act and the pause before it. `act` is called from the event loop."""

    def __init__(self) -> None:
        self._timer: asyncio.TimerHandle | None = None
        self._pause_s = FIRST_PAUSE_S

    def plan(self, act: Callable[[], object]) -> float:
        """Do `act` after the pause, which is returned; the next one is longer. Nothing else is done meanwhile."""
        self.cancel()
        pause_s, self._pause_s = self._pause_s, min(2 * self._pause_s, LONGEST_PAUSE_S)
        self._timer = asyncio.get_running_loop().call_later(pause_s, act)
        return pause_s

    def cancel(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def reset(self) -> None:
        """It worked, or is about something new: the next pause is the first again."""
        self.cancel()
        self._pause_s = FIRST_PAUSE_S
