"""States of prompts on disk: found again by another cache, bounded, and never taken for what they are not."""

import os
import queue
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from backends.contract import EngineError
from backends.contract import PromptCache as Wish
from runner.worker.prompt_cache import PromptCache

KEY = (None, None)
TEXT = [*range(300)]


class Caches:
    """Opens caches on one folder, one after the other."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.open: list[PromptCache] = []

    def __call__(self, **given: Any) -> PromptCache:
        self.close()
        takes_snapshots = given.pop("takes_snapshots", False)
        wish = {"folder": str(self.folder), "stamp": "stamp-1", "most_bytes": 1 << 20, **given}
        cache = PromptCache(Wish(**wish), takes_snapshots=takes_snapshots, caught_up=lambda: None)
        cache.check_integrity()
        self.open.append(cache)
        return cache

    def close(self) -> None:
        while self.open:
            self.open.pop().close(10)

    @property
    def files(self) -> list[Path]:
        return sorted(self.folder.iterdir())


@pytest.fixture
def caches(tmp_path: Path) -> Iterator[Caches]:
    made = Caches(tmp_path / "cache")
    yield made
    made.close()


def add(cache: PromptCache, tokens: list[int], key: tuple[str | None, None] = KEY) -> None:
    """Keep states that are their own tokens, a byte each."""
    cache.add(key, tokens, lambda start, stop: memoryview(bytes(token % 256 for token in tokens[start:stop])))
    cache.check_integrity()


def found(cache: PromptCache, tokens: list[int], key: tuple[str | None, None] = KEY) -> int:
    """How many tokens are there, with the states they were kept with."""
    blocks, length = cache.match(key, tokens)
    for block in blocks:
        state = block.read()
        assert state is not None and bytes(state) == bytes(token % 256 for token in block.tokens)
    return length


def test_another_start_finds_what_was_kept(caches: Caches) -> None:
    add(caches(), TEXT)
    assert found(caches(), [*TEXT, 7]) == 300


def test_what_waits_to_be_written_is_found_already(caches: Caches) -> None:
    cache = caches()
    add(cache, TEXT)
    assert found(cache, TEXT) == 300


def test_a_longer_text_needs_only_what_is_new_of_it(caches: Caches) -> None:
    add(caches(), TEXT)
    add(caches(), [*TEXT, *range(20)])
    caches.close()
    assert [path.stat().st_size > 128 for path in caches.files] == [True] * 3
    assert found(caches(), [*TEXT, *range(20)]) == 320


def test_other_weights_or_settings_share_nothing(caches: Caches) -> None:
    add(caches(), TEXT)
    assert found(caches(stamp="stamp-2"), TEXT) == 0
    assert found(caches(), TEXT) == 300


def test_what_others_kept_makes_room_first(caches: Caches) -> None:
    add(caches(stamp="stamp-2"), TEXT)
    cache = caches(most_bytes=1000)
    add(cache, TEXT)
    caches.close()
    assert all(path.name.startswith("stamp-1") for path in caches.files)
    assert found(caches(), TEXT) == 300


def test_adapters_share_nothing(caches: Caches) -> None:
    add(caches(), TEXT, ("pirate", None))
    cache = caches()
    assert found(cache, TEXT) == 0
    assert found(cache, TEXT, ("pirate", None)) == 300


def test_the_least_recently_used_goes_first_also_after_a_start(caches: Caches) -> None:
    cache = caches()
    for number in range(6):
        add(cache, [number] * 100)
    caches.close()
    ages = caches.files[3:] + caches.files[:3]  # their names say nothing of their age
    for number, path in enumerate(ages):
        os.utime(path, (number, number))
    assert len(caches(most_bytes=350)) == 3
    caches.close()
    assert caches.files == sorted(ages[3:])


def test_a_read_counts_as_a_use(caches: Caches) -> None:
    add(caches(), TEXT)
    caches.close()
    for path in caches.files:
        os.utime(path, (1, 1))
    assert found(caches(), TEXT) == 300
    assert all(path.stat().st_mtime > 1 for path in caches.files)


@pytest.mark.parametrize("keep", [0, 10, 60, -1])
def test_a_file_that_was_cut_off_is_passed_over(
    caches: Caches, keep: int, caplog: pytest.LogCaptureFixture
) -> None:
    add(caches(), TEXT[:100])
    caches.close()
    (path,) = caches.files
    path.write_bytes(path.read_bytes()[:keep])
    assert found(caches(), TEXT) == 0
    assert "passed over" in caplog.text and not caches.files


def test_a_damaged_state_is_not_read(caches: Caches, caplog: pytest.LogCaptureFixture) -> None:
    add(caches(), TEXT)
    caches.close()
    for path in caches.files:
        data = bytearray(path.read_bytes())
        data[-1] ^= 1
        path.write_bytes(data)
    blocks, length = caches().match(KEY, TEXT)
    assert length == 300 and all(block.read() is None for block in blocks)
    assert "damaged" in caplog.text


def test_states_whose_beginning_is_lost_are_deleted(caches: Caches) -> None:
    add(caches(), TEXT)
    caches.close()
    cache = caches()
    cache.remove(cache.match(KEY, TEXT).blocks[0])
    assert len(cache) == 0
    caches.close()
    assert not caches.files


def test_an_unfinished_file_of_a_dead_writer_is_deleted(caches: Caches) -> None:
    add(caches(), TEXT[:50])
    caches.close()
    (path,) = caches.files
    own = path.with_suffix(f".{os.getpid()}.part")
    for unfinished in (path.with_suffix(".4194305.part"), own):
        unfinished.write_bytes(b"half")
    assert found(caches(), TEXT) == 50
    assert caches.files == sorted([path, own])


def test_a_cache_that_is_only_read_changes_nothing(caches: Caches) -> None:
    add(caches(), TEXT)
    caches.close()
    before = [(path, path.stat().st_mtime_ns) for path in caches.files]
    cache = caches(is_read_only=True, most_bytes=1)
    add(cache, [9] * 50)
    assert found(cache, TEXT) == 300 and found(cache, [9] * 50) == 0
    cache.clear()
    assert found(cache, TEXT) == 0
    caches.close()
    assert [(path, path.stat().st_mtime_ns) for path in caches.files] == before


def test_a_cache_to_read_that_is_not_there_is_empty(caches: Caches) -> None:
    assert found(caches(is_read_only=True), TEXT) == 0


def test_what_is_forgotten_is_deleted(caches: Caches) -> None:
    cache = caches()
    add(cache, TEXT)
    cache.clear()
    caches.close()
    assert not caches.files


def test_nobody_else_can_read_it(caches: Caches) -> None:
    add(caches(), TEXT[:50])
    caches.close()
    assert {oct(path.stat().st_mode & 0o777) for path in (caches.folder, *caches.files)} == {"0o700", "0o600"}


def test_a_disk_that_takes_no_more_stops_the_writing(
    caches: Caches, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    cache = caches()
    done = queue.SimpleQueue[None]()

    def full(*_: object) -> None:
        done.put(None)
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("runner.worker.prompt_cache.write_state", full)
    add(cache, TEXT[:50])
    done.get(timeout=10)
    caches.close()
    assert not cache.takes_more
    assert "No space left" in caplog.text


def test_more_than_the_disk_can_take_is_not_heaped_up(
    caches: Caches, monkeypatch: pytest.MonkeyPatch
) -> None:
    may_write = threading.Event()
    monkeypatch.setattr("runner.worker.prompt_cache.BACKLOG_BYTES", 100)
    monkeypatch.setattr("runner.worker.prompt_cache.write_state", lambda *_: may_write.wait(10))
    cache = caches()
    add(cache, TEXT)  # three blocks: the second goes beyond, the third is left out
    assert not cache.takes_more
    assert not cache.wait_for_room(0)
    assert len(cache) == 1
    may_write.set()
    assert cache.wait_for_room(10)
    add(cache, TEXT)
    caches.close()
    assert cache.takes_more


def test_a_folder_that_cannot_be_made_is_said(tmp_path: Path, caches: Caches) -> None:
    (tmp_path / "cache").write_text("a file")
    with pytest.raises(EngineError, match="cannot be used"):
        caches()


def test_snapshots_are_kept_whole(caches: Caches) -> None:
    cache = caches(takes_snapshots=True)
    add(cache, TEXT[:100])
    add(cache, TEXT[:200])
    cache = caches(takes_snapshots=True)
    assert found(cache, TEXT[:150]) == 100 and found(cache, TEXT) == 200
