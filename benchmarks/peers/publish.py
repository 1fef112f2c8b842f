"""The table in Markdown and the plot, and where they go: between markers of a page, so that the rest stays."""

from collections.abc import Callable, Sequence
from pathlib import Path

import msgspec

from benchmarks.harness.plots import Ratio, RatioRow, ratio_plot
from benchmarks.harness.result import REPEAT, Result
from benchmarks.harness.tables import seconds
from benchmarks.peers.catalog import Peer, ProtocolPeer
from benchmarks.peers.figures import Paired, Row, equal_answers, rows

BEGIN, END = "<!-- bench-peers: made by `make bench-peers` -->", "<!-- bench-peers: end -->"
HEAD = ("beside", "work", "clients", "tokens/s", "ratio", "time to first token", "ratio")
MORE = ("time per token", "ratio", "failed")

Show = Callable[[float], str]
AnyPeer = Peer | ProtocolPeer


class Measured(msgspec.Struct, frozen=True):
    """What is kept of a peer."""

    peer: AnyPeer
    result: Result


class PublishError(Exception):
    """A page has no place for the table; the message says which."""


def all_rows(found: Sequence[Measured]) -> list[Row]:
    """Those that failed first, then the least ratio first: what is bad is read first."""
    made = [row for one in found for row in rows(one.peer.label, one.result)]
    return sorted(made, key=lambda row: row.ratio)


def table(made: Sequence[Row], *, is_long: bool = False) -> str:
    """A Markdown table; `is_long` with all columns."""
    head = HEAD + MORE if is_long else HEAD
    lines = ["| " + " | ".join(head) + " |", "|" + "---|" * len(head)]
    for row in made:
        if row.failure:
            cells = [row.peer, f"not measured: {row.failure}".replace("|", "\\|").replace("\n", " ")]
            lines.append("| " + " | ".join(cells + [""] * (len(head) - len(cells))) + " |")
            continue
        cells = [
            row.peer,
            row.work,
            str(row.clients),
            *_cells(row.tokens_per_s, number),
            *_cells(row.ttft_s, seconds),
        ]
        if is_long:
            cells += [*_cells(row.tpot_s, seconds), str(row.failed)]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def notes(found: Sequence[Measured]) -> str:
    """What a reader needs beside the table, as a list: versions, answers, machine and day."""
    lines = []
    for one in found:
        peer, result = one.peer, one.result
        servers = {run.facts["server"] for run in result.runs if "server" in run.facts}
        repeats = {run.settings.get(REPEAT) for run in result.runs if not run.failure}
        answers = equal_answers(result)
        parts = [
            ", ".join(sorted(servers)),
            peer.about,
            f"{len(repeats)} repeats" if len(repeats) != 1 else "one repeat",
            f"{answers} greedy answers as Modelyard's" if answers else "",
            f"{result.started:%Y-%m-%d %H:%M} UTC",
            f"revision {result.machine.get('revision', 'unknown')}",
            f"load before {result.machine.get('load before', 'unknown')}",
        ]
        lines.append(f"- {peer.label}: {'; '.join(part for part in parts if part)}")
    if machines := {one.result.machine.get("processor", "unknown") for one in found}:
        lines.append(f"- machine: {', '.join(sorted(machines))}")
    return "\n".join(lines)


def plot(made: Sequence[Row]) -> str:
    """Ratios with their intervals, a row a load, as a whole SVG file."""
    drawn = [
        RatioRow(
            f"{row.peer}, {_short(row)}{row.clients} client{'s' if row.clients > 1 else ''}",
            tuple(
                Ratio(found.times.value, found.times.low, found.times.high) if found else None
                for found in (row.tokens_per_s, row.ttft_s)
            ),
        )
        for row in made
        if not row.failure
    ]
    return ratio_plot(
        drawn,
        names=("tokens/s", "time to first token"),
        title="Modelyard beside other servers: times as good",
    )


def insert(page: Path, text: str) -> None:
    """Put `text` between the page's markers. Raises PublishError where it has none."""
    before, begin, rest = page.read_text("utf-8").partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise PublishError(
            f"{page} has no lines {BEGIN!r} and {END!r}; write them where the table is to stand"
        )
    page.write_text(f"{before}{BEGIN}\n{text}\n{END}{after}", "utf-8")


def number(value: float) -> str:
    return f"{value:.4g}" if value < 10_000 else f"{value:.0f}"


def _cells(found: Paired | None, show: Show) -> list[str]:
    if found is None:
        return ["-", "-"]
    times = f"**{found.times.value:.3g}**"
    if found.is_sure:
        times += f" [{found.times.low:.3g}, {found.times.high:.3g}]"
    return [f"{show(found.ours)} / {show(found.theirs)}", times]


def _short(row: Row) -> str:
    """The face of a protocol; engines are told by their peer's name."""
    return f"{row.work.removeprefix('echo over ')}, " if row.work.startswith("echo") else ""
