"""`python -m benchmarks.everything [--quick] [--only PART,...] [--log]`: all figures of the project, in one table.

The parts run one after the other, the quick ones first. A part whose environment is not there, or that breaks, is in
the table as not measured, and why. Exits 1 when a target is missed.
"""

import argparse
import asyncio
import importlib
import os
import signal
import sys
import tempfile
import time
import traceback
from collections.abc import Awaitable, Callable, Mapping
from datetime import UTC, datetime
from pathlib import Path

import msgspec

from benchmarks import front, growth, prompt_lookup, side_by_side, triton_side_by_side
from benchmarks.bench import Bench
from benchmarks.engines.bench import EngineBench
from benchmarks.figures import Figure, table
from benchmarks.models import Settings, prepare
from benchmarks.scenarios import SCENARIOS
from benchmarks.servers import end_in_order
from benchmarks.side_by_side import Report, facts, keep, reason, render

ROOT = Path(__file__).parents[1]


class Options(msgspec.Struct, frozen=True, kw_only=True):
    """How much is measured, and where things are."""

    bench: Bench
    state: Path
    is_quick: bool


class Part(msgspec.Struct, frozen=True, kw_only=True):
    """Some figures; `minutes` is about what they take on two cores, `needs` what must be made before."""

    minutes: int
    run: Callable[[Options], Awaitable[list[Figure]]]
    needs: str = ""


async def _front(options: Options) -> list[Figure]:
    with tempfile.TemporaryDirectory() as folder:
        figures, _ = await front.run(front.QUICK if options.is_quick else front.Size(), Path(folder))
    return figures


async def _growth(options: Options) -> list[Figure]:
    return await growth.measure()


async def _side_by_side(options: Options) -> list[Figure]:
    return await side_by_side.run(SCENARIOS, options.bench)


async def _prompt_lookup(options: Options) -> list[Figure]:
    bench = options.bench
    return await prompt_lookup.measure(bench.settings, logs=bench.logs, repeats=bench.repeats, scale=1)


async def _triton(options: Options) -> list[Figure]:
    size = triton_side_by_side.QUICK if options.is_quick else triton_side_by_side.Size()
    figures, _ = await triton_side_by_side.compare_servers(size)
    return [msgspec.structs.replace(figure, name=f"Triton's protocol, {figure.name}") for figure in figures]


def _engine(name: str) -> Callable[[Options], Awaitable[list[Figure]]]:
    async def run(options: Options) -> list[Figure]:
        bench = EngineBench(
            state=options.state,
            logs=options.bench.logs,
            threads=options.bench.settings.threads,
            repeats=options.bench.repeats,
            scale=options.bench.scale,
        )
        figures: list[Figure] = await importlib.import_module(f"benchmarks.engines.{name}").measure(bench)
        return figures

    return run


PARTS: Mapping[str, Part] = {
    "front": Part(minutes=3, run=_front),
    "growth": Part(minutes=3, run=_growth),
    "triton": Part(minutes=4, run=_triton, needs="make test-triton"),
    "prompt-lookup": Part(minutes=10, run=_prompt_lookup),
    "rwkv": Part(minutes=5, run=_engine("rwkv"), needs="make envs"),
    "openvino": Part(minutes=5, run=_engine("openvino"), needs="make envs"),
    "transformers": Part(minutes=8, run=_engine("transformers"), needs="make envs"),
    "vllm": Part(minutes=10, run=_engine("vllm"), needs="make envs"),
    "side-by-side": Part(minutes=45, run=_side_by_side),
}


async def run_parts(parts: Mapping[str, Part], options: Options) -> list[Figure]:
    """Run the parts in their order; one that breaks is reported, and the rest still run."""
    figures: list[Figure] = []
    for name, part in parts.items():
        print(f"=== {name} (some {part.minutes} minutes)", file=sys.stderr, flush=True)
        began = time.monotonic()
        try:
            found = await part.run(options)
        except Exception as error:
            traceback.print_exc()
            advice = [f"needs `{part.needs}`"] if part.needs else []
            found = [Figure(name=name, notes=[reason(error), *advice])]
        figures += found
        print(table(found), file=sys.stderr)
        print(f"--- {name}: {(time.monotonic() - began) / 60:.1f} minutes", file=sys.stderr, flush=True)
    return figures


def plan(parts: Mapping[str, Part]) -> str:
    """What runs, in which order, and how long it takes about."""
    lines = [
        f"- {name}: {part.minutes} minutes" + (f", needs `{part.needs}`" if part.needs else "")
        for name, part in parts.items()
    ]
    return "\n".join([*lines, f"Some {sum(part.minutes for part in parts.values())} minutes in all."])


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.everything", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="one short repeat of everything")
    parser.add_argument("--only", metavar="PART,...", help=f"some of {','.join(PARTS)}")
    parser.add_argument(
        "--plan", action="store_true", help="say what would run and how long it takes, and end"
    )
    parser.add_argument("--repeats", type=int, help="default 3, quick 1")
    parser.add_argument("--threads", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--log", action="store_true", help="append the figures to benchmarks/LOG.md")
    given = parser.parse_args()
    names = given.only.split(",") if given.only else list(PARTS)
    if unknown := [name for name in names if name not in PARTS]:
        parser.error(f"no part {', '.join(unknown)}; there are {', '.join(PARTS)}")
    parts = {name: part for name, part in PARTS.items() if name in names}
    print(plan(parts), file=sys.stderr, flush=True)
    if given.plan:
        return 0
    settings = Settings(threads=given.threads)
    bench = Bench(
        settings=settings,
        models=prepare(settings),
        logs=ROOT / "benchmarks" / "results" / "logs",
        repeats=given.repeats or (1 if given.quick else 3),
        scale=1 if given.quick else 3,
    )
    state = Path(os.environ.get("MODELYARD_STATE") or ROOT / ".state")
    started = datetime.now(UTC)
    signal.signal(signal.SIGTERM, end_in_order)
    options = Options(bench=bench, state=state, is_quick=given.quick)
    figures = asyncio.run(run_parts(parts, options))
    report = Report(started=started, facts=facts(bench), figures=figures)
    keep(report, results=ROOT / "benchmarks" / "results")
    text = render(report)
    print(text)
    if given.log:
        with (ROOT / "benchmarks" / "LOG.md").open("a") as log:
            log.write(f"\n{text}\n")
    return 0 if all(figure.is_met for figure in figures) else 1


if __name__ == "__main__":
    sys.exit(main())
