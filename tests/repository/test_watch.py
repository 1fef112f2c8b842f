import asyncio
import contextlib
import logging
import shutil
from pathlib import Path

import pytest

from repository.scan import scan
from repository.watch import watch

pytestmark = pytest.mark.timeout(20)


class Steps:
    """A sleep that does what the script says, one entry per look, and ends the watch when it is through."""

    def __init__(self, *script: object) -> None:
        self.script = list(script)
        self.pauses: list[float] = []

    async def sleep(self, seconds: float) -> None:
        self.pauses.append(seconds)
        if not self.script:
            raise asyncio.CancelledError
        action = self.script.pop(0)
        if callable(action):
            action()


async def names(root: Path, steps: Steps, **rest: object) -> list[list[str]]:
    seen = []
    try:
        async for snapshot in watch(root, poll_s=5, sleep=steps.sleep, **rest):  # type: ignore[arg-type]
            shown = [f"{entry.name}{'' if entry.settled else '?'}" for entry in snapshot.entries]
            seen.append(shown)  # the watch ends by cancellation; what came before counts
    except asyncio.CancelledError:
        pass
    return seen


def put(path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("x")


async def test_the_first_snapshot_comes_at_once_and_others_only_on_change(tmp_path: Path) -> None:
    put(tmp_path / "a.gguf")
    steps = Steps(None, None, lambda: put(tmp_path / "b.gguf"), None, None)
    assert await names(tmp_path, steps) == [["a"], ["a", "b?"], ["a", "b"]]


async def test_it_looks_again_soon_while_files_are_changing(tmp_path: Path) -> None:
    steps = Steps(lambda: put(tmp_path / "b.gguf"), None, None)
    await names(tmp_path, steps)
    assert steps.pauses == [5, 1, 5, 5]


async def test_a_repository_that_vanishes_is_told_once_and_found_again(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    root = tmp_path / "models"
    put(root / "a.gguf")
    steps = Steps(lambda: shutil.rmtree(root), None, None, lambda: put(root / "b.gguf"), None)
    with caplog.at_level(logging.INFO, "repository.watch"):
        assert await names(root, steps) == [["a"], ["b?"], ["b"]]
    assert [record.levelname for record in caplog.records] == ["ERROR", "INFO"]
    assert "No such file or directory" in caplog.records[0].getMessage()


async def test_a_watch_may_begin_before_its_repository(tmp_path: Path) -> None:
    steps = Steps(lambda: put(tmp_path / "late" / "a.gguf"))
    assert await names(tmp_path / "late", steps) == [["a"]]


async def test_a_scan_that_fails_unexpectedly_is_logged_once_and_does_not_end_the_watch(
    caplog: pytest.LogCaptureFixture,
) -> None:
    steps = Steps(None, None)
    assert await names(7, steps) == []  # type: ignore[arg-type]
    assert steps.pauses == [5, 5, 5]
    assert [record.levelname for record in caplog.records] == ["ERROR"]
    assert "Traceback" in caplog.text


async def test_it_goes_on_from_an_earlier_snapshot(tmp_path: Path) -> None:
    put(tmp_path / "a.gguf")
    steps = Steps(None, (tmp_path / "a.gguf").unlink)
    first = scan(tmp_path)
    assert await names(tmp_path, steps, latest=lambda: first) == [[]]


async def test_a_file_that_grows_for_many_looks_is_there_once_it_is_quiet(tmp_path: Path) -> None:
    def grow() -> None:
        with (tmp_path / "b.gguf").open("a") as file:
            file.write("x" * 1000)

    steps = Steps(grow, grow, grow, grow, None, None)
    held = [scan(tmp_path)]  # by a reader that scans too, as the runner does
    shown = []
    with contextlib.suppress(asyncio.CancelledError):
        async for snapshot in watch(tmp_path, poll_s=5, sleep=steps.sleep, latest=lambda: held[0]):
            held[0] = snapshot
            shown.append([entry.settled for entry in snapshot.entries])
    assert shown == [[False], [True]]
