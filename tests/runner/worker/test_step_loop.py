"""The step loop over the echo engine, run to its end on the test's own thread."""

import struct
from collections.abc import Callable, Sequence
from typing import Any

import pytest

from backends.contract import EngineError, LoadRequest, StepPlan, StepResult, UnsupportedError
from backends.echo.engine import EchoEngine
from runner.wire.messages import (
    CallDelta,
    CallFailed,
    CallFinished,
    Embedded,
    FromWorker,
    QueueLimits,
    SchedulerLimits,
    WorkerStats,
)
from runner.wire.requests import GenerateRequest, TextPrompt
from runner.worker.step_loop import StepLoop
from tests.support import Sink, make_intake, make_start


class Diary(EchoEngine):
    """Writes down what it is asked to do."""

    def __init__(self) -> None:
        super().__init__()
        self.done: list[str] = []
        self.batches: list[list[int]] = []
        self.vector: Callable[[Sequence[int]], list[float]] = lambda tokens: [1.0]
        self.refusal: Exception | None = None

    def step(self, plan: StepPlan) -> StepResult:
        self.done.append("step")
        return super().step(plan)

    def embed(self, batch: Sequence[Sequence[int]]) -> list[list[float]]:
        self.done.append("embed")
        if self.refusal is not None:
            raise self.refusal
        self.batches.append([len(tokens) for tokens in batch])
        return [self.vector(tokens) for tokens in batch]


class Yard:
    """A loop, its engine and what it sent. It stops when `until` holds for a message."""

    def __init__(
        self,
        engine: Diary | None = None,
        *,
        until: Callable[[FromWorker], bool] = lambda message: isinstance(message, CallFinished),
        clock: Callable[[], float] = lambda: 0.0,
        load: dict[str, Any] | None = None,
        **limits: Any,
    ) -> None:
        sizes = {"max_lanes": 4, "max_batch_tokens": 64, **limits}
        start = make_start(limits=SchedulerLimits(**sizes))
        self.engine = engine or Diary()
        fields = {"lanes": 8, "running_lanes": sizes["max_lanes"], "context_tokens": 1024, **(load or {})}
        self.engine.load(LoadRequest(model="echo", weights="", **fields), lambda _: None)
        self.intake = make_intake(self.engine, start)
        self.sink = Sink(lambda message: self.loop.stop() if until(message) else None)
        self.loop = StepLoop(self.engine, self.engine.info, start.limits, sender=self.sink, clock=clock)

    def submit(self, call: int, prompt: str = "hello", **given: Any) -> None:
        job = self.intake.job(call, GenerateRequest(prompt=TextPrompt(prompt), **given))
        self.loop.submit(job, self.intake.sequences(job))


def test_between_two_embeddings_there_is_a_step() -> None:
    yard = Yard()
    yard.submit(1, max_tokens=5)
    for call in (2, 3, 4):
        yard.loop.embed(call, [[1, 2]])
    assert yard.loop.run()
    assert yard.engine.done[:6] == ["embed", "step"] * 3
    assert [message.call for message in yard.sink.of(Embedded)] == [2, 3, 4]


def test_an_embedding_is_answered_before_the_next_step() -> None:
    yard = Yard()
    yard.submit(1, max_tokens=2)
    yard.loop.embed(2, [[1, 2]])
    yard.loop.run()
    assert [type(message) for message in yard.sink.frames[0]] == [Embedded]


def test_embeddings_alone_are_all_answered() -> None:
    yard = Yard(until=lambda message: isinstance(message, Embedded) and message.call == 3)
    for call in (1, 2, 3):
        yard.loop.embed(call, [[1]])
    assert yard.loop.run()
    assert len(yard.sink.of(Embedded)) == 3


def test_a_large_batch_is_computed_in_pieces_between_steps() -> None:
    yard = Yard()
    yard.submit(1, max_tokens=8, ignore_eos=True)
    yard.loop.embed(2, [[1] * 10, [2] * 6, [3] * 20, [4]])  # a quarter of 64 tokens beside a stream
    assert yard.loop.run()
    assert yard.engine.batches == [[10, 6], [20], [1]]
    assert yard.engine.done[:6] == ["embed", "step"] * 3
    (embedded,) = yard.sink.of(Embedded)
    assert (len(embedded.vectors), embedded.prompt_tokens) == (4, 37)


def test_without_streams_a_piece_is_as_large_as_a_step() -> None:
    yard = Yard(until=lambda message: isinstance(message, Embedded))
    yard.loop.embed(1, [[1] * 30] * 5)
    assert yard.loop.run()
    assert yard.engine.batches == [[30, 30], [30, 30], [30]]


def test_a_small_batch_does_not_wait_for_a_large_one() -> None:
    yard = Yard(until=lambda message: isinstance(message, Embedded) and message.call == 1)
    yard.loop.embed(1, [[1] * 60] * 9)
    yard.loop.embed(2, [[2]])
    assert yard.loop.run()
    assert [message.call for message in yard.sink.of(Embedded)] == [2, 1]


def test_vectors_keep_the_order_of_their_texts_and_may_be_cut_to_unit_length() -> None:
    yard = Yard(until=lambda message: isinstance(message, Embedded) and message.call == 2)
    yard.engine.vector = lambda tokens: [3.0 * tokens[0], 4.0 * tokens[0], 12.0]
    yard.loop.embed(1, [[1] * 60, [2] * 60])
    yard.loop.embed(2, [[5]], dimensions=2)
    assert yard.loop.run()
    whole, cut = sorted(yard.sink.of(Embedded), key=lambda message: message.call)
    assert [struct.unpack("<3f", vector) for vector in whole.vectors] == [(3.0, 4.0, 12.0), (6.0, 8.0, 12.0)]
    assert struct.unpack("<2f", cut.vectors[0]) == pytest.approx((0.6, 0.8))


def test_a_cancelled_embedding_is_not_computed() -> None:
    yard = Yard(until=lambda message: isinstance(message, Embedded) and message.call == 3)
    for call in (1, 2, 3):
        yard.loop.embed(call, [[1]])
    yard.loop.cancel(2)
    yard.loop.run()
    assert [message.call for message in yard.sink.of(Embedded)] == [1, 3]
    assert yard.engine.done.count("embed") == 2


@pytest.mark.parametrize(
    ("refusal", "kind"),
    [(EngineError("too long"), "GenerationFailed"), (UnsupportedError("no vectors"), "UnsupportedFeature")],
)
def test_an_embedding_that_the_engine_refuses_fails_alone(refusal: Exception, kind: str) -> None:
    yard = Yard()
    yard.engine.refusal = refusal
    yard.submit(1, max_tokens=5)
    yard.loop.embed(2, [[1, 2]])
    assert yard.loop.run()
    (failed,) = yard.sink.of(CallFailed)
    assert (failed.call, failed.error.kind, failed.error.message) == (2, kind, str(refusal))
    assert [message.call for message in yard.sink.of(CallFinished)] == [1]


def test_a_sampling_that_the_engine_refuses_fails_alone() -> None:
    class Picky(Diary):
        def open(self, seq: int, sampling: Any, history: Sequence[int]) -> None:
            if sampling.seed is not None:
                raise EngineError("no seeds here")
            super().open(seq, sampling, history)

    yard = Yard(Picky())
    yard.submit(1, sampling={"seed": 1}, n=2)
    yard.submit(2, max_tokens=3)
    assert yard.loop.run()
    (failed,) = yard.sink.of(CallFailed)
    assert (failed.call, failed.error.message) == (1, "no seeds here")
    assert yard.loop.num_sequences == 0


def test_an_engine_that_raises_fails_every_call_once_and_those_in_the_inbox_too(
    caplog: pytest.LogCaptureFixture,
) -> None:
    class Breaks(Diary):
        def step(self, plan: StepPlan) -> StepResult:
            yard.submit(2)  # what the intake thread may do at any time
            raise RuntimeError("the device is gone")

    yard = Yard(Breaks())
    yard.submit(1, ignore_eos=True)
    assert not yard.loop.run() and yard.loop.is_broken
    yard.submit(3)
    failed = yard.sink.of(CallFailed)
    assert sorted(message.call for message in failed) == [1, 2, 3]
    assert all("the device is gone" in message.error.message for message in failed)
    assert caplog.text.count("Traceback") == 1


def test_a_call_that_streams_does_not_expire_in_the_queue() -> None:
    now = iter(range(10**6))
    yard = Yard(clock=lambda: float(next(now)), max_lanes=1, queues=(QueueLimits(queue_timeout_s=5.0),))
    yard.submit(1, n=2, max_tokens=30, ignore_eos=True)
    assert yard.loop.run()
    assert not yard.sink.of(CallFailed)
    assert {message.delta.index for message in yard.sink.of(CallDelta)} == {0, 1}


def test_a_call_none_of_whose_sequences_began_expires() -> None:
    now = iter(range(10**6))
    yard = Yard(clock=lambda: float(next(now)), max_lanes=1, queues=(QueueLimits(queue_timeout_s=5.0),))
    yard.submit(1, max_tokens=30, ignore_eos=True)
    yard.submit(2, n=2)
    yard.loop.run()
    (failed,) = yard.sink.of(CallFailed)
    assert (failed.call, failed.error.kind) == (2, "DeadlineExceeded")


def test_every_step_is_reported_even_where_no_token_came() -> None:
    yard = Yard()
    yard.submit(1, "p" * 200, max_tokens=1)
    yard.loop.run()
    steps = [stats for stats in yard.sink.of(WorkerStats) if stats.step_rows]
    assert [stats.step_tokens for stats in steps] == [64, 64, 64, 8]
    assert [stats.steps_total for stats in steps] == [1, 2, 3, 4]


class Ticking:
    """A clock that goes on by so much each time it is looked at."""

    def __init__(self, tick_s: float) -> None:
        self.now = 0.0
        self.tick_s = tick_s

    def __call__(self) -> float:
        self.now += self.tick_s
        return self.now


@pytest.mark.parametrize(("tick_s", "shared"), [(1e-5, True), (0.01, False)])
def test_short_steps_share_a_frame_and_long_ones_have_their_own(tick_s: float, shared: bool) -> None:
    yard = Yard(clock=Ticking(tick_s))
    yard.submit(1, max_tokens=30, ignore_eos=True)
    yard.loop.run()
    told = [sum(isinstance(message, CallDelta) for message in frame) for frame in yard.sink.frames]
    assert sum(told) == 30
    assert (max(told) > 2) is shared


def test_a_first_token_does_not_wait() -> None:
    yard = Yard(clock=Ticking(1e-5))
    yard.submit(1, "p" * 20, max_tokens=30, ignore_eos=True)
    yard.loop.run()
    first = next(frame for frame in yard.sink.frames if any(isinstance(m, CallDelta) for m in frame))
    assert sum(isinstance(message, CallDelta) for message in first) == 1


def test_what_waits_is_sent_before_a_step_that_may_be_long() -> None:
    yard = Yard(clock=Ticking(1e-5))
    yard.submit(1, max_tokens=200, ignore_eos=True)
    seen: list[int] = []
    step = yard.engine.step

    def counting(plan: StepPlan) -> StepResult:
        if plan.num_tokens > len(plan.rows) and len(yard.engine.done) > 20:
            seen.append(len(yard.sink.of(CallDelta)))
        elif len(yard.engine.done) == 20:
            yard.submit(2, "q" * 30, max_tokens=1)
        return step(plan)

    yard.engine.step = counting  # type: ignore[method-assign]
    yard.loop.run()
    assert seen[0] == len(yard.engine.done[:21])  # a token of each step so far, none of which was long


def test_a_cancelled_call_leaves_only_the_stats_behind() -> None:
    yard = Yard()
    yard.submit(1)
    yard.loop.cancel(1)
    yard.loop.stop()
    yard.loop.run()
    assert [type(message) for frame in yard.sink.frames for message in frame] == [WorkerStats]
    assert yard.loop.num_sequences == 0


def test_sequences_are_counted_from_submission_and_nothing_else_is() -> None:
    yard = Yard()
    yard.submit(1, n=3)
    yard.submit(2)
    yard.loop.embed(3, [[1]])
    yard.loop.cancel(9)
    assert (yard.loop.num_sequences, yard.loop.num_lanes) == (4, 4)


def test_a_warm_up_that_does_not_fit_ends_with_its_reason() -> None:
    yard = Yard(load={"kv_tokens": 100, "context_tokens": 100})
    job = yard.intake.job(0, GenerateRequest(prompt=TextPrompt("x" * 90)))
    sequences = yard.intake.sequences(job)
    sequences[0].tokens.extend(b"y" * 90)  # as where the context is said to be longer than the pool
    with pytest.raises(EngineError, match="180 tokens in a KV pool of 100"):
        yard.loop.warm_up(job, sequences)
