"""The stream loop over echo's stream engine, run to its end on the test's own thread."""

import struct
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from typing import Any

import pytest

from backends.contract import EngineError, EngineRequest, TokenChunk
from backends.echo.stream import EchoStreamEngine
from runner.wire.messages import CallDelta, CallFailed, CallFinished, Embedded, FromWorker, WorkerStats
from runner.wire.requests import GenerateRequest, TextPrompt
from runner.worker.stream_loop import StreamLoop
from tests.support import Sink, make_intake, make_start


class Moody(EchoStreamEngine):
    """Raises `mood` at the prompt "sulk" and at every embedding."""

    mood: Exception = EngineError("not today")

    async def generate(self, request: EngineRequest) -> AsyncIterator[TokenChunk]:
        if bytes(request.prompt) == b"sulk":
            raise self.mood
        async for chunk in super().generate(request):
            yield chunk

    def embed(self, batch: Sequence[Sequence[int]]) -> list[list[float]]:
        raise self.mood


class Yard:
    """A loop, its engine and what it sent. It stops when `until` holds for a message."""

    def __init__(self) -> None:
        self.until: Callable[[FromWorker], bool] = lambda message: False
        self.engine = Moody()
        self.engine.load(make_start().load, lambda _: None)
        self.intake = make_intake(self.engine)
        self.sink = Sink(lambda message: self.loop.stop() if self.until(message) else None)
        self.loop = StreamLoop(self.engine, self.engine.info, make_start().limits, sender=self.sink)

    def submit(self, call: int, prompt: str = "hello", **given: Any) -> None:
        job = self.intake.job(call, GenerateRequest(prompt=TextPrompt(prompt), **given))
        self.loop.submit(job, self.intake.engine_requests(job))


@pytest.fixture
def yard() -> Iterator[Yard]:
    yard = Yard()
    yield yard
    yard.loop._loop.close()


def test_an_idle_loop_stops(yard: Yard) -> None:
    yard.loop.stop()
    assert yard.loop.run()


def test_stopping_cancels_what_runs(yard: Yard) -> None:
    yard.until = lambda message: not isinstance(message, WorkerStats)
    yard.submit(1, ignore_eos=True)
    assert yard.loop.run()
    assert not yard.sink.of(CallFinished, CallFailed) and yard.loop.num_sequences == 0


def test_calls_cancelled_before_they_began_leave_nothing(yard: Yard) -> None:
    for call in range(1, 11):
        yard.submit(call)
        yard.loop.cancel(call)
    yard.submit(11, max_tokens=3)
    yard.until = lambda message: isinstance(message, CallFinished)
    assert yard.loop.run()
    assert yard.loop.num_sequences == 0 and not yard.sink.of(CallFailed)
    assert [message.call for message in yard.sink.of(CallFinished)] == [11]


def test_an_embedding_that_the_engine_refuses_fails_alone(yard: Yard) -> None:
    yard.loop.embed(1, [[1]])
    yard.submit(2, max_tokens=3)
    yard.until = lambda message: isinstance(message, CallFinished)
    assert yard.loop.run()
    (failed,) = yard.sink.of(CallFailed)
    assert (failed.call, failed.error.kind, failed.error.message) == (1, "GenerationFailed", "not today")


def test_a_sequence_that_the_engine_refuses_fails_alone(yard: Yard) -> None:
    yard.submit(1, "sulk", n=2)
    yard.submit(2, max_tokens=3)
    yard.until = lambda message: isinstance(message, CallFinished)
    assert yard.loop.run()
    assert [message.call for message in yard.sink.of(CallFailed)] == [1]


@pytest.mark.parametrize("breaks", ["generate", "embed"])
def test_an_engine_that_breaks_fails_every_call_once_and_late_ones_too(
    yard: Yard, breaks: str, caplog: pytest.LogCaptureFixture
) -> None:
    yard.engine.mood = RuntimeError("the device is gone")
    yard.submit(1, ignore_eos=True)
    if breaks == "generate":
        yard.submit(2, "sulk")
    else:
        yard.loop.embed(2, [[1]])
    yard.submit(3, ignore_eos=True)
    assert not yard.loop.run() and yard.loop.is_broken
    yard.submit(4)
    failed = {message.call: message.error.message for message in yard.sink.of(CallFailed)}
    assert set(failed) == {1, 3, 4} | ({2} if breaks == "generate" else set())
    assert len(yard.sink.of(CallFailed)) == len(failed)
    assert all("the device is gone" in message for message in failed.values())
    assert caplog.text.count("Traceback") == 1


def test_sequences_are_counted_from_submission(yard: Yard) -> None:
    yard.submit(1, n=3)
    yard.submit(2)
    assert (yard.loop.num_sequences, yard.loop.num_lanes) == (4, 4)


def test_what_several_gain_in_a_turn_of_the_loop_goes_out_in_one_frame(yard: Yard) -> None:
    for call in range(1, 5):
        yard.submit(call, max_tokens=4, ignore_eos=True)
    yard.until = lambda message: isinstance(message, CallFinished)
    assert yard.loop.run()
    frames = [[message for message in frame if isinstance(message, CallDelta)] for frame in yard.sink.frames]
    assert max(len({delta.call for delta in frame}) for frame in frames) == 4
    assert all(isinstance(frame[-1], WorkerStats) for frame in yard.sink.frames)


def test_an_embedding_is_answered(yard: Yard) -> None:
    yard.engine.embed = lambda batch: [[1.0] for _ in batch]  # type: ignore[method-assign]
    yard.until = lambda message: isinstance(message, Embedded)
    yard.loop.embed(1, [[1, 2], [3]])
    yard.loop.run()
    one = struct.pack("<f", 1.0)
    assert yard.sink.of(Embedded) == [Embedded(1, (one, one), 3)]


def test_a_large_batch_is_computed_while_others_stream(yard: Yard) -> None:
    pieces: list[int] = []

    def embed(batch: Sequence[Sequence[int]]) -> list[list[float]]:
        pieces.append(len(batch))
        return [[1.0] for _ in batch]

    yard.engine.embed = embed  # type: ignore[method-assign]
    yard.until = lambda message: isinstance(message, Embedded)
    yard.submit(1, ignore_eos=True)
    yard.loop.embed(2, [[7] * 300] * 4)
    assert yard.loop.run()
    assert pieces == [1, 1, 1, 1]
    frames = [type(message) for frame in yard.sink.frames for message in frame]
    assert frames.index(Embedded) > frames.index(CallDelta)


def test_a_cancelled_batch_is_not_computed_to_its_end(yard: Yard) -> None:
    pieces: list[int] = []

    def embed(batch: Sequence[Sequence[int]]) -> list[list[float]]:
        pieces.append(len(batch))
        yard.loop.cancel(1)
        return [[1.0] for _ in batch]

    yard.engine.embed = embed  # type: ignore[method-assign]
    yard.until = lambda message: isinstance(message, WorkerStats)
    yard.loop.embed(1, [[7] * 300] * 9)
    assert yard.loop.run()
    assert len(pieces) < 3 and yard.loop.num_embeds == 0
    assert not yard.sink.of(Embedded, CallFailed)
