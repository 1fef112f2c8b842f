"""`python -m benchmarks.agreement [--quick] [--log]`: do the harness and a client of somebody else's agree?

Both measure the same running Modelyard with the same prompts, in turns: `modelyard bench run`, and vLLM's `bench serve`
out of the environment `vllm`. Counts must be equal; figures must differ by no more than a client differs from itself
between repeats. Exits 1 where they do not agree.
"""

import argparse
import json
import os
import shutil
import signal
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from datetime import UTC, datetime
from pathlib import Path
from statistics import median
from typing import Any

import msgspec
import yaml

from benchmarks import servers
from benchmarks.child import ChildError, run_command
from benchmarks.engines import random_folder
from benchmarks.harness.machine import machine_facts
from benchmarks.harness.result import load
from benchmarks.models import RANDOM, Settings, prepare
from benchmarks.workload import distinct

ROOT = Path(__file__).parents[1]
OURS, THEIRS = "modelyard bench run", "vllm bench serve"
MODEL = "model"
ECHO_STEP_S = 0.02
FIGURES = ("tokens/s", "requests/s", "TTFT p50", "TPOT p50", "ITL p50")

SCRIPT = Path(__file__).parent / "engines" / "vllm_bench_serve.py"


class Told(msgspec.Struct, frozen=True, kw_only=True):
    """What a client says of one run. `figures`, by name, in tokens or requests a second, or seconds."""

    requests: int
    failed: int
    prompt_tokens: int
    completion_tokens: int
    figures: dict[str, float]

    @property
    def counts(self) -> tuple[int, int, int, int]:
        return self.requests, self.failed, self.prompt_tokens, self.completion_tokens


class Compared(msgspec.Struct, frozen=True, kw_only=True):
    """One figure under one load, by medians of the repeats. `noise` is the larger of the clients' own spreads between
    repeats: (largest - least) / median."""

    clients: int
    figure: str
    ours: float
    theirs: float
    noise: float

    @property
    def difference(self) -> float:
        return self.ours / self.theirs - 1

    @property
    def agrees(self) -> bool:
        return abs(self.difference) <= self.noise


class Work(msgspec.Struct, frozen=True, kw_only=True):
    """Completions of distinct words, as many from each client."""

    rounds: int = 6
    prompt_words: int = 64
    output_tokens: int = 64
    vocabulary: int = random_folder.SHAPE_79M.vocabulary

    def write(self, path: Path, *, clients: int, seed: int) -> None:
        """As JSON Lines that both clients read."""
        requests = distinct(
            self.rounds * clients,
            prompt_words=self.prompt_words,
            max_tokens=self.output_tokens,
            seed=seed,
            spread=0.0,
            vocabulary=self.vocabulary,
        )
        fields = {"max_tokens": self.output_tokens, "temperature": 0, "ignore_eos": True}
        path.write_text("".join(json.dumps({"prompt": one.prompt, **fields}) + "\n" for one in requests))


class Server(msgspec.Struct, frozen=True, kw_only=True):
    """The running server, and a folder with the tokenizer of its model, which the other client wants to have."""

    url: str
    tokenizer: Path


def ask_ours(server: Server, work: Path, *, clients: int) -> Told:
    """One run of `modelyard bench run`. Raises ChildError."""
    command = shutil.which("modelyard", path=Path(sys.executable).parent)
    if command is None:
        raise ChildError(f"no modelyard command beside {sys.executable}; install the project first")
    output = work.with_suffix(".ours.json")
    options = {"model": MODEL, "mix": work, "clients": clients, "warm-up": 0, "output": output}
    run_command([command, "bench", "run", f"{server.url}/v1", *_options(options)])
    measures = load(output).runs[0].measures
    if not (measures and measures.output_tokens_per_s and measures.ttft and measures.tpot and measures.itl):
        raise ChildError(f"{OURS} measured nothing; see {output}")
    return Told(
        requests=measures.requests,
        failed=measures.failed,
        prompt_tokens=measures.prompt_tokens,
        completion_tokens=measures.completion_tokens,
        figures={
            "tokens/s": measures.output_tokens_per_s.value,
            "requests/s": measures.requests_per_s,
            "TTFT p50": measures.ttft.p50.value,
            "TPOT p50": measures.tpot.p50.value,
            "ITL p50": measures.itl.p50.value,
        },
    )


def ask_theirs(python: Path, server: Server, work: Path, *, clients: int) -> Told:
    """One run of `vllm bench serve` by the interpreter of its environment. Raises ChildError."""
    output = work.with_suffix(".theirs.json")
    lines = [json.loads(line) for line in work.read_text().splitlines()]
    options = {
        "backend": "openai",
        "base-url": server.url,
        "endpoint": "/v1/completions",
        "model": MODEL,
        "tokenizer": server.tokenizer,
        "dataset-name": "custom",
        "dataset-path": work,
        "custom-output-len": lines[0]["max_tokens"],
        "num-prompts": len(lines),
        "max-concurrency": clients,
        "temperature": 0,
        "percentile-metrics": "ttft,tpot,itl",
        "ready-check-timeout-sec": 0,  # it would be one request more
        "result-dir": output.parent,
        "result-filename": output.name,
    }
    switches = (
        "--skip-chat-template",
        "--disable-shuffle",
        "--ignore-eos",
        "--save-result",
        "--disable-tqdm",
    )
    run_command([str(python), "-I", str(SCRIPT), *_options(options), *switches])
    told: dict[str, Any] = json.loads(output.read_text())
    return Told(
        requests=told["completed"] + told["failed"],
        failed=told["failed"],
        prompt_tokens=told["total_input_tokens"],
        completion_tokens=told["total_output_tokens"],
        figures={
            "tokens/s": told["output_throughput"],
            "requests/s": told["request_throughput"],
            "TTFT p50": told["median_ttft_ms"] / 1e3,
            "TPOT p50": told["median_tpot_ms"] / 1e3,
            "ITL p50": told["median_itl_ms"] / 1e3,
        },
    )


def compared(clients: int, ours: Sequence[Told], theirs: Sequence[Told]) -> list[Compared]:
    """Every figure of the repeats of one load."""
    return [
        Compared(
            clients=clients,
            figure=name,
            ours=median(one.figures[name] for one in ours),
            theirs=median(one.figures[name] for one in theirs),
            noise=max(_spread([one.figures[name] for one in side]) for side in (ours, theirs)),
        )
        for name in FIGURES
    ]


def table(found: Sequence[Compared]) -> str:
    """In Markdown; times in milliseconds."""
    lines = [f"| clients | figure | {OURS} | {THEIRS} | difference | noise | verdict |", "|" + "---|" * 7]
    for one in found:
        times, unit = (1e3, " ms") if one.figure.endswith("p50") else (1, "")
        ours, theirs = (f"{value * times:.4g}{unit}" for value in (one.ours, one.theirs))
        verdict = "agree" if one.agrees else "DIFFER"
        cells = [
            str(one.clients),
            one.figure,
            ours,
            theirs,
            f"{one.difference:+.1%}",
            f"{one.noise:.1%}",
            verdict,
        ]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


@contextmanager
def serving(config: Mapping[str, Any], *, folder: Path, weights: Path | None = None) -> Iterator[Server]:
    """Modelyard with one model of this `config.yaml`, and the tokenizer of the words beside it. It keeps no prefixes:
    each client gets prompts that the other one has sent."""
    version = folder / "models" / MODEL / "1"
    version.mkdir(parents=True)
    if weights is not None:
        (version / "model.gguf").symlink_to(weights.resolve())
    scheduler = {"max_lanes": 16, "prefix_cache": False}
    (version.parent / "config.yaml").write_text(yaml.safe_dump({"scheduler": scheduler, **config}))
    tokenizer = folder / "tokenizer"
    random_folder.write_tokenizer(tokenizer, random_folder.SHAPE_79M)
    with servers.modelyard(folder / "models", [MODEL], logs=folder / "logs") as server:
        yield Server(url=f"http://127.0.0.1:{server.port}", tokenizer=tokenizer)


def measure(
    server: Server, python: Path, work: Work, *, clients: int, repeats: int, folder: Path
) -> tuple[list[Told], list[Told]]:
    """The repeats of both in turning order (A B, B A, ...), each pair with prompts of its own. Raises ChildError,
    also where they do not count the same."""
    ours: list[Told] = []
    theirs: list[Told] = []
    for repeat in range(repeats):
        path = folder / f"{clients}-{repeat}.jsonl"
        work.write(path, clients=clients, seed=100 * clients + repeat)
        for is_ours in (True, False)[:: -1 if repeat % 2 else 1]:
            if is_ours:
                ours.append(ask_ours(server, path, clients=clients))
            else:
                theirs.append(ask_theirs(python, server, path, clients=clients))
        if ours[-1].counts != theirs[-1].counts:
            raise ChildError(
                "the clients count differently (requests, failed, tokens in, tokens out): "
                f"{OURS} {ours[-1].counts}, {THEIRS} {theirs[-1].counts}"
            )
    return ours, theirs


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.agreement", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="two short repeats")
    parser.add_argument(
        "--echo", action="store_true", help="an engine whose steps take 20 ms, for busy machines"
    )
    parser.add_argument("--repeats", type=int, help="default 5, quick 2")
    parser.add_argument("--clients", default="1,8", help="default %(default)s")
    parser.add_argument("--threads", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--log", action="store_true", help="append the figures to benchmarks/LOG.md")
    options = parser.parse_args()
    state = Path(os.environ.get("MODELYARD_STATE") or ROOT / ".state").resolve()
    python = state / "environments" / "vllm" / "bin" / "python"
    if not python.exists():
        parser.error(f"there is no {python}; run `make envs`")
    repeats = options.repeats or (2 if options.quick else 5)
    work = Work(rounds=2, output_tokens=32) if options.quick else Work()
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    started, facts = datetime.now(UTC), machine_facts()
    found: list[Compared] = []
    with tempfile.TemporaryDirectory(prefix="agreement-") as name:
        folder = Path(name)
        with _serving(options, folder) as server:
            measure(server, python, Work(rounds=1), clients=4, repeats=1, folder=folder)  # warm
            for clients in (int(one) for one in options.clients.split(",")):
                ours, theirs = measure(server, python, work, clients=clients, repeats=repeats, folder=folder)
                found += compared(clients, ours, theirs)
                print(table(found[-len(FIGURES) :]), file=sys.stderr, flush=True)
    lines = [
        f"## {started:%Y-%m-%d %H:%M} UTC, agreement with an independent client",
        "",
        f"- machine: {facts.get('processor')}; revision {facts.get('revision')}; load before {facts['load before']}",
        f"- command: `{' '.join(['python -m benchmarks.agreement', *sys.argv[1:]])}`",
        f"- runs: {repeats} repeats in turns, {work.rounds} requests a client, {work.prompt_words} tokens in and "
        f"{work.output_tokens} out, no prefix cache; requests and tokens were counted alike in each",
        "- noise: the larger of the two clients' own spreads between repeats, (largest - least) / median",
        "",
        table(found),
    ]
    print("\n".join(lines))
    if options.log:
        with (ROOT / "benchmarks" / "LOG.md").open("a") as log:
            log.write("\n" + "\n".join(lines) + "\n")
    return 0 if all(one.agrees for one in found) else 1


def _serving(options: argparse.Namespace, folder: Path) -> AbstractContextManager[Server]:
    if options.echo:
        return serving({"backend": "echo", "delay_s": ECHO_STEP_S}, folder=folder)
    weights = prepare(Settings(threads=options.threads)).weights[RANDOM]
    config = {"backend": "llamacpp", "threads": options.threads}
    return serving(config, folder=folder, weights=weights)


def _spread(values: Sequence[float]) -> float:
    return (max(values) - min(values)) / median(values)


def _options(values: Mapping[str, object]) -> list[str]:
    return [part for name, value in values.items() for part in (f"--{name}", str(value))]


if __name__ == "__main__":
    try:
        sys.exit(main())
    except (ChildError, servers.ServerError) as problem:
        sys.exit(str(problem))
    except KeyboardInterrupt:
        sys.exit(130)
