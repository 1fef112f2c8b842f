"""`modelyard bench compare`: starts one server, loads each model in turn and gives all of them the same work."""

import tempfile
import time
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path

import msgspec
from rich.console import Console

from benchmarks import servers
from benchmarks.client import Endpoint
from benchmarks.harness.discovery import DiscoveryError, find_model
from benchmarks.harness.machine import watch_memory
from benchmarks.harness.mixes import MIXES, sessions
from benchmarks.harness.result import Run
from benchmarks.harness.run import Work, ask, measure_run
from benchmarks.servers import Server, ServerError

LOAD_TIMEOUT_S = 1800.0
CHECKED = 5
"""So many greedy answers are compared between models."""


def compare(
    repository: Path,
    models: Sequence[str],
    works: Sequence[Work],
    *,
    console: Console,
    state_dir: Path | None = None,
    checked: int = CHECKED,
) -> Iterator[Run]:
    """A run for every model and work. A model that does not load gives runs that say why; the others still run.
    `checked`: how many greedy answers are kept of each, for `agreement`.

    Raises ServerError, with the server's last words, when it does not start.
    """
    with tempfile.TemporaryDirectory(prefix="modelyard-bench-") as folder:
        logs = Path(folder)
        flags = ("--model-control-mode", "explicit")
        try:
            with servers.modelyard(
                repository.resolve(), [], logs=logs, state_dir=state_dir, flags=flags
            ) as server:
                for model in models:
                    config = _config(repository, model)
                    yield from _one(server, model, works, config=config, console=console, checked=checked)
        except ServerError as error:
            said = (logs / "modelyard.log").read_text("utf-8", "replace").splitlines()
            raise ServerError(said[-1].removeprefix("modelyard: ") if said else str(error)) from error


def _one(
    server: Server, model: str, works: Sequence[Work], *, config: str, console: Console, checked: int
) -> Iterator[Run]:
    url = f"http://127.0.0.1:{server.port}/v1"
    endpoint = Endpoint.at(url, model=model)
    with watch_memory(server.pid) as memory:
        began = time.monotonic()
        with console.status(f"loading {model}"):
            refusal = _load(server, model)
        load_s = time.monotonic() - began
        if refusal:
            for work in works:
                yield Run(
                    label=model,
                    url=url,
                    model=model,
                    plan=work.plan,
                    started=datetime.now(UTC),
                    failure=refusal,
                )
            return
        facts, outputs = _about(endpoint, works, checked)
        if config:
            facts = {**facts, "config": config}
        for work in works:
            run = measure_run(
                endpoint,
                work,
                label=model,
                url=url,
                console=console,
                load_s=load_s,
                facts=facts,
                outputs=outputs,
            )
            yield msgspec.structs.replace(run, peak_memory_bytes=memory.look())
            if run.is_partial:
                break
    servers.unload(server, model)


def _about(endpoint: Endpoint, works: Sequence[Work], checked: int) -> tuple[dict[str, str], list[str]]:
    """What the server says of the model, and its answers to the questions that all models get."""
    try:
        facts = find_model(endpoint).facts
    except DiscoveryError:
        facts = {}
    if not checked or any(work.plan.mix == "embeddings" for work in works):
        return facts, []
    chat = MIXES["chat"]
    asked = sessions(chat, chat.sizes, seed=0, count=checked, ignore_eos=False)
    answers = ask(endpoint, asked, timeout_s=works[0].plan.timeout_s)
    # Answers that failed alike would count as equal.
    return facts, [] if any(one.error for one in answers) else [one.text for one in answers]


def _config(repository: Path, model: str) -> str:
    """The text of the model's configuration, as it was when it was measured; empty where it has none."""
    name = model.partition(":")[0]
    places = (repository / name / "config.yaml", repository / f"{name}.yaml")
    return next((path.read_text("utf-8", "replace") for path in places if path.is_file()), "")


def agreement(runs: Sequence[Run]) -> dict[str, str]:
    """How many of the checked answers each model gave as the first one did, by label."""
    answered = {run.label: run.outputs for run in runs if run.outputs}
    if not answered:
        return {}
    first, *others = answered
    reference = answered[first]
    return {
        label: f"{sum(a == b for a, b in zip(answered[label], reference, strict=False))} of {len(reference)} as {first}"
        for label in others
    }


def _load(server: Server, model: str) -> str:
    """Why the model cannot be loaded; empty where it was."""
    try:
        servers.load(server, model, timeout_s=LOAD_TIMEOUT_S)
    except ServerError as error:
        return str(error)
    return ""
