"""`python -m benchmarks.side_by_side [--quick] [--only NAME,...] [--log]`: the project's figures, in one run.

Runs the scenarios, prints their figures beside the targets, and keeps them: as JSON in `benchmarks/results/`
and, with `--log`, as a dated section of `benchmarks/LOG.md`. Exits 1 when a target is missed.
"""

import argparse
import asyncio
import importlib.metadata
import os
import platform
import signal
import subprocess
import sys
import traceback
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path

import llama_cpp
import msgspec
import xllamacpp

from benchmarks.bench import Bench
from benchmarks.figures import Figure, table
from benchmarks.models import Settings, prepare
from benchmarks.scenarios import SCENARIOS, Scenario
from benchmarks.servers import end_in_order

_HERE = Path(__file__).parent
_PACKAGES = ("modelyard", "llama-cpp-python", "xllamacpp", "hypercorn", "uvloop", "msgspec", "numpy")


class Report(msgspec.Struct, frozen=True, kw_only=True):
    """One run, as it is kept in JSON; `schema` counts incompatible changes of this form."""

    schema: int = 1
    started: datetime
    facts: dict[str, str]
    figures: list[Figure]


async def run(scenarios: Mapping[str, Scenario], bench: Bench) -> list[Figure]:
    """Run scenarios one after another; one that breaks is reported and the rest still run."""
    figures: list[Figure] = []
    for name, scenario in scenarios.items():
        print(f"... {name}", file=sys.stderr, flush=True)
        try:
            found = await scenario(bench)
        except Exception as error:
            traceback.print_exc()
            found = [Figure(name=name, notes=[reason(error)])]
        figures += found
        print(table(found), file=sys.stderr, flush=True)
    return figures


def facts(bench: Bench) -> dict[str, str]:
    """What a reader needs to judge the figures: machine, versions, settings."""
    settings = bench.settings
    changes = " with changes" if _git("status", "--short") else ""
    return {
        "revision": (_git("rev-parse", "--short", "HEAD") or "unknown") + changes,
        "machine": f"{_processor()}, {os.cpu_count()} cores, {platform.platform()}",
        "python": platform.python_version(),
        "packages": ", ".join(f"{name} {_version(name)}" for name in _PACKAGES),
        "engine built for": _features(llama_cpp.llama_print_system_info().decode()),
        "peer built for": _features(xllamacpp.get_system_info()),
        "settings": f"{settings.threads} threads, {settings.lanes} lanes, {settings.kv_tokens} KV tokens",
        "runs": f"{bench.repeats} repeats in turns, {bench.scale} requests a client, new prompts in each",
        "load before": " ".join(f"{load:.1f}" for load in os.getloadavg()),
    }


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.side_by_side", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="one short repeat of everything")
    parser.add_argument("--only", metavar="NAME,...", help=f"some of {','.join(SCENARIOS)}")
    parser.add_argument("--repeats", type=int, help="default 3, quick 1")
    parser.add_argument("--threads", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--log", action="store_true", help="append the figures to benchmarks/LOG.md")
    options = parser.parse_args()
    names = options.only.split(",") if options.only else list(SCENARIOS)
    if unknown := [name for name in names if name not in SCENARIOS]:
        parser.error(f"no scenario {', '.join(unknown)}; there are {', '.join(SCENARIOS)}")
    settings = Settings(threads=options.threads)
    bench = Bench(
        settings=settings,
        models=prepare(settings),
        logs=_HERE / "results" / "logs",
        repeats=options.repeats or (1 if options.quick else 3),
        scale=1 if options.quick else 3,
    )
    started = datetime.now(UTC)
    signal.signal(signal.SIGTERM, end_in_order)
    figures = asyncio.run(run({name: SCENARIOS[name] for name in names}, bench))
    report = Report(started=started, facts=facts(bench), figures=figures)
    keep(report, results=_HERE / "results")
    text = render(report)
    print(text)
    if options.log:
        with (_HERE / "LOG.md").open("a") as log:
            log.write(f"\n{text}\n")
    return 0 if all(figure.is_met for figure in figures) else 1


def keep(report: Report, *, results: Path) -> None:
    """Write the report with all its samples as JSON into the `results` folder."""
    results.mkdir(parents=True, exist_ok=True)
    path = results / f"{report.started:%Y%m%d-%H%M%S}.json"
    path.write_bytes(msgspec.json.format(msgspec.json.encode(report)))


def render(report: Report) -> str:
    """The report as a section of Markdown, the missed targets named again at its end."""
    lines = [f"## {report.started:%Y-%m-%d %H:%M} UTC", ""]
    lines += [f"- {name}: {value}" for name, value in report.facts.items()]
    lines += [f"- client CPU: {_client_cpu(report.figures)}", "", table(report.figures), ""]
    missed = [figure.name for figure in report.figures if not figure.is_met]
    lines.append(f"Missed or not measured: {'; '.join(missed)}." if missed else "All targets are met.")
    return "\n".join(lines)


def _client_cpu(figures: Sequence[Figure]) -> str:
    http = {
        id(sample): sample
        for figure in figures
        for samples in figure.samples.values()
        for sample in samples
        if sample.ttft_median_s is not None
    }
    cpu_s = sum(sample.client_cpu_s for sample in http.values())
    wall_s = sum(sample.wall_s for sample in http.values())
    tokens = sum(sample.completion_tokens for sample in http.values())
    if not tokens:
        return "none measured"
    share, each = cpu_s / wall_s, cpu_s / tokens * 1e6
    return f"{cpu_s:.2f} s in {wall_s:.1f} s ({share:.1%} of a core), {each:.0f} us a token"


def reason(error: BaseException) -> str:
    """What went wrong first, in a line."""
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return f"{type(error).__name__}: {error}"


def _git(*arguments: str) -> str:
    command = ["git", "-C", str(_HERE), *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False).stdout.strip()


def _version(package: str) -> str:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return "not installed"


def _features(system_info: str) -> str:
    """The names of the instruction sets in llama.cpp's `NAME = 1 | ...` line."""
    parts = (part.rpartition(":")[2].split("=") for part in system_info.split("|") if "=" in part)
    return " ".join(name.strip() for name, value in parts if value.strip() == "1")


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    return next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), "unknown")


if __name__ == "__main__":
    sys.exit(main())
