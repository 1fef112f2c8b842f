"""One measured run: warm-up, the work, the figures. Shows live figures, and keeps what was measured when broken off."""

import asyncio
import random
import signal
import time
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import msgspec
import uvloop
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from benchmarks.client import Endpoint
from benchmarks.harness.driver import Driver
from benchmarks.harness.machine import EnergyMeter
from benchmarks.harness.measures import measure
from benchmarks.harness.mixes import MIXES, MixError, from_file, sessions
from benchmarks.harness.result import Plan, Run, compact
from benchmarks.harness.work import Arrival, Session, Sizes, Slo
from benchmarks.measure import Record

LARGEST_SEED = 2**31


class Wanted(msgspec.Struct, frozen=True, kw_only=True):
    """What the command was asked for; None: the mix's own. `requests` counts requests, so a conversation of four turns
    is four of them."""

    mix: str = "chat"
    arrival: Arrival = Arrival()
    requests: int | None = None
    prompt_words: int | None = None
    output_tokens: int | None = None
    prefix_words: int | None = None
    turns: int | None = None
    seed: int | None = None
    warm_up: int = 4
    ignore_eos: bool = True
    slo: Slo = Slo()
    timeout_s: float = 300.0


class Work(msgspec.Struct, frozen=True):
    """A plan and the sessions it stands for; `warm_up` come first and are not measured."""

    plan: Plan
    warm_up: list[Session]
    sessions: list[Session]


def plan_work(wanted: Wanted) -> Work:
    """The work, made whole before anything is sent. Raises MixError."""
    seed = random.randrange(LARGEST_SEED) if wanted.seed is None else wanted.seed
    arrival = wanted.arrival
    # Five a client: the first and the last of each run beside fewer others.
    usual = 5 * arrival.clients if arrival.rate is None else round(30 * arrival.rate)
    if wanted.mix in MIXES:
        mix = MIXES[wanted.mix]
        given = {name: getattr(wanted, name) for name in Sizes.__struct_fields__}
        sizes = msgspec.structs.replace(mix.sizes, **{n: v for n, v in given.items() if v is not None})
        count = max(1, -(-(wanted.requests or usual * sizes.turns) // sizes.turns))
        made = sessions(mix, sizes, seed=seed, count=count, ignore_eos=wanted.ignore_eos)
        first = sessions(
            mix, sizes, seed=seed ^ LARGEST_SEED, count=wanted.warm_up, ignore_eos=wanted.ignore_eos
        )
    elif Path(wanted.mix).exists():
        sizes = None
        made = from_file(Path(wanted.mix))[: wanted.requests]
        first = made[: wanted.warm_up]
    else:
        raise MixError(f"there is no mix {wanted.mix!r} and no such file; there are {', '.join(MIXES)}")
    plan = Plan(
        mix=wanted.mix,
        sizes=sizes,
        sessions=len(made),
        seed=seed,
        arrival=arrival,
        warm_up=len(first),
        ignore_eos=wanted.ignore_eos,
        slo=wanted.slo,
        timeout_s=wanted.timeout_s,
    )
    return Work(plan, first, made)


def measure_run(
    endpoint: Endpoint, work: Work, *, label: str, url: str, console: Console, **about: Any
) -> Run:
    """Send the work and measure it. `about` are further fields of the run. A run that Ctrl-C breaks off is returned
    with what it has; so is one whose warm-up fails, with the reason."""
    plan, started = work.plan, datetime.now(UTC)
    run = Run(label=label, url=url, model=endpoint.model, plan=plan, started=started, **about)
    records: list[Record] = []
    is_partial = False
    began = time.perf_counter()
    meter = EnergyMeter()
    try:
        if failure := _drive(endpoint, work.warm_up, Arrival(clients=4), plan, on_record=lambda _: None):
            return msgspec.structs.replace(run, failure=f"the warm-up failed: {failure}")
        with _Live(console, label, sum(len(one.calls) for one in work.sessions)) as live:

            def take(done: Record) -> None:
                records.append(done)
                live.show(records)

            began = time.perf_counter()
            meter = EnergyMeter()
            _drive(endpoint, work.sessions, plan.arrival, plan, on_record=take)
    except KeyboardInterrupt:
        is_partial = True
    return msgspec.structs.replace(
        run,
        measures=measure(records, slo=plan.slo, seed=plan.seed) if records else None,
        records=compact(records, started_s=began),
        energy_j=meter.joules(),
        is_partial=is_partial,
        failure="" if records else "broken off before any request ended",
    )


def ask(endpoint: Endpoint, asked: Sequence[Session], *, timeout_s: float) -> list[Record]:
    """A few sessions one after another, with what was said."""
    said: list[Record] = []

    async def drive() -> None:
        driver = Driver(endpoint, on_record=said.append, timeout_s=timeout_s, keep_text=True)
        await driver.run(asked, Arrival(clients=1), seed=0)

    _run(drive)
    return said


def _drive(
    endpoint: Endpoint,
    work: Sequence[Session],
    arrival: Arrival,
    plan: Plan,
    *,
    on_record: Callable[[Record], None],
) -> str:
    """Returns the first error, if any."""
    errors: list[str] = []

    def take(done: Record) -> None:
        if done.error is not None:
            errors.append(done.error)
        on_record(done)

    async def drive() -> None:
        await Driver(endpoint, on_record=take, timeout_s=plan.timeout_s).run(work, arrival, seed=plan.seed)

    _run(drive)
    return errors[0] if errors else ""


def _run(main: Callable[[], Any]) -> None:
    """Run a coroutine to its end; Ctrl-C cancels it and is raised as KeyboardInterrupt."""

    async def watched() -> None:
        task = asyncio.ensure_future(main())
        loop = asyncio.get_running_loop()
        loop.add_signal_handler(signal.SIGINT, task.cancel)
        try:
            await task
        except asyncio.CancelledError:
            raise KeyboardInterrupt from None
        finally:
            loop.remove_signal_handler(signal.SIGINT)

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(watched())


class _Live:
    """A progress bar with the figures so far."""

    def __init__(self, console: Console, label: str, total: int) -> None:
        self._progress = Progress(
            TextColumn("{task.description}"),
            BarColumn(bar_width=24),
            MofNCompleteColumn(),
            TextColumn("{task.fields[figures]}"),
            TimeElapsedColumn(),
            console=console,
            transient=True,
        )
        self._task = self._progress.add_task(label, total=total, figures="")
        self._tokens = self._failed = 0

    def __enter__(self) -> "_Live":
        self._progress.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._progress.stop()

    def show(self, records: Sequence[Record]) -> None:
        newest = records[-1]
        self._tokens += newest.completion_tokens
        self._failed += newest.error is not None
        span_s = newest.end_s - records[0].start_s
        figures = f"{self._tokens / span_s:.0f} tok/s" if span_s > 0 else ""
        if newest.chunk_times_s:
            figures += f", TTFT {newest.chunk_times_s[0] - newest.start_s:.2f} s"
        if self._failed:
            figures += f", {self._failed} failed"
        self._progress.update(self._task, advance=1, figures=figures)
