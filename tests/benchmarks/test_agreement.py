"""What is made of two clients' figures; that they do agree is tested in tests/engines."""

import json
from pathlib import Path

import pytest

from benchmarks.agreement import FIGURES, Told, Work, compared, table


def told(value: float) -> Told:
    figures = dict.fromkeys(FIGURES, value)
    return Told(requests=4, failed=0, prompt_tokens=8, completion_tokens=16, figures=figures)


@pytest.mark.parametrize(
    ("ours", "theirs", "agrees"),
    [
        ((10, 10, 10), (10, 10, 10), True),
        ((10, 11, 12), (11.5, 11.5, 11.5), True),  # nearer than ours are to one another
        ((10, 10, 10), (11, 11.5, 12), False),
        ((10, 10, 10), (11, 11, 11), False),
    ],
)
def test_clients_agree_where_they_differ_by_no_more_than_each_from_itself(
    ours: tuple[float, ...], theirs: tuple[float, ...], agrees: bool
) -> None:
    found = compared(8, [told(one) for one in ours], [told(one) for one in theirs])
    assert [one.figure for one in found] == list(FIGURES)
    assert all(one.agrees == agrees for one in found)
    assert ("DIFFER" in table(found)) != agrees


def test_a_difference_has_its_sign_and_noise_its_size() -> None:
    (first, *_) = compared(1, [told(9), told(11), told(10)], [told(8), told(8), told(8)])
    assert first.difference == pytest.approx(0.25)
    assert first.noise == pytest.approx(0.2)


def test_times_are_shown_in_milliseconds() -> None:
    lines = table(compared(1, [told(0.5)], [told(0.5)])).splitlines()
    assert "| tokens/s | 0.5 | 0.5 |" in lines[2]
    assert "| TTFT p50 | 500 ms | 500 ms |" in lines[4]


def test_the_work_is_one_file_for_both(tmp_path: Path) -> None:
    Work(rounds=2, output_tokens=5).write(tmp_path / "w.jsonl", clients=3, seed=1)
    lines = [json.loads(line) for line in (tmp_path / "w.jsonl").read_text().splitlines()]
    assert len(lines) == 6
    assert {line["max_tokens"] for line in lines} == {5}
    assert all(line["ignore_eos"] for line in lines)
    assert len({line["prompt"] for line in lines}) == 6
