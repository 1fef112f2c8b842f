"""`python -m benchmarks.growth [--log]`: what costs more with size: models on disk, idle models, lanes; and the start.

Prints each figure beside its target and exits 1 when one is missed.
"""

import argparse
import asyncio
import json
import signal
import subprocess
import sys
import tempfile
import time
import urllib.request
from datetime import UTC, datetime
from pathlib import Path
from statistics import median

import psutil

from benchmarks import servers
from benchmarks.client import run_load
from benchmarks.figures import Figure, Target, table
from benchmarks.measure import summarise
from benchmarks.servers import Server, end_in_order
from benchmarks.workload import Load, distinct

ROOT = Path(__file__).parents[1]
MODELS = 10_000
FEW = 100
LANES = 128
REPEATS = 5
_CONFIG = "backend: echo\ndescription: one of many\nparameters: {temperature: 0.5}\n"
_SCAN = """
import json, sys, time
from pathlib import Path
from repository.scan import scan
root = Path(sys.argv[1])
def timed(previous):
    began = time.perf_counter()
    return scan(root, previous), time.perf_counter() - began
snapshot, cold = timed(None)
times = []
for _ in range(5):
    snapshot, warm = timed(snapshot)
    times.append(warm)
print(json.dumps([len(snapshot.entries), cold, sorted(times)[2]]))
"""


def write_models(root: Path, count: int) -> Path:
    """Models of the echo backend, each with a configuration of its own."""
    for number in range(count):
        version = root / f"model-{number:05}" / "1"
        version.mkdir(parents=True)
        (version.parent / "config.yaml").write_text(_CONFIG)
    return root


def scanning(root: Path) -> list[Figure]:
    """The first look at many models, and another when nothing has changed, in a process of their own."""
    words = [sys.executable, "-c", _SCAN, str(root)]
    done = subprocess.run(words, cwd=ROOT, capture_output=True, text=True, check=True)
    found, cold_s, warm_s = json.loads(done.stdout)
    name = f"scan of {found} models"
    return [
        _seconds(f"{name}, the first", cold_s, limit=5.0),
        _seconds(f"{name}, nothing changed", warm_s, limit=1.0),
    ]


def idle_memory(many: Path, few: Path, *, logs: Path) -> Figure:
    """What a model that is not loaded takes of the server process."""
    sizes = []
    for repository in (few, many):
        with servers.modelyard(repository, [], logs=logs) as server:
            # Twice: what answering takes for the first time is not the models'.
            for _ in range(2):
                assert server.ask("/v1/models", timeout_s=60) is not None
            sizes.append(server.rss_bytes()[0])
    each = (sizes[1] - sizes[0]) / (MODELS - FEW) / 1000
    return _figure("memory of the server process for each idle model", f"{each:.1f} kB", each, limit=20.0)


async def stepping(*, logs: Path, folder: Path) -> Figure:
    """Processor time of the worker for each step with all lanes busy; the engine is echo, which costs little."""
    lanes = folder / "lanes"
    (lanes / "echo" / "1").mkdir(parents=True)
    scheduler = f"{{max_lanes: {LANES}, cached_lanes: 0, max_batch_tokens: 2048}}"
    (lanes / "echo" / "config.yaml").write_text(f"backend: echo\ndelay_s: 0.02\nscheduler: {scheduler}\n")
    load = Load(clients=LANES, requests=distinct(LANES, prompt_words=8, max_tokens=400, spread=0, seed=1))
    with servers.modelyard(lanes, ["echo"], logs=logs) as server:
        times = []
        for _ in range(3):
            before = _worker_cpu_s(server), server.metric("modelyard_steps_total")
            summary = summarise(await run_load(server.endpoint("echo"), load))
            assert not summary.errors, summary.first_error
            after = _worker_cpu_s(server), server.metric("modelyard_steps_total")
            times.append((after[0] - before[0]) / (after[1] - before[1]) * 1e3)
    each = median(times)
    return _figure(
        f"worker's processor time for a step of {LANES} streams", f"{each:.2f} ms", each, limit=2.0
    )


def starting(*, logs: Path) -> Figure:
    """From the command to the first token of the demo model, less the engine's own load."""
    times = []
    for _ in range(REPEATS):
        began = time.monotonic()
        with servers.modelyard(ROOT / "models", [], logs=logs) as server:
            body = {"model": "demo", "messages": [{"role": "user", "content": "Hello"}], "max_tokens": 1}
            request = urllib.request.Request(
                f"http://127.0.0.1:{server.port}/v1/chat/completions",
                data=json.dumps(body).encode(),
                headers={"content-type": "application/json"},
            )
            with urllib.request.urlopen(request, timeout=60) as answer:
                answer.read()
            took_s = time.monotonic() - began
            times.append(took_s - server.metric("modelyard_model_load_seconds"))
    return _seconds("start to first answer, less the engine's load", median(times), limit=1.5)


def _worker_cpu_s(server: Server) -> float:
    total = 0.0
    for child in psutil.Process(server.pid).children(recursive=True):
        times = child.cpu_times()
        total += times.user + times.system
    return total


def _seconds(name: str, value_s: float, *, limit: float) -> Figure:
    return _figure(name, f"{value_s:.2f} s", value_s, limit=limit)


def _figure(name: str, shown: str, value: float, *, limit: float) -> Figure:
    return Figure(name=name, ours=shown, ratio=value, target=Target(limit, is_at_most=True))


async def measure() -> list[Figure]:
    """All figures."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        many, few = write_models(folder / "many", MODELS), write_models(folder / "few", FEW)
        return [
            *scanning(many),
            idle_memory(many, few, logs=folder / "logs"),
            await stepping(logs=folder / "logs", folder=folder),
            starting(logs=folder / "logs"),
        ]


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.growth", description=__doc__)
    parser.add_argument("--log", action="store_true", help="append the figures to benchmarks/LOG.md")
    given = parser.parse_args()
    signal.signal(signal.SIGTERM, end_in_order)
    figures = asyncio.run(measure())
    text = table(figures)
    print(text)
    if given.log:
        with (ROOT / "benchmarks" / "LOG.md").open("a") as log:
            log.write(f"\n## {datetime.now(UTC):%Y-%m-%d %H:%M} UTC, growth\n\n{text}\n")
    return 0 if all(figure.is_met for figure in figures) else 1


if __name__ == "__main__":
    sys.exit(main())
