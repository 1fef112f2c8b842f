"""Triton's protocol beside a real tritonserver: an echo on both sides, so that what is measured is the protocol."""

import asyncio
import tempfile
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import msgspec

from benchmarks import servers
from benchmarks.harness.measures import measure as make_measures
from benchmarks.harness.result import REPEAT, Plan, Run, compact
from benchmarks.harness.work import Arrival, Slo
from benchmarks.peers.catalog import ProtocolPeer
from benchmarks.peers.measuring import OURS, PeersBench
from benchmarks.servers import ServerError
from benchmarks.triton_client import Endpoint, run_load
from benchmarks.triton_side_by_side import CLIENTS, MODEL, QUICK, Ports, make_load, write_models
from benchmarks.triton_side_by_side import Size as LoadSize


def measure(peer: ProtocolPeer, bench: PeersBench) -> Iterator[Run]:
    """As `measuring.measure`, with a client of Triton's protocol in a process of its own."""
    load_size = QUICK if bench.size.repeats == 1 else LoadSize()
    logs, grpc_ports = bench.logs / peer.name, (servers.free_port(), servers.free_port())
    with tempfile.TemporaryDirectory(prefix="peers-") as folder:
        ours, theirs = write_models(Path(folder))
        with (
            servers.tritonserver(theirs, MODEL, logs=logs, grpc_port=grpc_ports[1]) as tritonserver,
            servers.modelyard(ours, [MODEL], logs=logs, grpc_port=grpc_ports[0]) as modelyard,
        ):
            ports = {
                OURS: Ports(modelyard.port, grpc_ports[0]),
                peer.label: Ports(tritonserver.port, grpc_ports[1]),
            }
            for over_grpc in (True, False):
                for clients in CLIENTS:
                    for repeat in range(-1, bench.size.repeats):
                        count = load_size.requests(clients) if repeat >= 0 else 2 * clients
                        for label in list(ports)[:: -1 if repeat % 2 else 1]:
                            endpoint = ports[label].endpoint(over_grpc=over_grpc)
                            with bench.console.status(f"{label}, {clients} clients"):
                                run = _run(endpoint, label, clients=clients, count=count, repeat=repeat)
                            if not run.measures or run.measures.failed:
                                errors = run.measures.errors if run.measures else {}
                                raise ServerError(f"{label}: {next(iter(errors), 'nothing was measured')}")
                            if repeat >= 0:  # the first requests of a server are slower
                                yield run


def _run(endpoint: Endpoint, label: str, *, clients: int, count: int, repeat: int) -> Run:
    started = datetime.now(UTC)
    found = asyncio.run(run_load(endpoint, make_load(clients, count, seed=repeat + 1)))
    face = "gRPC" if endpoint.over_grpc else "HTTP"
    plan = Plan(
        mix=f"echo over {face}",
        sizes=None,
        sessions=count,
        seed=repeat + 1,
        arrival=Arrival(clients=clients),
        warm_up=2 * clients,
        ignore_eos=False,
    )
    measures = make_measures(found.records, slo=Slo()) if found.records else None
    if measures:
        # An echo's tokens come in bursts: the times between them say nothing.
        measures = msgspec.structs.replace(measures, itl=None, tpot=None)
    began = min((one.start_s for one in found.records), default=0.0)
    return Run(
        label=label,
        url=f"127.0.0.1:{endpoint.port}",
        model=endpoint.model,
        plan=plan,
        started=started,
        measures=measures,
        records=compact(found.records, started_s=began),
        settings={REPEAT: repeat},
    )
