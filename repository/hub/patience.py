"""Tries again what failed for a while: after a pause that grows, or after the one that the hub asks for."""

import time
from collections.abc import Callable
from typing import TypeVar

from repository.hub.failures import explain, is_rate_limit, pause_after
from repository.hub.reference import HubReference

T = TypeVar("T")

PAUSES_S = (0.5, 1.0, 2.0, 4.0, 8.0)
MOST_ASKED_S = 300.0


class Patience:
    """Whether a failure is worth another try. `say` hears of pauses; `sleep` takes seconds."""

    def __init__(
        self,
        reference: HubReference,
        *,
        endpoint: str,
        say: Callable[[str], None],
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self._reference = reference
        self._endpoint = endpoint
        self._say = say
        self._sleep = sleep
        self._tries = 0

    def call(self, function: Callable[[], T]) -> T:
        """What the function returns, tried again while that helps. HubError: it does not."""
        self.relax()
        while True:
            try:
                return function()
            except Exception as error:
                self.wait(error)

    def relax(self) -> None:
        """Something went well: the next failure is a first one."""
        self._tries = 0

    def wait(self, error: Exception) -> None:
        """Wait for as long as it takes, or raise the failure as a HubError."""
        usual = PAUSES_S[self._tries] if self._tries < len(PAUSES_S) else None
        pause = pause_after(error, usual) if usual is not None else None
        if pause is None or pause > MOST_ASKED_S:
            raise explain(error, self._reference, endpoint=self._endpoint) from error
        self._tries += 1
        if is_rate_limit(error):
            self._say(f"the hub asks for fewer requests; going on in {pause:.0f} s")
        elif pause > PAUSES_S[0]:
            self._say(f"the hub does not answer; trying again in {pause:g} s")
        self._sleep(pause)
