"""Drives conversations and other requests that are sent as they stand, in a client process of its own.

`run_sessions` starts it: a `_Job` as JSON on stdin, for each session its records on stdout.
"""

import asyncio
import sys
import time
from collections.abc import Sequence

import msgspec
import uvloop

from benchmarks.child import answer, run_child
from benchmarks.client import Endpoint
from benchmarks.harness.driver import Driver
from benchmarks.harness.work import Arrival, Session
from benchmarks.measure import LoadResult, Record


class SessionsResult(msgspec.Struct, frozen=True, kw_only=True):
    """The records of each session, in the order of the sessions, with the texts that were said."""

    sessions: list[list[Record]]
    client_cpu_s: float

    @property
    def load(self) -> LoadResult:
        records = [record for session in self.sessions for record in session]
        return LoadResult(records=records, client_cpu_s=self.client_cpu_s)

    @property
    def texts(self) -> list[list[str]]:
        return [[record.text for record in session] for session in self.sessions]


class _Job(msgspec.Struct, frozen=True, kw_only=True):
    endpoint: Endpoint
    sessions: Sequence[Session]
    clients: int
    timeout_s: float


async def run_sessions(
    endpoint: Endpoint, sessions: Sequence[Session], *, clients: int, timeout_s: float = 300.0
) -> SessionsResult:
    """Each of `clients` takes the next session when its last one has ended. `timeout_s` is for each request."""
    job = _Job(endpoint=endpoint, sessions=sessions, clients=clients, timeout_s=timeout_s)
    output = await run_child("benchmarks.sessions", msgspec.json.encode(job))
    return msgspec.json.decode(output, type=SessionsResult)


async def _drive(job: _Job) -> SessionsResult:
    cpu_at_start = time.process_time()
    records: list[list[Record]] = [[] for _ in job.sessions]
    waiting = iter(zip(job.sessions, records, strict=True))

    async def client() -> None:
        for session, kept in waiting:
            driver = Driver(job.endpoint, on_record=kept.append, timeout_s=job.timeout_s, keep_text=True)
            await driver.run([session], Arrival(clients=1), seed=0)

    async with asyncio.TaskGroup() as group:
        for _ in range(job.clients):
            group.create_task(client())
    return SessionsResult(sessions=records, client_cpu_s=time.process_time() - cpu_at_start)


def main() -> None:
    job = msgspec.json.decode(sys.stdin.buffer.read(), type=_Job)
    answer(msgspec.json.encode(uvloop.run(_drive(job))))


if __name__ == "__main__":
    main()
