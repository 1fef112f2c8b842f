"""All parts in one run: their order, what breaks, and what is said about it."""

from pathlib import Path

import pytest

from benchmarks.bench import Bench
from benchmarks.everything import PARTS, Options, Part, plan, run_parts
from benchmarks.figures import Figure, Target
from benchmarks.models import BenchModels, Settings

BENCH = Bench(settings=Settings(threads=1), models=BenchModels(Path(), {}), logs=Path())
OPTIONS = Options(bench=BENCH, state=Path(), is_quick=True)


async def fine(options: Options) -> list[Figure]:
    return [Figure(name="quick", target=Target(1), ratio=2.0)]


async def lacking(options: Options) -> list[Figure]:
    raise FileNotFoundError("there is no python")


async def test_a_part_that_lacks_something_is_told_and_the_others_run(
    capsys: pytest.CaptureFixture[str],
) -> None:
    parts = {"poor": Part(minutes=1, run=lacking, needs="make envs"), "rich": Part(minutes=2, run=fine)}
    poor, rich = await run_parts(parts, OPTIONS)
    assert (poor.name, poor.verdict) == ("poor", "not measured")
    assert poor.notes == ["FileNotFoundError: there is no python", "needs `make envs`"]
    assert rich.is_met
    assert "=== poor" in capsys.readouterr().err


def test_the_plan_says_what_each_part_takes_and_needs() -> None:
    parts = {"poor": Part(minutes=1, run=lacking, needs="make envs"), "rich": Part(minutes=2, run=fine)}
    assert plan(parts).splitlines() == [
        "- poor: 1 minutes, needs `make envs`",
        "- rich: 2 minutes",
        "Some 3 minutes in all.",
    ]
    assert {"growth", "prompt-lookup", "side-by-side"} <= PARTS.keys()
