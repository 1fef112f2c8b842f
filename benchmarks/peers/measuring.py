"""Gives Modelyard and a peer the same work in turns, both up and whoever waits idle; every repeat is a run of each."""

import os
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import msgspec
import yaml
from rich.console import Console

from benchmarks import servers
from benchmarks.client import Call, Endpoint, completion_call
from benchmarks.harness.result import REPEAT, Plan, Run
from benchmarks.harness.run import Work, ask, measure_run
from benchmarks.harness.work import Arrival, Session, Sizes
from benchmarks.peers.catalog import MODEL, Peer, Place
from benchmarks.peers.environments import install, version
from benchmarks.servers import ServerError
from benchmarks.workload import Request, distinct

OURS = "Modelyard"
CHECKED = 5
"""So many greedy answers are compared between the two."""


class Size(msgspec.Struct, frozen=True, kw_only=True):
    """How much is measured: `rounds` requests of each client, of a client alone twice as many."""

    repeats: int = 5
    rounds: int = 3
    prompt_words: int = 64
    output_tokens: int = 64
    timeout_s: float = 120.0

    def requests(self, clients: int) -> int:
        return self.rounds * (2 if clients == 1 else clients)


QUICK = Size(repeats=1, rounds=1, output_tokens=32)


class PeersBench(msgspec.Struct, frozen=True, kw_only=True):
    """What all peers share. `state` is where environments are and what is made is kept."""

    state: Path
    logs: Path
    threads: int
    size: Size
    console: Console
    find_links: tuple[str, ...] = ()


def measure(peer: Peer, bench: PeersBench) -> Iterator[Run]:
    """A run for each system, number of clients and repeat; `settings` has the repeat.

    Raises ChildError or ServerError where the two cannot be compared, KeyboardInterrupt when it was broken off.
    """
    python = install(peer.name, root=bench.state / "peers", find_links=bench.find_links)
    weights = peer.weights.make(bench.state)
    about = {peer.label: f"{peer.distribution} {version(python, peer.distribution)}"}
    logs = bench.logs / peer.name
    with tempfile.TemporaryDirectory(prefix="peers-", dir=_scratch(bench.state)) as folder, ExitStack() as up:
        repository = _repository(Path(folder), weights, {**peer.config, "threads": bench.threads})
        place = Place(python=python, weights=weights, threads=bench.threads, logs=logs)
        with bench.console.status(f"starting {peer.label}"):
            theirs = up.enter_context(peer.start(place))
        with bench.console.status(f"starting {OURS} beside {peer.label}"):
            ours = up.enter_context(servers.modelyard(repository, [MODEL], logs=logs, state_dir=bench.state))
        name = str(weights) if peer.is_named_by_path else MODEL
        running = {OURS: ours.endpoint(MODEL), peer.label: theirs.endpoint(name)}
        said = _answers(peer, running, bench.size)
        for clients in peer.clients:
            for repeat in range(bench.size.repeats):
                work = make_work(peer, bench.size, clients=clients, repeat=repeat)
                for label in list(running)[:: -1 if repeat % 2 else 1]:
                    run = measure_run(
                        running[label],
                        work,
                        label=label,
                        url=f"http://127.0.0.1:{running[label].port}/v1",
                        console=bench.console,
                        outputs=said[label] if not repeat else [],
                        facts={"server": about[label]} if label in about else {},
                        settings={REPEAT: repeat},
                    )
                    if run.is_partial:
                        raise KeyboardInterrupt
                    if run.measures is None or run.measures.failed == run.measures.requests:
                        raise ServerError(f"{label}: {_why(run)}")
                    yield run


def make_work(peer: Peer, size: Size, *, clients: int, repeat: int) -> Work:
    """Completions of distinct words, each one token in every tokenizer here; the first repeat is warmed up."""
    seed = 1000 * clients + repeat
    made = _sessions(peer, size, size.requests(clients), seed=seed, tokens=size.output_tokens)
    warm = _sessions(peer, size, 0 if repeat else min(clients, 4), seed=seed + 500, tokens=8)
    plan = Plan(
        mix=f"completions, {peer.weights.about}",
        sizes=Sizes(prompt_words=size.prompt_words, output_tokens=size.output_tokens),
        sessions=len(made),
        seed=seed,
        arrival=Arrival(clients=clients),
        warm_up=len(warm),
        ignore_eos="ignore_eos" not in peer.without,
        timeout_s=size.timeout_s,
    )
    return Work(plan, warm, made)


def _sessions(peer: Peer, size: Size, count: int, *, seed: int, tokens: int) -> list[Session]:
    if not count:
        return []
    requests = distinct(
        count,
        prompt_words=size.prompt_words,
        max_tokens=tokens,
        seed=seed,
        vocabulary=peer.weights.vocabulary,
    )
    return [Session(calls=(_call(peer, one),)) for one in requests]


def _call(peer: Peer, request: Request) -> Call:
    call = completion_call(request)
    body = {name: value for name, value in call.body.items() if name not in peer.without}
    return msgspec.structs.replace(call, body={**body, **peer.body})


def _answers(peer: Peer, running: Mapping[str, Endpoint], size: Size) -> dict[str, list[str]]:
    """What each says to the same prompts, in one piece and counted by itself. Raises ServerError where one fails or
    they do not count the same tokens: the work would not be the same."""
    asked = _sessions(peer, size, CHECKED, seed=7, tokens=16)
    plain = [Session(calls=(_unstreamed(one.calls[0]),)) for one in asked]
    answered = {label: ask(endpoint, plain, timeout_s=size.timeout_s) for label, endpoint in running.items()}
    for label, answers in answered.items():
        if error := next((one.error for one in answers if one.error), None):
            raise ServerError(f"{label}: {error}")
    counts = {
        label: [(one.prompt_tokens, one.completion_tokens) for one in answers]
        for label, answers in answered.items()
    }
    if len({tuple(one) for one in counts.values()}) > 1:
        told = "; ".join(f"{label} {one[0]}" for label, one in counts.items())
        raise ServerError(f"not the same work: prompt and completion tokens of the first request are {told}")
    return {label: [one.text for one in answers] for label, answers in answered.items()}


def _unstreamed(call: Call) -> Call:
    body = {name: value for name, value in call.body.items() if name != "stream_options"}
    return msgspec.structs.replace(call, body=body | {"stream": False})


def _why(run: Run) -> str:
    errors = run.measures.errors if run.measures else {}
    return run.failure or next(iter(errors), "nothing was measured")


def _repository(folder: Path, weights: Path, config: Mapping[str, Any]) -> Path:
    version_folder = folder / MODEL / "1"
    if weights.is_dir():
        shutil.copytree(weights, version_folder, copy_function=os.link)
    else:
        version_folder.mkdir(parents=True)
        (version_folder / weights.name).symlink_to(weights.resolve())
    (folder / MODEL / "config.yaml").write_text(yaml.safe_dump(dict(config), sort_keys=False))
    return folder


def _scratch(state: Path) -> Path:
    """On the file system of the weights, so that they can be linked."""
    folder = state / "benchmarks"
    folder.mkdir(parents=True, exist_ok=True)
    return folder
