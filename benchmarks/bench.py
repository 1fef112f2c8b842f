"""What scenarios are made of: the settings they share, servers side by side, runs in turns, warm-up."""

from collections.abc import Awaitable, Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path

import msgspec

from benchmarks import servers
from benchmarks.client import run_load
from benchmarks.measure import Summary, summarise
from benchmarks.models import BenchModels, Settings, configure
from benchmarks.servers import Server
from benchmarks.workload import Load, distinct

OURS, PEER, BARE = "Modelyard", "llama.cpp", "bare loop"
Run = Callable[[int], Awaitable[Summary]]


class Bench(msgspec.Struct, frozen=True, kw_only=True):
    """What all scenarios share; `scale` is the number of requests per client in a throughput run."""

    settings: Settings
    models: BenchModels
    logs: Path
    repeats: int = 3
    scale: int = 3

    def weights(self, model: str) -> Path:
        if model not in self.models.weights:
            raise servers.ServerError(f"there is no {model} model; make it first")
        return self.models.weights[model]

    def with_lanes(self, lanes: int) -> "Bench":
        """The same with so many lanes for both servers."""
        return msgspec.structs.replace(self, settings=msgspec.structs.replace(self.settings, lanes=lanes))

    @contextmanager
    def pair(self, model: str, *, prompt_cache_mib: int = 0) -> Iterator[dict[str, Server]]:
        """Modelyard and llama.cpp's server side by side on one model, both warm; whoever waits is idle. The latter may
        keep `prompt_cache_mib` of prompts outside of its KV pool."""
        limits = self.settings
        configure(self.models.repository / model, limits)
        with ExitStack() as stack:
            ours = servers.modelyard(self.models.repository, [model], logs=self.logs)
            peer = servers.llamacpp(
                self.weights(model),
                lanes=limits.lanes,
                kv_tokens=limits.kv_tokens,
                threads=limits.threads,
                logs=self.logs,
                prompt_cache_mib=prompt_cache_mib,
            )
            yield {OURS: stack.enter_context(ours), PEER: stack.enter_context(peer)}


async def in_turns(runs: Mapping[str, Run], repeats: int) -> dict[str, list[Summary]]:
    """Run every system once a repeat, in turning order (A B, B A, ...), so that drift hits all alike."""
    samples: dict[str, list[Summary]] = {system: [] for system in runs}
    for repeat in range(repeats):
        for system in list(runs)[:: -1 if repeat % 2 else 1]:
            samples[system].append(await runs[system](repeat))
    return samples


def http_runs(running: Mapping[str, Server], model: str, load: Callable[[int], Load]) -> dict[str, Run]:
    def runs_of(server: Server) -> Run:
        async def run(repeat: int) -> Summary:
            return summarise(await run_load(server.endpoint(model), load(repeat)))

        return run

    return {system: runs_of(server) for system, server in running.items()}


async def warm_up(running: Mapping[str, Server], model: str) -> None:
    load = Load(clients=4, requests=distinct(4, prompt_words=32, max_tokens=8, seed=1))
    for system, server in running.items():
        summary = summarise(await run_load(server.endpoint(model), load))
        if summary.errors:
            raise servers.ServerError(f"{system} fails the warm-up: {summary.first_error}; see {server.log}")
