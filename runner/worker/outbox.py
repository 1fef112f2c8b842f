"""What the engine's thread tells the server, frame by frame: short steps share one.

Every frame wakes the server and, behind it, its clients: processor time that the engine's threads lack where they
share cores. A reader does not notice tokens that come two milliseconds later; ends and errors never wait.
"""

from collections.abc import Callable, Sequence

from runner.wire.messages import CallDelta, FromWorker, WorkerStats
from runner.worker.answers import Sender

HELD_S = 0.002
"""How long what is no end of anything may wait for more."""


class Outbox:
    """Used by one thread. Whoever is about to do something long flushes it before."""

    def __init__(self, sender: Sender, *, clock: Callable[[], float]) -> None:
        self._sender = sender
        self._clock = clock
        self._held: list[FromWorker] = []
        self._sent_at = 0.0

    def put(self, messages: Sequence[FromWorker], *, may_wait: bool) -> None:
        """Send `messages`, now or, where all of them may wait, with the next ones."""
        self._held += messages
        is_urgent = any(not isinstance(message, CallDelta | WorkerStats) for message in messages)
        if is_urgent or not may_wait or self._clock() - self._sent_at >= HELD_S:
            self.flush()

    def flush(self) -> None:
        """Send what waits."""
        if self._held:
            held, self._held = self._held, []
            self._sender.send(held)
            self._sent_at = self._clock()
