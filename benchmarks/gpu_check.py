"""`python -m benchmarks.gpu_check`: proves on a machine with NVIDIA GPUs that every engine which computes on them does.

Makes the engines' environments, serves the demo model through each of them in the forms that it reads, asks over HTTP,
compares the answers, measures tokens/s and GPU memory, and appends the table to benchmarks/LOG.md. One engine's
failure is shown and the others still run. Exits 1 where one failed, or where there is no GPU.
"""

import argparse
import asyncio
import json
import os
import platform
import shutil
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import msgspec

from benchmarks import servers
from benchmarks.client import run_load
from benchmarks.equivalence import questions
from benchmarks.gpu_models import LANES, ROOT, CannotMake, Check, Model, checks, make_weights, write_model
from benchmarks.measure import summarise
from benchmarks.servers import Server
from benchmarks.workload import Load, Request

MAX_TOKENS = 64
LOAD_TIMEOUT_S = 1800.0
"""exllamav2 compiles its extension when it is first loaded."""


class Gpu(msgspec.Struct, frozen=True):
    name: str
    driver: str
    used_mib: int


class Outcome(msgspec.Struct, frozen=True, kw_only=True):
    """What became of a model. `failure` says why it is not as it should be; times in seconds, memory on all GPUs."""

    model: Model
    engine: str = ""
    load_s: float = 0.0
    gpu_mib: int = 0
    answers: tuple[str, ...] = ()
    one_client: float = 0.0
    all_clients: float = 0.0
    failure: str = ""

    @property
    def is_left_out(self) -> bool:
        return bool(self.model.left_out) and self.model.left_out in self.failure

    def num_equal(self, reference: Sequence[str]) -> int:
        return sum(ours == theirs for ours, theirs in zip(self.answers, reference, strict=False))


class Failed(Exception):
    """A check cannot go on; the message is shown in the table."""


def list_gpus() -> tuple[Gpu, ...]:
    """The GPUs that NVIDIA's own tool shows; none where it is not there or has nothing to show."""
    words = ["nvidia-smi", "--query-gpu=name,driver_version,memory.used", "--format=csv,noheader,nounits"]
    try:
        done = subprocess.run(words, capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return ()
    rows = [[cell.strip() for cell in line.split(",")] for line in done.stdout.splitlines() if line.strip()]
    return tuple(Gpu(name, driver, int(used)) for name, driver, used in rows)


class Place(msgspec.Struct, frozen=True, kw_only=True):
    """Where a run keeps what it makes. `wheels`: packages come from that folder alone. `is_here`: engines run in this
    Python, which has them, and no environments are made."""

    state: Path
    work: Path
    wheels: Path | None = None
    is_here: bool = False

    def environment(self, check: Check) -> str:
        return "" if self.is_here else check.environment

    def python(self, check: Check) -> Path:
        """The interpreter of the engine."""
        name = self.environment(check)
        return self.state / "environments" / name / "bin" / "python" if name else Path(sys.executable)


def ensure_environment(check: Check, place: Place) -> None:
    """Make the environment of an engine, or bring it up to date. Raises Failed with the last line that was said."""
    name = place.environment(check)
    if not name:
        return
    command = shutil.which("modelyard", path=Path(sys.executable).parent)
    if command is None:
        raise Failed(f"no modelyard command beside {sys.executable}; install the project first")
    words = [command, "env", "create", name, "--device", "cuda", "--refresh", f"--state-dir={place.state}"]
    environ = dict(os.environ)
    if place.wheels is not None:
        settings = place.work / "uv.toml"
        settings.write_text("no-index = true\n")
        words.append(f"--find-links={place.wheels}")
        environ["UV_CONFIG_FILE"] = str(settings)
    done = subprocess.run(
        words, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=environ, check=False
    )
    print(done.stdout, flush=True)
    if done.returncode:
        last = done.stdout.strip().splitlines()[-1:] or [f"status {done.returncode}"]
        raise Failed(f"the environment could not be made: {last[0]}")


def run_check(check: Check, place: Place) -> Iterator[Outcome]:
    """Serve and ask every model of `check`, each on its own; a failure is an outcome like any other."""
    try:
        ensure_environment(check, place)
    except Failed as failure:
        yield from (Outcome(model=model, failure=str(failure)) for model in check.models)
        return
    for model in check.models:
        with tempfile.TemporaryDirectory(dir=place.work) as folder:
            yield _serve(model, check, place, Path(folder))


def _serve(model: Model, check: Check, place: Place, folder: Path) -> Outcome:
    try:
        weights = make_weights(model.weights, place.work, python=place.python(check))
        write_model(folder / "models", model, weights, environment=place.environment(check))
        logs = place.work / "logs" / model.name
        with servers.modelyard(folder / "models", [], logs=logs, state_dir=place.state) as server:
            return _ask(server, model)
    except (CannotMake, Failed, servers.ServerError, OSError) as error:
        return Outcome(model=model, failure=str(error))


def _ask(server: Server, model: Model) -> Outcome:
    before = sum(gpu.used_mib for gpu in list_gpus())
    began = time.monotonic()
    status, body = post(server, f"/v2/repository/models/{model.name}/load", {}, timeout_s=LOAD_TIMEOUT_S)
    load_s = time.monotonic() - began
    if model.refused:
        return _refusal(model, status, body)
    if status != 200:
        raise Failed(_words(body))
    config = json.loads(server.ask(f"/v2/models/{model.name}/config") or "{}")
    answers = tuple(_answer(server, model, question) for question in questions())
    return Outcome(
        model=model,
        engine=config.get("parameters", {}).get("engine", {}).get("string_value", ""),
        load_s=load_s,
        gpu_mib=sum(gpu.used_mib for gpu in list_gpus()) - before,
        answers=answers,
        one_client=_tokens_per_s(server, model, clients=1),
        all_clients=_tokens_per_s(server, model, clients=LANES),
    )


def _refusal(model: Model, status: int, body: dict[str, Any]) -> Outcome:
    said = _words(body)
    if status == 200:
        raise Failed(f"it was loaded, and should have been refused with {model.refused!r}")
    return Outcome(
        model=model, failure="" if model.refused in said else f"it was refused with other words: {said}"
    )


def _answer(server: Server, model: Model, question: str) -> str:
    asked = {
        "model": model.name,
        "messages": [{"role": "user", "content": question}],
        "temperature": 0,
        "max_tokens": MAX_TOKENS,
    }
    status, body = post(server, "/v1/chat/completions", asked, timeout_s=120.0)
    if status != 200:
        raise Failed(_words(body))
    return str(body["choices"][0]["message"]["content"])


def _tokens_per_s(server: Server, model: Model, *, clients: int) -> float:
    requests = [Request(f"{number}. {text}", MAX_TOKENS) for number, text in enumerate(questions())]
    load = Load(clients=clients, requests=requests[: max(4, 2 * clients)])
    summary = summarise(asyncio.run(run_load(server.endpoint(model.name), load)))
    if summary.errors:
        raise Failed(f"{summary.errors} of {summary.requests} requests failed: {summary.first_error}")
    return summary.tokens_per_s


def post(server: Server, path: str, body: dict[str, Any], *, timeout_s: float) -> tuple[int, dict[str, Any]]:
    """Status and JSON body of an answer."""
    request = urllib.request.Request(
        f"http://127.0.0.1:{server.port}{path}",
        data=json.dumps(body).encode(),
        headers={"content-type": "application/json"},
    )
    try:
        with urllib.request.urlopen(request, timeout=timeout_s) as answer:
            return answer.status, json.loads(answer.read() or b"{}")
    except urllib.error.HTTPError as error:
        return error.code, json.loads(error.read() or b"{}")


def _words(body: dict[str, Any]) -> str:
    error = body.get("error", body)
    return str(error.get("message", error) if isinstance(error, dict) else error).rstrip("; ")


def verdict(outcome: Outcome, reference: Sequence[str]) -> str:
    """What is wrong with an outcome; empty where nothing is."""
    if outcome.is_left_out:
        return ""
    if outcome.failure or outcome.model.refused:
        return outcome.failure
    equal = outcome.num_equal(reference)
    if equal < outcome.model.at_least:
        return f"only {equal} answers are those of the first row"
    return "" if outcome.gpu_mib > 0 else "no GPU memory was taken: it did not compute on one"


def render(outcomes: Sequence[Outcome], gpus: Sequence[Gpu], *, when: datetime) -> str:
    """A section of Markdown. Answers are compared with those of the first model that gave some."""
    reference = next((one.answers for one in outcomes if one.answers), ())
    names = ", ".join(sorted({gpu.name for gpu in gpus}))
    lines = [
        f"## {when:%Y-%m-%d %H:%M} UTC, on GPUs (`make gpu-check`)",
        "",
        f"- machine: {len(gpus)} x {names}, driver {gpus[0].driver}, {os.cpu_count()} cores, {platform.platform()}",
        f"- python: {platform.python_version()}",
        "- work: the demo model, greedy; tokens/s of streamed completions of "
        f"{MAX_TOKENS} tokens by 1 and by {LANES} clients",
        "",
        f"| model | engine | equal of {len(reference)} | tokens/s, 1 | tokens/s, {LANES} | GPU memory | load | |",
        "| --- | --- | --- | --- | --- | --- | --- | --- |",
    ]
    for one in outcomes:
        mark = _mark(one, verdict(one, reference))
        figures = ["-"] * 5
        if one.answers:
            figures = [
                str(one.num_equal(reference)),
                f"{one.one_client:.0f}",
                f"{one.all_clients:.0f}",
                f"{one.gpu_mib} MiB",
                f"{one.load_s:.1f} s",
            ]
        lines.append(f"| {' | '.join([one.model.label, one.engine or '-', *figures, mark])} |")
    return "\n".join(lines)


def _mark(outcome: Outcome, problem: str) -> str:
    if problem:
        return f"FAILED: {problem}"
    if outcome.is_left_out:
        return f"left out: {outcome.failure}"
    return "refused, as it should be" if outcome.model.refused else "well"


def run(
    chosen: Sequence[Check],
    place: Place,
    *,
    say: Callable[[str], None] = lambda line: print(line, flush=True),
) -> list[Outcome]:
    """All checks, one after the other."""
    outcomes = []
    for check in chosen:
        say(f"... {check.name}")
        for outcome in run_check(check, place):
            say(f"{outcome.model.label}: {outcome.failure or 'done'}")
            outcomes.append(outcome)
    return outcomes


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.gpu_check", description=__doc__)
    parser.add_argument("--state-dir", type=Path, default=ROOT / ".state", help="where environments are made")
    parser.add_argument("--wheels", type=Path, help="take packages from this folder, and from nowhere else")
    parser.add_argument(
        "--here", action="store_true", help="run the engines in this Python; make no environments"
    )
    parser.add_argument("--only", default="", help="names of checks, separated by commas")
    parser.add_argument("--no-log", action="store_true", help="leave benchmarks/LOG.md as it is")
    given = parser.parse_args(arguments)
    gpus = list_gpus()
    if not gpus:
        print(
            "There is no NVIDIA GPU here (nvidia-smi shows none), so nothing can be checked.", file=sys.stderr
        )
        return 1
    chosen = [one for one in checks(len(gpus)) if not given.only or one.name in given.only.split(",")]
    if not chosen:
        parser.error(f"there are the checks {', '.join(one.name for one in checks(len(gpus)))}")
    work = given.state_dir.absolute() / "gpu-check"
    work.mkdir(parents=True, exist_ok=True)
    place = Place(
        state=given.state_dir.absolute(),
        work=work,
        wheels=given.wheels.absolute() if given.wheels else None,
        is_here=given.here,
    )
    outcomes = run(chosen, place)
    text = render(outcomes, gpus, when=datetime.now(UTC))
    print(text)
    if not given.no_log:
        with (ROOT / "benchmarks" / "LOG.md").open("a") as log:
            log.write(f"\n{text}\n")
    reference = next((one.answers for one in outcomes if one.answers), ())
    return 1 if any(verdict(one, reference) for one in outcomes) else 0


if __name__ == "__main__":
    sys.exit(main())
