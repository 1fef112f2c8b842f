"""Builders that many tests share."""

from collections.abc import Callable
from collections.abc import Sequence as List
from typing import Any

from backends.contract import Engine, LoadRequest, Sampling, StepEngine, StepPlan, StepResult
from backends.echo.engine import EchoEngine
from runner.wire.messages import PROTOCOL, FromWorker, SchedulerLimits, Start
from runner.worker.intake import Intake
from runner.worker.prompt_lookup import Chances
from runner.worker.scheduler import Output, Scheduler
from runner.worker.sequence import Sequence, SequenceLimits


def echo_engine(**given: Any) -> EchoEngine:
    """A loaded echo engine. `given`: fields of LoadRequest."""
    engine = EchoEngine()
    engine.load(LoadRequest(model="echo", weights="", **given), lambda _: None)
    return engine


class Sink:
    """A Sender that keeps what it is sent, and tells `on_message` of each message."""

    def __init__(self, on_message: Callable[[FromWorker], None] = lambda _: None) -> None:
        self.frames: list[list[FromWorker]] = []
        self._on_message = on_message

    def send(self, messages: List[FromWorker]) -> None:
        if messages:
            self.frames.append(list(messages))
        for message in messages:
            self._on_message(message)

    def of(self, *kinds: type) -> list[Any]:
        """Every message of these kinds, in order."""
        return [message for frame in self.frames for message in frame if isinstance(message, kinds)]


def make_start(**given: Any) -> Start:
    """A worker's first frame, for an echo engine of 4 running lanes. `given`: fields of Start."""
    load = LoadRequest(
        model="echo", weights="", lanes=8, running_lanes=4, context_tokens=1024, max_batch_tokens=64
    )
    limits = SchedulerLimits(max_lanes=4, cached_lanes=4, max_batch_tokens=64)
    fields = {"engine": "backends.echo.engine:EchoEngine", "load": load, "limits": limits}
    return Start(protocol=PROTOCOL, **{**fields, **given})


def make_intake(engine: Engine, start: Start | None = None) -> Intake:
    """The intake of a worker with a loaded `engine`, whose clock stands still."""
    return Intake(engine, engine.info, start or make_start(), clock=lambda: 0.0)


def make_scheduler(
    engine: StepEngine | None = None,
    *,
    lanes: int = 8,
    kv_tokens: int = 4096,
    options: dict[str, Any] | None = None,
    **limits: Any,
) -> Scheduler:
    """A scheduler over an echo engine with as many running lanes as `max_lanes` says (default 4)."""
    limits = {"max_lanes": 4, "max_batch_tokens": 64, **limits}
    if engine is None:
        engine = echo_engine(
            lanes=lanes,
            running_lanes=limits["max_lanes"],
            kv_tokens=kv_tokens,
            context_tokens=kv_tokens,
            max_batch_tokens=limits["max_batch_tokens"],
            options=options or {},
        )
    scheduler = Scheduler(engine, engine.info, SchedulerLimits(**limits))
    scheduler.engine = engine  # type: ignore[attr-defined]
    return scheduler


def make_sequence(number: int, prompt: str | List[int], **given: Any) -> Sequence:
    """A greedy sequence; texts become byte tokens, as echo has them. `max_tokens` and other limits by name."""
    tokens = list(prompt.encode()) if isinstance(prompt, str) else list(prompt)
    names = SequenceLimits.__struct_fields__
    limits = {"max_tokens": 8, **{name: given.pop(name) for name in names if name in given}}
    return Sequence(
        number,
        tokens,
        sampling=given.pop("sampling", Sampling(temperature=0)),
        limits=SequenceLimits(**limits),
        arrival=number,
        lookup_chances=Chances() if given.pop("looks_up", False) else None,
        **given,
    )


def step(scheduler: Scheduler, now: float = 0.0) -> tuple[StepPlan | None, list[Output]]:
    """One plan, step and commit, with every invariant checked in between."""
    plan = scheduler.plan(now)
    scheduler.check_integrity()
    outputs = scheduler.take_failures()
    if plan is None:
        return None, outputs
    result: StepResult = scheduler.engine.step(plan)  # type: ignore[attr-defined]
    outputs += scheduler.commit(plan, result)
    scheduler.check_integrity()
    return plan, outputs


def run_to_end(scheduler: Scheduler, *, most: int = 10_000) -> dict[int, list[int]]:
    """Step until nothing is left; the output tokens by sequence id."""
    tokens: dict[int, list[int]] = {}
    for _ in range(most):
        plan, outputs = step(scheduler)
        for output in outputs:
            tokens.setdefault(output.seq.id, []).extend(output.tokens)
        if not scheduler.has_work:
            return tokens
        assert plan is not None, "work is left, but nothing is planned"
    raise AssertionError("the scheduler did not come to an end")
