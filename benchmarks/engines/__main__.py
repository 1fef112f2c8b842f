"""`python -m benchmarks.engines NAME [--quick] [--log]`: one engine's figures, in one run.

NAME is a module of this package with `async def measure(bench: EngineBench) -> list[Figure]`. Exits 1 when a target is
missed. The engine's environment must be there: `make envs`.
"""

import argparse
import asyncio
import importlib
import os
import platform
import sys
from datetime import UTC, datetime
from pathlib import Path

from benchmarks.engines.bench import EngineBench
from benchmarks.figures import table

_ROOT = Path(__file__).parents[2]


def main() -> int:
    here = Path(__file__).parent
    names = sorted(path.stem for path in here.glob("*.py") if "async def measure(" in path.read_text())
    parser = argparse.ArgumentParser(prog="python -m benchmarks.engines", description=__doc__)
    parser.add_argument("engine", choices=names)
    parser.add_argument("--quick", action="store_true", help="one short repeat of everything")
    parser.add_argument("--repeats", type=int, help="default 3, quick 1")
    parser.add_argument("--threads", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--log", action="store_true", help="append the figures to benchmarks/LOG.md")
    options = parser.parse_args()
    state = Path(os.environ.get("MODELYARD_STATE") or _ROOT / ".state")
    bench = EngineBench(
        state=state,
        logs=_ROOT / "benchmarks" / "results" / "logs",
        threads=options.threads,
        repeats=options.repeats or (1 if options.quick else 3),
        scale=1 if options.quick else 3,
    )
    started = datetime.now(UTC)
    module = importlib.import_module(f"benchmarks.engines.{options.engine}")
    load = " ".join(f"{one:.1f}" for one in os.getloadavg())
    figures = asyncio.run(module.measure(bench))
    lines = [
        f"## {started:%Y-%m-%d %H:%M} UTC, {options.engine}",
        "",
        f"- machine: {os.cpu_count()} cores, {platform.platform()}, {options.threads} threads, load before {load}",
        f"- runs: {bench.repeats} repeats in turns, {bench.scale} requests a client, new prompts in each",
        "",
        table(figures),
    ]
    print("\n".join(lines))
    if options.log:
        with (_ROOT / "benchmarks" / "LOG.md").open("a") as log:
            log.write("\n" + "\n".join(lines) + "\n")
    return 0 if all(figure.is_met for figure in figures) else 1


if __name__ == "__main__":
    sys.exit(main())
