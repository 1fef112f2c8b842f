"""Ratios of pairs, rows, the table, the plot and the pages, of runs that are made up."""

import xml.etree.ElementTree as ET
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

import pytest

from benchmarks.harness.measures import measure
from benchmarks.harness.plots import Ratio, RatioRow, ratio_plot
from benchmarks.harness.result import Plan, Result, Run
from benchmarks.harness.work import Arrival, Slo
from benchmarks.measure import Record
from benchmarks.peers.catalog import PEERS
from benchmarks.peers.figures import equal_answers, paired, rows
from benchmarks.peers.measuring import OURS
from benchmarks.peers.publish import BEGIN, END, Measured, PublishError, all_rows, insert, notes, plot, table

WHEN = datetime(2026, 11, 23, 12, 0, tzinfo=UTC)
PEER = PEERS[0]
FIRST_S, STEP_S, TOKENS = 0.5, 0.1, 5


def run(
    label: str,
    *,
    repeat: int = 0,
    clients: int = 1,
    slower: float = 1.0,
    outputs: Sequence[str] = (),
    failed: int = 0,
) -> Run:
    """Requests one after another; the times of all are `slower` times as long."""
    length = slower * (FIRST_S + STEP_S * (TOKENS - 1))
    records = []
    for i in range(4):
        times = [i * length + slower * (FIRST_S + STEP_S * n) for n in range(TOKENS)]
        broken = "cut" if i < failed else None
        records.append(
            Record(
                start_s=i * length, end_s=times[-1], chunk_times_s=times, completion_tokens=5, error=broken
            )
        )
    plan = Plan(
        mix="completions",
        sizes=None,
        sessions=4,
        seed=1,
        arrival=Arrival(clients=clients),
        warm_up=0,
        ignore_eos=True,
    )
    return Run(
        label=label,
        url="",
        model="m",
        plan=plan,
        started=WHEN,
        measures=measure(records, slo=Slo()),
        outputs=list(outputs),
        settings={"repeat": repeat},
        facts={} if label == OURS else {"server": "peer 1.2"},
    )


def failure(reason: str) -> Run:
    plan = Plan(mix="", sizes=None, sessions=0, seed=0, arrival=Arrival(), warm_up=0, ignore_eos=False)
    return Run(label=PEER.label, url="", model="", plan=plan, started=WHEN, failure=reason)


def result(*runs: Run) -> Result:
    return Result(started=WHEN, machine={"processor": "one core", "revision": "abc"}, runs=list(runs))


def both(*, slower: float = 2.0, repeats: int = 1, clients: int = 1) -> list[Run]:
    sides = ((OURS, 1.0), (PEER.label, slower))
    return [
        run(label, repeat=repeat, clients=clients, slower=times * (1 + repeat / 10))
        for repeat in range(repeats)
        for label, times in sides
    ]


def test_a_ratio_is_turned_where_less_is_better() -> None:
    more = paired([(30.0, 20.0)], is_better_when_less=False)
    less = paired([(0.2, 0.3)], is_better_when_less=True)
    assert more is not None and more.times.value == pytest.approx(1.5)
    assert less is not None and less.times.value == pytest.approx(1.5)


def test_a_ratio_is_of_pairs_so_that_drift_cancels() -> None:
    found = paired([(10.0, 5.0), (100.0, 50.0), (30.0, 15.0)], is_better_when_less=False)
    assert found is not None
    assert (found.ours, found.theirs) == (30, 15)
    assert (found.times.low, found.times.value, found.times.high) == (2, 2, 2)


@pytest.mark.parametrize(("pairs", "is_sure"), [(1, False), (2, False), (3, True), (5, True)])
def test_there_is_an_interval_from_three_pairs_on(pairs: int, is_sure: bool) -> None:
    found = paired([(10.0 + n, 10.0) for n in range(pairs)], is_better_when_less=False)
    assert found is not None
    assert found.is_sure == is_sure
    assert found.times.low <= found.times.value <= found.times.high


def test_no_pairs_are_no_figure() -> None:
    assert paired([], is_better_when_less=True) is None


def test_a_row_has_the_medians_of_both_sides() -> None:
    (row,) = rows("peer", result(*both(slower=2.0, repeats=3)))
    assert row.tokens_per_s is not None and row.ttft_s is not None and row.tpot_s is not None
    assert row.tokens_per_s.times.value == pytest.approx(2)
    assert (row.ttft_s.ours, row.ttft_s.theirs) == pytest.approx((FIRST_S * 1.1, FIRST_S * 2.2))
    assert row.tpot_s.times.value == pytest.approx(2)


def test_a_load_that_only_one_side_was_given_is_no_row() -> None:
    made = rows("peer", result(*both(), run(OURS, clients=8), failure("it hangs")))
    assert [(row.clients, row.failure) for row in made] == [(1, ""), (0, "it hangs")]


def test_failed_requests_are_counted_and_enter_no_figure() -> None:
    (row,) = rows("peer", result(run(OURS), run(PEER.label, failed=2)))
    assert row.failed == 2
    assert row.ttft_s is not None
    assert row.ttft_s.theirs == pytest.approx(FIRST_S)


def test_what_is_bad_comes_first() -> None:
    found = [
        Measured(PEERS[0], result(*both(slower=3.0))),
        Measured(PEERS[1], result(*both(slower=0.5))),
        Measured(PEERS[2], result(failure("no | wheel\nfor this machine"))),
    ]
    lines = table(all_rows(found)).splitlines()[2:]
    assert [line.split("|")[1].strip() for line in lines] == [PEERS[2].label, PEERS[1].label, PEERS[0].label]
    assert "not measured: no \\| wheel for this machine" in lines[0]
    assert "**0.5**" in lines[1] and "**3**" in lines[2]


def test_every_line_of_a_table_has_as_many_cells() -> None:
    found = [Measured(PEER, result(*both(), failure("broke off")))]
    for is_long in (False, True):
        lines = table(all_rows(found), is_long=is_long).splitlines()
        assert len({line.count("|") for line in lines}) == 1
        assert len(lines) == 4


def test_the_notes_say_versions_answers_and_the_day() -> None:
    runs = [run(OURS, outputs=["a", "b", "c"]), run(PEER.label, outputs=["a", "b", "x"])]
    text = notes([Measured(PEER, result(*runs))])
    for words in (
        "peer 1.2",
        "one repeat",
        "2 of 3 greedy answers",
        "2026-11-23",
        "revision abc",
        "one core",
    ):
        assert words in text


def test_answers_of_one_side_are_not_compared() -> None:
    assert equal_answers(result(run(OURS, outputs=["a"]), failure("gone"))) == ""


def test_the_plot_is_an_svg_for_light_and_dark_pages() -> None:
    made = all_rows([Measured(PEER, result(*both(repeats=3), *both(clients=8)))])
    svg = ET.fromstring(plot(made))
    space = {"s": "http://www.w3.org/2000/svg"}
    assert "prefers-color-scheme:dark" in (svg.findtext("s:style", namespaces=space) or "")
    assert svg.find("s:rect[@class='page']", space) is not None  # its own ground
    assert len(svg.findall("s:g", space)) == 2 * 2
    texts = [one.text for one in svg.findall("s:text", space)]
    assert f"{PEER.label}, 8 clients" in texts and f"{PEER.label}, 1 client" in texts
    assert "1x" in texts


@pytest.mark.parametrize("values", [(0.003, 1.0), (0.9, 1.1), (1.0, 1.0), (2.0, 4000.0)])
def test_every_mark_lies_on_the_axis(values: tuple[float, float]) -> None:
    drawn = [RatioRow("a", (Ratio(value, value, value),)) for value in values]
    svg = ET.fromstring(ratio_plot(drawn, names=("x",), title="t"))
    space = {"s": "http://www.w3.org/2000/svg"}
    grid = [float(one.attrib["x1"]) for one in svg.findall("s:line", space)]
    marks = [float(one.attrib["cx"]) for one in svg.findall("s:g/s:circle", space)]
    assert len(marks) == 2
    assert min(grid) <= min(marks) <= max(marks) <= max(grid)


def test_nothing_to_draw_is_no_plot() -> None:
    assert ratio_plot([RatioRow("a", (None,))], names=("x",), title="t") == ""


def test_a_page_keeps_what_is_outside_of_the_markers(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text(f"before\n{BEGIN}\nold\n{END}\nafter\n")
    for text in ("new", "newer"):
        insert(page, text)
    assert page.read_text() == f"before\n{BEGIN}\nnewer\n{END}\nafter\n"


@pytest.mark.parametrize("content", ["nothing", f"{BEGIN} no end", f"{END} no beginning"])
def test_a_page_without_markers_is_refused_and_unchanged(tmp_path: Path, content: str) -> None:
    page = tmp_path / "page.md"
    page.write_text(content)
    with pytest.raises(PublishError, match="write them where the table is to stand"):
        insert(page, "new")
    assert page.read_text() == content
