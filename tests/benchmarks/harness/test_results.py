"""Results on disk, their comparison and their page."""

import re
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import msgspec
import pytest

from benchmarks.harness.diff import compare_results
from benchmarks.harness.measures import measure
from benchmarks.harness.report import render
from benchmarks.harness.result import Plan, Result, ResultError, Run, load, save
from benchmarks.harness.work import Arrival, Slo
from benchmarks.measure import Record

WHEN = datetime(2026, 11, 23, 12, 0, tzinfo=UTC)


def records(slower: float = 1.0, count: int = 60) -> list[Record]:
    made = []
    for i in range(count):
        first = i + slower * (0.2 + i % 5 / 50)
        times = [first + slower * 0.02 * n for n in range(20)]
        made.append(
            Record(
                start_s=float(i), end_s=times[-1], chunk_times_s=times, prompt_tokens=9, completion_tokens=20
            )
        )
    return made


def run(label: str = "orca", *, clients: int = 4, slower: float = 1.0, **fields: Any) -> Run:
    plan = Plan(
        mix="chat",
        sizes=None,
        sessions=60,
        seed=1,
        arrival=Arrival(clients=clients),
        warm_up=4,
        ignore_eos=True,
    )
    made = records(slower)
    given = {"records": made, "measures": measure(made, slo=Slo()), **fields}
    return Run(label=label, url="http://127.0.0.1:1/v1", model=label, plan=plan, started=WHEN, **given)


def result(*runs: Run) -> Result:
    return Result(started=WHEN, machine={"processor": "a <b> & c"}, runs=list(runs))


def test_a_result_comes_back_as_it_was_kept(tmp_path: Path) -> None:
    kept = result(run(), run("other", failure="no weights", measures=None, records=[]))
    save(kept, tmp_path / "deep" / "r.json")
    assert load(tmp_path / "deep" / "r.json") == kept
    assert [path.name for path in (tmp_path / "deep").iterdir()] == ["r.json"]


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (None, "cannot be read"),
        ("{", "not a result of"),
        ('{"figures": []}', "not a result of"),
        ('{"schema": 0, "runs": []}', "has schema 0, and this version reads 1; measure again"),
        ('{"schema": 1, "runs": 5}', "is damaged"),
    ],
)
def test_a_file_that_is_no_result_is_refused_in_a_sentence(
    tmp_path: Path, content: str | None, words: str
) -> None:
    path = tmp_path / "r.json"
    if content is not None:
        path.write_text(content)
    with pytest.raises(ResultError, match=words):
        load(path)


def test_the_same_figures_are_no_regression() -> None:
    changes = compare_results(result(run()), result(run()), tolerance=0.05)
    assert {change.figure for change in changes} == {
        "tokens/s out",
        "TTFT p50",
        "ITL p50",
        "TPOT p50",
        "E2E p50",
    }
    assert {change.verdict for change in changes} == {"within the noise"}


def test_what_became_slower_is_a_regression_and_what_became_quicker_is_not() -> None:
    slower = compare_results(result(run()), result(run(slower=1.5)), tolerance=0.05)
    quicker = compare_results(result(run(slower=1.5)), result(run()), tolerance=0.05)
    latencies = {"TTFT p50", "ITL p50", "TPOT p50", "E2E p50"}
    assert {change.figure for change in slower if change.is_regression} >= latencies
    assert not any(change.is_regression for change in quicker)
    assert {change.figure for change in quicker if change.is_improvement} >= latencies


def test_a_change_within_the_tolerance_is_none() -> None:
    changes = compare_results(result(run()), result(run(slower=1.02)), tolerance=0.05)
    assert not any(change.is_regression for change in changes)


def test_runs_of_other_work_are_not_compared() -> None:
    assert compare_results(result(run(clients=4)), result(run(clients=8)), tolerance=0.05) == []
    assert compare_results(result(run("a")), result(run("b")), tolerance=0.05) == []


def test_the_page_needs_nothing_else_and_says_all() -> None:
    page = render(
        [
            result(
                run("orca", outputs=["a", "b"]),
                run("fast<er>", slower=0.5, outputs=["a", "c"]),
                run("orca", clients=8, slower=1.4),
                run("gone", measures=None, records=[], failure="no <weights>"),
            )
        ]
    )
    assert not re.search(r"(?:src|href)\s*=|url\(|@import|<script", page)
    assert 'name="viewport"' in page
    assert "fast&lt;er&gt;" in page and "fast<er>" not in page
    assert "a &lt;b&gt; &amp; c" in page
    assert "failed: no &lt;weights&gt;" in page
    assert "1 of 2 as orca" in page
    assert page.count("<figure>") == 6 + 4 + 4  # against load, and distributions of each work
    assert "goodput" not in page.split("How it was measured")[0]


def test_the_best_value_of_each_work_is_marked() -> None:
    page = render([result(run("slow", slower=2.0), run("quick"))])
    rows = re.findall(r"<tr><td>(slow|quick)</td>(.*?)</tr>", page.split("Distributions")[0], re.DOTALL)
    best = {name: row.count('class="best"') for name, row in rows}
    assert best["quick"] >= 6
    assert best["slow"] == 0


def test_runs_of_several_results_are_told_apart() -> None:
    later = msgspec.structs.replace(result(run()), started=WHEN.replace(hour=15))
    page = render([result(run()), later])
    assert "orca (11-23 12:00:00)" in page and "orca (11-23 15:00:00)" in page


def test_a_sweep_is_drawn_over_the_numbers_that_it_tried() -> None:
    tried = [("threads", 1), ("threads", 2), ("wait_policy", "active"), ("wait_policy", "passive")]
    runs = [run(f"{key}={value}", settings={"threads": 2, key: value}) for key, value in tried]
    page = render([result(*runs)])
    assert "tokens/s out by threads" in page
    assert "tokens/s out by wait_policy" not in page  # words are no axis


def test_repeats_are_no_sweep() -> None:
    assert "tokens/s out by" not in render([result(*(run(settings={"repeat": n}) for n in range(3)))])
