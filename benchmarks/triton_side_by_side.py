"""`python -m benchmarks.triton_side_by_side [--quick]`: Triton's protocol beside a real tritonserver, in one run.

An echo streams 32 tokens a request over HTTP and over gRPC to 1 and to 32 clients; requests/s and the 99th percentile
of a request's time. The peer is Triton's Python backend with the same tensors and answers (`make test-triton` installs
it). Exits 1 when a target is missed.
"""

import argparse
import asyncio
import os
import sys
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path

import msgspec

from benchmarks import servers
from benchmarks.bench import Run, in_turns
from benchmarks.figures import Figure, Target, compare, table
from benchmarks.measure import Summary, summarise
from benchmarks.triton_client import Endpoint, run_load
from benchmarks.workload import Load, Request

OURS, PEER = "Modelyard", "tritonserver"
MODEL = "echo"
CLIENTS = (1, 32)
TOKENS = 32
LETTERS = 48
_OUR_CONFIG = "backend: echo\nscheduler: {max_lanes: 32, cached_lanes: 0}\n"
_PEER_CONFIG = 'backend: "vllm"\ninstance_group [{ count: 1 kind: KIND_CPU }]\n'
_AT_LEAST_AS_GOOD = Target(1.0)


class Size(msgspec.Struct, frozen=True, kw_only=True):
    """How much is measured: requests of one client alone, and of each of 32."""

    alone: int = 300
    each: int = 40
    repeats: int = 3

    def requests(self, clients: int) -> int:
        return self.alone if clients == 1 else clients * self.each


QUICK = Size(alone=40, each=5, repeats=1)


class Ports(msgspec.Struct, frozen=True):
    """Where one server is asked."""

    http: int
    grpc: int

    def endpoint(self, *, over_grpc: bool) -> Endpoint:
        return Endpoint(port=self.grpc if over_grpc else self.http, model=MODEL, over_grpc=over_grpc)


def write_models(root: Path) -> tuple[Path, Path]:
    """Make the two repositories: ours and the peer's."""
    found = root / "ours", root / "peer"
    for repository, name, config in zip(
        found, ("config.yaml", "config.pbtxt"), (_OUR_CONFIG, _PEER_CONFIG), strict=True
    ):
        (repository / MODEL / "1").mkdir(parents=True)
        (repository / MODEL / name).write_text(config)
    return found


def make_load(clients: int, count: int, seed: int) -> Load:
    """Texts that begin differently, of which so much comes back."""
    texts = (
        f"{seed} {number} is the number of this text; " + "abcdefghijklmnopqrstuvwxyz"
        for number in range(count)
    )
    return Load(clients=clients, requests=[Request(text[:LETTERS], TOKENS) for text in texts])


async def measure(ports: dict[str, Ports], size: Size) -> list[Figure]:
    """Both faces at all numbers of clients; the systems take turns, and whoever waits is idle."""
    figures: list[Figure] = []
    for over_grpc in (True, False):
        for clients in CLIENTS:
            runs = {
                system: _run(place.endpoint(over_grpc=over_grpc), clients, size)
                for system, place in ports.items()
            }
            for run in runs.values():
                await run(-1)  # the first requests of a server are slower
            samples = await in_turns(runs, size.repeats)
            face = "gRPC" if over_grpc else "HTTP"
            found = _figures(f"{face}, {clients} client{'s' if clients > 1 else ''}", samples)
            print(table(found), file=sys.stderr, flush=True)
            figures += found
    return figures


def _run(endpoint: Endpoint, clients: int, size: Size) -> Run:
    async def run(repeat: int) -> Summary:
        count = size.requests(clients) if repeat >= 0 else 2 * clients
        return summarise(await run_load(endpoint, make_load(clients, count, seed=repeat + 1)))

    return run


def _figures(name: str, samples: dict[str, list[Summary]]) -> list[Figure]:
    def figure(
        what: str, pick: Callable[[Summary], float | None], unit: str, *, less_is_better: bool
    ) -> Figure:
        return compare(
            f"{name}, {what}",
            samples,
            pair=(OURS, PEER),
            pick=pick,
            unit=unit,
            target=_AT_LEAST_AS_GOOD,
            less_is_better=less_is_better,
        )

    return [
        figure("requests", lambda summary: summary.requests_per_s, "req/s", less_is_better=False),
        figure("p99 latency", lambda summary: summary.latency_p99_s, "s", less_is_better=True),
    ]


def render(figures: Sequence[Figure], *, engine_s: float) -> str:
    """All figures, with what a reader needs to judge them; `engine_s`: how long the steps of our engine took."""
    summaries = [one for figure in figures[::2] for many in figure.samples.values() for one in many]
    cpu_s, wall_s = (sum(getattr(one, name) for one in summaries) for name in ("client_cpu_s", "wall_s"))
    share = f"{cpu_s / wall_s:.0%} of a core" if wall_s else "nothing measured"
    tokens = sum(one.completion_tokens for figure in figures[::2] for one in figure.samples.get(OURS, []))
    lines = [
        f"- machine: {os.cpu_count()} cores, shared by server and clients",
        f"- work: {TOKENS} tokens a request; a client keeps its connection, or its gRPC stream",
        f"- client CPU: {share}",
        f"- steps of our echo engine: {engine_s / tokens * 1e6:.0f} us a token"
        if tokens
        else "- nothing measured",
    ]
    return "\n".join([*lines, "", table(figures)])


async def compare_servers(size: Size) -> tuple[list[Figure], float]:
    """Start both servers and measure them; the figures, and how long the steps of our engine took in all."""
    with tempfile.TemporaryDirectory() as root:
        ours, peer = write_models(Path(root))
        logs, grpc_ports = Path(root) / "logs", (servers.free_port(), servers.free_port())
        with (
            servers.modelyard(ours, [MODEL], logs=logs, grpc_port=grpc_ports[0]) as modelyard,
            servers.tritonserver(peer, MODEL, logs=logs, grpc_port=grpc_ports[1]) as tritonserver,
        ):
            ports = {
                OURS: Ports(modelyard.port, grpc_ports[0]),
                PEER: Ports(tritonserver.port, grpc_ports[1]),
            }
            figures = await measure(ports, size)
            return figures, modelyard.metric("modelyard_step_seconds_sum")


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.triton_side_by_side", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="one short repeat of everything")
    size = QUICK if parser.parse_args().quick else Size()
    figures, engine_s = asyncio.run(compare_servers(size))
    print(render(figures, engine_s=engine_s))
    return 0 if all(figure.is_met for figure in figures) else 1


if __name__ == "__main__":
    sys.exit(main())
