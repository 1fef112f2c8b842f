"""What the engines' benchmarks share: where environments are, models served in turn, the work and its figures."""

import asyncio
import json
import os
import shutil
from collections.abc import Awaitable, Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec
import yaml

from benchmarks import servers
from benchmarks.bench import Run
from benchmarks.child import ChildError
from benchmarks.client import run_load
from benchmarks.engines import random_folder
from benchmarks.figures import Figure, Target, compare
from benchmarks.measure import Summary, summarise
from benchmarks.servers import Server
from benchmarks.workload import Load, distinct

ROOT = Path(__file__).parents[2]
DEMO_FOLDER = ROOT / "examples" / "demo_model" / "hf"


WAITING = {"OMP_WAIT_POLICY": "active", "GOMP_SPINCOUNT": "1000"}
"""How threads wait for one another in a worker of the server's, and so in a script beside it."""


class EngineBench(msgspec.Struct, frozen=True, kw_only=True):
    """`state` is where environments and what was made for them lie; `scale` requests a client in each run."""

    state: Path
    logs: Path
    threads: int
    repeats: int = 3
    scale: int = 3

    def python(self, environment: str) -> Path:
        """The interpreter of an environment. Raises FileNotFoundError with what to do."""
        found = self.state / "environments" / environment / "bin" / "python"
        if not found.exists():
            raise FileNotFoundError(f"there is no {found}; run `make envs`")
        return found

    def repository(self, name: str, models: Mapping[str, tuple[Path, Mapping[str, Any]]]) -> Path:
        """A fresh repository below the state folder: for each model a folder of weights and its configuration."""
        root = self.state / "benchmarks" / name
        shutil.rmtree(root, ignore_errors=True)
        for model, (weights, config) in models.items():
            (root / model).mkdir(parents=True)
            shutil.copytree(weights, root / model / "1")
            settings = {"threads": self.threads, **config}
            (root / model / "config.yaml").write_text(yaml.safe_dump(settings, sort_keys=False))
        return root

    def random_79m(self) -> Path:
        """A folder of random weights of 79 million parameters, made once."""
        return random_folder.kept(self.state)


class Work(msgspec.Struct, frozen=True, kw_only=True):
    """Distinct prompts of `prompt_words`, and `tokens` of output for each, give or take the share `spread`."""

    tokens: int
    prompt_words: int
    spread: float = 0.0

    def load(self, repeat: int, clients: int, *, requests: int) -> Load:
        """The work of one run. No two runs share a prompt: the servers keep the prefixes that they have seen."""
        made = distinct(
            requests,
            prompt_words=self.prompt_words,
            max_tokens=self.tokens,
            seed=5000 + 100 * repeat + clients,
            spread=self.spread,
            vocabulary=random_folder.SHAPE_79M.vocabulary,
        )
        return Load(clients=clients, requests=made)


MeasureModel = Callable[[Server, str, Path], Awaitable[list[Figure]]]


async def measure_in_turn(
    bench: EngineBench,
    engine: str,
    folders: Mapping[str, Path],
    config: Mapping[str, Any],
    *,
    measure: MeasureModel,
) -> list[Figure]:
    """Serve the models of these folders of weights one after the other, and `measure` each."""
    repository = bench.repository(engine, {name: (folder, config) for name, folder in folders.items()})
    figures: list[Figure] = []
    with servers.modelyard(repository, [], logs=bench.logs, state_dir=bench.state) as server:
        for name, folder in folders.items():
            servers.load(server, name)
            figures += await measure(server, name, folder)
            servers.unload(server, name)
    return figures


def served(server: Server, model: str, load: Callable[[int], Load]) -> Run:
    """A run over HTTP."""

    async def run(repeat: int) -> Summary:
        return summarise(await run_load(server.endpoint(model), load(repeat)))

    return run


def bare(python: Path, script: Path, load: Callable[[int], Load], **job: Any) -> Run:
    """A run of a script without a server, which gets the load's prompts and what else it needs."""

    async def run(repeat: int) -> Summary:
        requests = load(repeat).requests
        prompts = [request.prompt for request in requests]
        return await run_bare(
            python, script, {**job, "prompts": prompts, "max_tokens": requests[0].max_tokens}
        )

    return run


def speeds(
    engine: str, model: str, samples: Mapping[str, list[Summary]], pairs: Sequence[tuple[str, str, Target]]
) -> list[Figure]:
    """A figure of tokens/s for each pair of runs and its target."""
    return [
        compare(
            f"{engine}, {model}, {ours} over {other}",
            samples,
            pair=(ours, other),
            pick=lambda summary: summary.tokens_per_s,
            unit="tok/s",
            target=target,
        )
        for ours, other, target in pairs
    ]


async def run_bare(python: Path, script: Path, job: Mapping[str, Any]) -> Summary:
    """What a script of another Python measured: `wall_s`, `prompt_tokens` and `completion_tokens`."""
    # Isolated: the script's own folder has modules named like the engines.
    process = await asyncio.create_subprocess_exec(
        *(str(python), "-I", str(script)),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        env={**os.environ, **WAITING, "OMP_NUM_THREADS": str(job["threads"])},
    )
    try:
        output, _ = await process.communicate(json.dumps(job).encode())
    except asyncio.CancelledError:
        process.kill()
        await process.wait()
        raise
    if process.returncode:
        raise ChildError(f"{script.name} ended with code {process.returncode}; its output is above")
    found = json.loads(output)
    return Summary(tokens_per_s=found["completion_tokens"] / found["wall_s"], **found)
