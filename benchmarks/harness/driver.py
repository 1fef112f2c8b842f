"""Sends the work: closed or open loop, one connection a request, every chunk timed."""

import asyncio
import time
from collections.abc import Callable, Iterator, Sequence

import msgspec
import numpy as np

from benchmarks.client import Call, Endpoint, record
from benchmarks.harness.work import Arrival, Session
from benchmarks.measure import Record

OnRecord = Callable[[Record], None]


class Driver:
    """Drives one run. `on_record` gets each request as it ends, so that nothing is lost when the run is broken off;
    `running` is how many are under way."""

    def __init__(
        self, endpoint: Endpoint, *, on_record: OnRecord, timeout_s: float, keep_text: bool = False
    ) -> None:
        self.running = 0
        self._endpoint = endpoint
        self._on_record = on_record
        self._timeout_s = timeout_s
        self._keep_text = keep_text

    async def run(self, sessions: Sequence[Session], arrival: Arrival, *, seed: int) -> None:
        """Return when every session has ended."""
        if arrival.rate is None:
            await self._closed_loop(iter(sessions), arrival.clients)
        else:
            await self._open_loop(sessions, arrival.rate, seed=seed)

    async def _closed_loop(self, waiting: Iterator[Session], clients: int) -> None:
        async def client() -> None:
            for session in waiting:
                await self._session(session)

        async with asyncio.TaskGroup() as group:
            for _ in range(clients):
                group.create_task(client())

    async def _open_loop(self, sessions: Sequence[Session], rate: float, *, seed: int) -> None:
        """The times are drawn before, so that a slow server does not slow its own load down."""
        due = np.cumsum(np.random.default_rng([seed, 1]).exponential(1 / rate, size=len(sessions)))
        began = time.perf_counter()

        async def one(session: Session, due_s: float) -> None:
            await asyncio.sleep(max(0.0, due_s - time.perf_counter()))
            await self._session(session, due_s=due_s)

        async with asyncio.TaskGroup() as group:
            for session, after in zip(sessions, due, strict=True):
                group.create_task(one(session, began + float(after)))

    async def _session(self, session: Session, *, due_s: float | None = None) -> None:
        said_so_far: list[dict[str, str]] = []
        for call in session.calls:
            if session.is_chat:
                said_so_far = [*said_so_far, *call.body["messages"]]
                call = msgspec.structs.replace(call, body={**call.body, "messages": said_so_far})
            done = await self._one(call, due_s=due_s, keep_text=session.is_chat or self._keep_text)
            if done.error is not None:
                return  # what follows in a conversation needs the answer
            said_so_far = [*said_so_far, {"role": "assistant", "content": done.text}]
            due_s = None

    async def _one(self, call: Call, *, due_s: float | None, keep_text: bool) -> Record:
        self.running += 1
        try:
            done = await record(
                self._endpoint, call, timeout_s=self._timeout_s, due_s=due_s, keep_text=keep_text
            )
        finally:
            self.running -= 1
        self._on_record(done)
        return done
