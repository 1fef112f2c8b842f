"""The engine's thread: what comes of a sequence that fails, of an engine that breaks, of a client that leaves.

The generator here is a stand-in, for these are the failures that a real one has no switch for. It answers each job
with its tokens, one a step.
"""

import asyncio
import contextlib
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

import pytest

from backends.contract import EngineError, LoadError, TokenChunk
from backends.exllamav2.driver import EngineThread


class Tokens:
    """A job of `length` tokens. At the `fails_at`-th it fails, alone."""

    def __init__(self, length: int, *, fails_at: int | None = None) -> None:
        self.left = length
        self.taken = 0
        self._fails_at = fails_at

    def take(self, result: dict[str, Any]) -> TokenChunk | None:
        if result["stage"] != "streaming":
            return None
        self.taken += 1
        if self.taken == self._fails_at:
            raise EngineError("no token is left to draw")
        return TokenChunk(tokens=(self.taken,), finish="length" if result["eos"] else None)


class StandIn:
    """Steps once for each `allow`, or freely."""

    def __init__(self) -> None:
        self.jobs: list[Tokens] = []
        self.cancelled: list[Tokens] = []
        self.threads: set[str] = set()
        self.breaks: Exception | None = None
        self.refuses: Exception | None = None
        self._allowed: threading.Semaphore | None = None

    def pace(self) -> Callable[[], None]:
        self._allowed = threading.Semaphore(0)
        return self._allowed.release

    def enqueue(self, job: Tokens) -> None:
        if self.refuses is not None:
            raise self.refuses
        self.jobs.append(job)

    def cancel(self, job: Tokens) -> None:
        self.cancelled.append(job)
        with contextlib.suppress(ValueError):
            self.jobs.remove(job)

    def num_remaining_jobs(self) -> int:
        return len(self.jobs)

    def iterate(self) -> list[dict[str, Any]]:
        if self._allowed is not None:
            assert self._allowed.acquire(timeout=30)
        self.threads.add(threading.current_thread().name)
        if self.breaks is not None:
            raise self.breaks
        results = []
        for job in self.jobs.copy():
            job.left -= 1
            results.append({"job": job, "stage": "streaming", "eos": job.left == 0})
            if job.left == 0:
                self.jobs.remove(job)
        return results


@pytest.fixture
def generator() -> StandIn:
    return StandIn()


@pytest.fixture
def thread(generator: StandIn) -> Iterator[EngineThread]:
    thread = EngineThread(lambda: generator)
    thread.start()
    yield thread
    thread.stop()


async def collect(stream: AsyncIterator[TokenChunk]) -> list[int]:
    return [token async for chunk in stream for token in chunk.tokens]


def test_loading_fails_where_it_was_asked_for() -> None:
    def load() -> StandIn:
        raise LoadError("there is no GPU")

    with pytest.raises(LoadError, match="there is no GPU"):
        EngineThread(load).start()


async def test_streams_run_beside_each_other_on_one_thread(generator: StandIn, thread: EngineThread) -> None:
    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(collect(thread.stream(lambda n=n: Tokens(n)))) for n in (1, 5, 3)]
    assert [task.result() for task in tasks] == [[1], [1, 2, 3, 4, 5], [1, 2, 3]]
    assert generator.threads == {"exllamav2"}


async def test_closing_a_stream_takes_its_job_out(generator: StandIn, thread: EngineThread) -> None:
    step = generator.pace()
    job = Tokens(1000)
    stream = thread.stream(lambda: job)
    step()
    assert (await anext(stream)).tokens == (1,)
    await stream.aclose()  # type: ignore[attr-defined]
    step()  # the one that the generator may be waiting in
    other = asyncio.create_task(collect(thread.stream(lambda: Tokens(1))))
    while not other.done():
        step()
        await asyncio.sleep(0)
    assert generator.cancelled == [job]
    assert job.left > 900


async def test_a_stream_that_is_closed_before_it_begins_leaves_nothing(
    generator: StandIn, thread: EngineThread
) -> None:
    step = generator.pace()
    first = asyncio.create_task(collect(thread.stream(lambda: Tokens(2))))
    await asyncio.sleep(0)
    waiting = asyncio.create_task(collect(thread.stream(lambda: Tokens(1000))))
    await asyncio.sleep(0)
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    for _ in range(4):
        step()
    assert await first == [1, 2]
    assert await collect(thread.stream(lambda: Tokens(1))) == [1]
    assert generator.jobs == []


async def test_a_sequence_that_fails_fails_alone(generator: StandIn, thread: EngineThread) -> None:
    failing = Tokens(5, fails_at=2)
    async with asyncio.TaskGroup() as group:
        well = group.create_task(collect(thread.stream(lambda: Tokens(5))))
        with pytest.raises(EngineError, match="no token is left"):
            await collect(thread.stream(lambda: failing))
    assert well.result() == [1, 2, 3, 4, 5]
    assert generator.cancelled == [failing]


async def test_a_request_that_the_generator_refuses_fails_alone(
    generator: StandIn, thread: EngineThread
) -> None:
    generator.refuses = AssertionError("Job requires 9 pages (only 8 available)")
    with pytest.raises(EngineError, match="refuses the request: Job requires 9 pages"):
        await collect(thread.stream(lambda: Tokens(1)))
    generator.refuses = None
    assert await collect(thread.stream(lambda: Tokens(1))) == [1]


async def test_a_broken_engine_fails_every_stream_and_those_to_come(
    generator: StandIn, thread: EngineThread
) -> None:
    step = generator.pace()
    streams = [asyncio.create_task(collect(thread.stream(lambda: Tokens(9)))) for _ in range(2)]
    await asyncio.sleep(0)
    generator.breaks = RuntimeError("CUDA error: an illegal memory access")
    step()
    for task in (*streams, asyncio.create_task(collect(thread.stream(lambda: Tokens(1))))):
        with pytest.raises(RuntimeError, match="illegal memory access"):
            await task


async def test_with_nothing_to_compute_it_takes_no_steps(generator: StandIn, thread: EngineThread) -> None:
    step = generator.pace()
    step()
    assert await collect(thread.stream(lambda: Tokens(1))) == [1]
    # A further step would wait for a permission that never comes, and `stop` for it.
