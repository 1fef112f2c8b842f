"""The worker's half in other environments: copied or linked, and refused where it is another one."""

import shutil
from pathlib import Path

import pytest

from runner.environments.half import LINK, give_half, mismatch, own_half, stamp_of_half
from runner.environments.sets import HOME
from runner.environments.values import WorkerHalf


@pytest.fixture
def installed(tmp_path: Path) -> Path:
    """Modelyard as an installation has it: no checkout around it."""
    home = tmp_path / "installed"
    for package in ("runner", "backends"):
        shutil.copytree(HOME / package, home / package, ignore=shutil.ignore_patterns("__pycache__"))
    return home


def test_a_checkout_is_linked(tmp_path: Path) -> None:
    half = give_half(tmp_path, tmp_path / "copy")
    assert (half.folder, half.stamp) == (str(HOME), "")
    assert (tmp_path / LINK).read_text() == f"{HOME}\n"
    assert not (tmp_path / "copy").exists()


def test_an_installation_is_copied_in_place_of_the_last_copy(installed: Path, tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    (copy / "runner").mkdir(parents=True)
    (copy / "runner" / "old.py").touch()
    half = give_half(tmp_path, copy, home=installed)
    assert half.folder == str(copy)
    assert half.stamp == stamp_of_half(copy) == stamp_of_half(installed)
    assert (tmp_path / LINK).read_text() == f"{copy}\n"
    assert not (copy / "runner" / "old.py").exists()


def test_any_change_of_what_a_worker_runs_changes_the_stamp(installed: Path) -> None:
    before = stamp_of_half(installed)
    (installed / "runner" / "worker" / "text.py").write_text("# other code\n")
    changed = stamp_of_half(installed)
    (installed / "runner" / "loader.py").write_text("# other code\n")  # the server's half
    assert before != changed == stamp_of_half(installed)


def test_the_servers_own_code_is_no_mismatch_wherever_it_is(installed: Path) -> None:
    mine = own_half()
    assert mismatch(WorkerHalf(folder=mine.folder, version="0"), mine) == ""
    assert mismatch(WorkerHalf(folder=str(installed), version="0"), mine) == ""
    assert mismatch(WorkerHalf(folder="/nowhere", stamp=mine.stamp), mine) == ""


@pytest.mark.parametrize(
    ("theirs", "words"),
    [
        (
            {"stamp": "tampered", "version": "0.0.1"},
            "has the worker's half of Modelyard 0.0.1, and this server is",
        ),
        ({"stamp": "tampered"}, "with other code"),
        ({}, "runs the code in /nowhere, which is not there any more"),
    ],
)
def test_other_code_is_a_mismatch(theirs: dict[str, str], words: str) -> None:
    mine = own_half()
    half = WorkerHalf(**{"folder": "/nowhere", "version": mine.version, **theirs})
    assert words in mismatch(half, mine)
