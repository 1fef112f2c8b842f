"""`python -m benchmarks.peers [--quick] [--only NAME,...]`: installs the peers, measures each beside Modelyard, and
writes what was found: one result a peer below benchmarks/results/peers/, and of all that are there the table into
README.md and docs/benchmarks.md and the plot docs/peers.svg. `--quick` and `--no-pages` leave the pages alone.

A peer that fails is in the table with its reason, and the others are still measured. Exits 1 where one failed.
"""

import argparse
import os
import signal
import sys
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

from rich.console import Console

from benchmarks.child import ChildError
from benchmarks.harness.machine import machine_facts
from benchmarks.harness.result import Plan, Result, ResultError, Run, load, save
from benchmarks.harness.work import Arrival
from benchmarks.peers import measuring, protocol
from benchmarks.peers.catalog import PEERS, Peer, ProtocolPeer
from benchmarks.peers.environments import install
from benchmarks.peers.measuring import QUICK, PeersBench, Size
from benchmarks.peers.publish import AnyPeer, Measured, PublishError, all_rows, insert, notes, plot, table
from benchmarks.servers import ServerError

ROOT = Path(__file__).parents[2]
RESULTS = ROOT / "benchmarks" / "results"
PLOT = Path("docs") / "peers.svg"


def main() -> int:
    options = _options()
    chosen = [peer for peer in PEERS if not options.only or peer.name in options.only.split(",")]
    results = RESULTS / ("peers-quick" if options.quick else "peers")
    bench = PeersBench(
        state=options.state_dir.resolve(),
        logs=RESULTS / "logs" / "peers",
        threads=options.threads,
        size=QUICK if options.quick else Size(repeats=options.repeats),
        console=Console(stderr=True),
        find_links=tuple(options.find_links),
    )
    signal.signal(signal.SIGTERM, _end_in_order)
    code = 0
    if not options.render:
        try:
            if options.install_only:
                return _install(chosen, bench)
            for peer in chosen:
                result = measure(peer, bench)
                code = max(code, int(any(run.failure for run in result.runs)))
                save(result, results / f"{peer.name}.json")
                print(table(all_rows([Measured(peer, result)]), is_long=True), file=sys.stderr, flush=True)
        except KeyboardInterrupt:
            print("broken off; what was measured before is kept", file=sys.stderr)
            code = 130
    found = kept(results)
    print(table(all_rows(found), is_long=True), notes(found), sep="\n\n")
    if found and not (options.quick or options.no_pages or code == 130):
        write_pages(ROOT, found)
    return code


def measure(peer: AnyPeer, bench: PeersBench) -> Result:
    """All runs of one peer; the last one says why, where it was broken off or there are none. Raises
    KeyboardInterrupt."""
    started, facts = datetime.now(UTC), machine_facts()
    print(f"... {peer.label}", file=sys.stderr, flush=True)
    runs: list[Run] = []
    try:
        runs.extend(_runs(peer, bench))
    except (ChildError, ServerError, OSError) as error:
        runs.append(_failed(peer, str(error), started))
    return Result(started=started, machine=facts, runs=runs)


def kept(results: Path) -> list[Measured]:
    """The results that are there and can be read."""
    found: list[Measured] = []
    for peer in PEERS:
        path = results / f"{peer.name}.json"
        if not path.exists():
            continue
        try:
            found.append(Measured(peer, load(path)))
        except ResultError as error:
            print(f"left out: {error}", file=sys.stderr)
    return found


def write_pages(root: Path, found: list[Measured]) -> None:
    """The table into README.md and docs/benchmarks.md below `root`, and the plot beside the latter. Raises
    PublishError."""
    made = all_rows(found)
    short, whole = [table(made)], [table(made, is_long=True), notes(found)]
    if drawn := plot(made):
        (root / PLOT).write_text(drawn, "utf-8")
        picture = "![Modelyard beside other servers, as ratios]"
        short.append(f"{picture}({PLOT})")
        whole.append(f"{picture}({PLOT.name})")
    insert(root / "README.md", "\n\n".join(short))
    insert(root / "docs" / "benchmarks.md", "\n\n".join(whole))


def _runs(peer: AnyPeer, bench: PeersBench) -> Iterator[Run]:
    match peer:
        case Peer():
            return measuring.measure(peer, bench)
        case ProtocolPeer():
            return protocol.measure(peer, bench)


def _failed(peer: AnyPeer, reason: str, started: datetime) -> Run:
    plan = Plan(mix="", sizes=None, sessions=0, seed=0, arrival=Arrival(), warm_up=0, ignore_eos=False)
    return Run(label=peer.label, url="", model="", plan=plan, started=started, failure=reason)


def _install(chosen: list[AnyPeer], bench: PeersBench) -> int:
    for peer in chosen:
        if isinstance(peer, Peer):
            try:
                install(peer.name, root=bench.state / "peers", find_links=bench.find_links)
            except ChildError as error:
                print(f"{peer.label}: {error}", file=sys.stderr)
                return 1
    return 0


def _end_in_order(number: int, frame: object) -> None:
    """Unwind, so that the servers, which live in process groups of their own, are stopped and not left behind."""
    signal.signal(number, signal.SIG_IGN)  # a second signal must not break off the stopping
    raise KeyboardInterrupt


def _options() -> argparse.Namespace:
    names = ", ".join(peer.name for peer in PEERS)
    parser = argparse.ArgumentParser(prog="python -m benchmarks.peers", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="one short repeat of everything")
    parser.add_argument("--only", metavar="NAME,...", help=f"some of {names}; the others' results are kept")
    parser.add_argument("--repeats", type=int, default=Size().repeats, help="default %(default)s")
    parser.add_argument("--threads", type=int, default=os.cpu_count() or 1)
    parser.add_argument(
        "--render", action="store_true", help="measure nothing: write the pages of what is kept"
    )
    parser.add_argument("--no-pages", action="store_true", help="measure, and leave the pages as they are")
    parser.add_argument("--install-only", action="store_true")
    parser.add_argument("--find-links", action="append", default=[], metavar="PLACE", help="more wheels")
    state = Path(os.environ.get("MODELYARD_STATE") or ROOT / ".state")
    parser.add_argument("--state-dir", type=Path, default=state)
    options = parser.parse_args()
    if options.only and (unknown := set(options.only.split(",")) - {peer.name for peer in PEERS}):
        parser.error(f"no peer {', '.join(sorted(unknown))}; there are {names}")
    if options.repeats < 1:
        parser.error("--repeats: at least 1")
    return options


if __name__ == "__main__":
    try:
        sys.exit(main())
    except PublishError as problem:
        sys.exit(str(problem))
