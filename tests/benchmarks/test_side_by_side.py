from datetime import UTC, datetime
from pathlib import Path

import msgspec
import pytest

from benchmarks.bench import Bench
from benchmarks.figures import Figure, Target
from benchmarks.models import BenchModels, Settings
from benchmarks.side_by_side import Report, keep, render, run

BENCH = Bench(settings=Settings(threads=1), models=BenchModels(Path(), {}), logs=Path())
MET = Figure(name="fast", target=Target(1), ours="2", other="1", ratio=2.0)


async def give(bench: Bench) -> list[Figure]:
    return [MET]


async def fail(bench: Bench) -> list[Figure]:
    raise ExceptionGroup("several", [OSError("no port")])


async def test_a_scenario_that_breaks_is_reported_and_the_others_run(capsys: pytest.CaptureFixture[str]):
    broken, met = await run({"bad": fail, "good": give}, BENCH)
    assert (broken.name, broken.verdict, broken.notes) == ("bad", "not measured", ["OSError: no port"])
    assert met == MET
    assert "no port" in capsys.readouterr().err


def report(*figures: Figure) -> Report:
    started = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
    return Report(started=started, facts={"machine": "one"}, figures=[*figures])


def test_a_report_names_what_was_missed():
    missed = Figure(name="slow", target=Target(3), ratio=2.0)
    assert render(report(MET, missed)).endswith("Missed or not measured: slow.")
    assert render(report(MET)).endswith("All targets are met.")


def test_a_kept_report_reads_back(tmp_path: Path):
    keep(report(MET), results=tmp_path)
    (path,) = tmp_path.iterdir()
    assert path.name == "20260102-030405.json"
    assert msgspec.json.decode(path.read_bytes(), type=Report) == report(MET)
