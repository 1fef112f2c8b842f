"""New versions and the lock file, made from files that are here already."""

import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from repository.hub import publish as publishing
from repository.hub.errors import HubError
from repository.hub.lock import NAME, LockedFile, LockedVersion, locked, read_lock, write_lock
from repository.hub.publish import publish
from repository.hub.pull import verify
from repository.scan import scan
from tests.hub_server import sha256_of

MODEL = bytes(2 << 20)
REVISION = "1" * 40  # as a number it would lose its digits


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return tmp_path / "models"


@pytest.fixture
def cache(tmp_path: Path) -> Path:
    folder = tmp_path / "cache"
    folder.mkdir()
    (folder / "model.gguf").write_bytes(MODEL)
    (folder / "LICENSE").write_text("MIT")
    return folder


def wanted(cache: Path, *, model: str = "m", revision: str = REVISION, version: int = 0) -> LockedVersion:
    files = tuple(
        LockedFile(path.name, path.stat().st_size, sha256_of(path.read_bytes()))
        for path in sorted(cache.iterdir())
    )
    return LockedVersion(model, version, "acme/m", revision, files)


def places(cache: Path) -> dict[str, Path]:
    return {path.name: path for path in cache.iterdir()}


def hidden(root: Path) -> list[str]:
    return [path.name for path in root.rglob(".staged-*")]


def test_a_version_is_published_and_served_from_its_folder(root: Path, cache: Path):
    made = publish(root, wanted(cache), places(cache))
    assert (made.path, made.is_new, made.copied_bytes) == (root / "m" / "1", True, 0)
    assert sorted(path.name for path in made.path.iterdir()) == ["LICENSE", "model.gguf"]
    version = scan(root).models["m"].version(1)
    assert version is not None
    assert version.weights_path == made.path / "model.gguf"
    assert hidden(root) == []


def test_weights_are_linked_and_what_a_person_may_edit_is_copied(root: Path, cache: Path):
    made = publish(root, wanted(cache), places(cache))
    assert (made.path / "model.gguf").samefile(cache / "model.gguf")
    assert not (made.path / "LICENSE").samefile(cache / "LICENSE")


def test_where_nothing_can_be_linked_it_is_copied_and_told(root: Path, cache: Path, monkeypatch):
    def refuse(*_: object) -> None:
        raise OSError(18, "Invalid cross-device link")

    monkeypatch.setattr(os, "link", refuse)
    monkeypatch.setattr(publishing.fcntl, "ioctl", refuse)
    made = publish(root, wanted(cache), places(cache))
    assert made.copied_bytes == len(MODEL)
    assert (made.path / "model.gguf").read_bytes() == MODEL


def test_another_revision_is_the_next_version(root: Path, cache: Path):
    publish(root, wanted(cache), places(cache))
    made = publish(root, wanted(cache, revision="2" * 40), places(cache))
    assert made.version.version == 2
    assert [each.version for each in read_lock(root)] == [1, 2]


def test_the_same_revision_is_not_published_twice_unless_forced(root: Path, cache: Path):
    publish(root, wanted(cache), places(cache))
    again = publish(root, wanted(cache), places(cache))
    assert (again.is_new, again.path) == (False, root / "m" / "1")
    forced = publish(root, wanted(cache), places(cache), force=True)
    assert (forced.is_new, forced.path) == (True, root / "m" / "2")


def test_a_number_is_not_given_again(root: Path, cache: Path):
    (root / "m" / "7").mkdir(parents=True)
    assert publish(root, wanted(cache), places(cache)).version.version == 8
    (root / "m" / "8").rename(root / "elsewhere")
    made = publish(root, wanted(cache, revision="2" * 40), places(cache))
    assert made.version.version == 9


def test_a_version_that_lost_a_file_gets_it_back_and_keeps_the_others(root: Path, cache: Path):
    made = publish(root, wanted(cache), places(cache))
    (made.path / "model.gguf").unlink()
    (made.path / "LICENSE").write_text("edited")
    publish(root, made.version, places(cache))
    assert (made.path / "model.gguf").read_bytes() == MODEL
    assert (made.path / "LICENSE").read_text() == "edited"


def test_only_what_is_missing_needs_a_place(root: Path, cache: Path):
    made = publish(root, wanted(cache), places(cache))
    (made.path / "model.gguf").unlink()
    publish(root, made.version, {"model.gguf": cache / "model.gguf"})
    assert (made.path / "model.gguf").read_bytes() == MODEL


def test_a_failure_leaves_neither_a_version_nor_a_line_in_the_lock(root: Path, cache: Path, monkeypatch):
    publish(root, wanted(cache), places(cache))
    before = (root / NAME).read_text()

    def fail(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(publishing, "_move", fail)
    with pytest.raises(KeyboardInterrupt):
        publish(root, wanted(cache, revision="2" * 40), places(cache))
    assert sorted(path.name for path in (root / "m").iterdir()) == ["1"]
    assert (root / NAME).read_text() == before
    assert hidden(root) == []


def test_what_a_killed_process_left_is_cleared_away(root: Path, cache: Path):
    (root / ".staged-left").mkdir(parents=True)
    (root / ".staged-left" / "model.gguf").write_bytes(MODEL)
    publish(root, wanted(cache), places(cache))
    assert hidden(root) == []


def test_publications_at_once_each_get_a_number(root: Path, cache: Path):
    def make(number: int) -> int:
        return publish(root, wanted(cache, revision=f"{number}" * 40), places(cache)).version.version

    with ThreadPoolExecutor(8) as pool:
        assert sorted(pool.map(make, range(1, 9))) == list(range(1, 9))
    assert [each.version for each in read_lock(root)] == list(range(1, 9))


def test_the_same_published_at_once_is_one_version(root: Path, cache: Path):
    with ThreadPoolExecutor(4) as pool:
        made = list(pool.map(lambda _: publish(root, wanted(cache), places(cache)), range(4)))
    assert sorted(each.is_new for each in made) == [False, False, False, True]
    assert sorted(path.name for path in (root / "m").iterdir()) == ["1"]


def test_the_lock_says_what_it_was_told(root: Path, cache: Path):
    odd = LockedFile('a "b" #ü.gguf', 0, "1e5", "x/y: z.gguf")
    version = LockedVersion("owner/m", 3, "acme/m", "1" * 40, (odd,))
    root.mkdir()
    write_lock(root, (version,))
    assert read_lock(root) == (version,)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("format: 2\n", "is of format 2"),
        ("format: 1\nversions: [{model: m}]\n", "missing required field"),
        ("format: 1\nmodels: []\n", "unknown field `models`"),
        ("format: [\n", "modelyard.lock:2:1"),
        (
            'format: 1\nversions: [{model: "../m", version: 1, repo: o/r, revision: r, files: []}]',
            "no place in this repository",
        ),
        (
            'format: 1\nversions: [{model: m, version: 1, repo: o/r, revision: r,'
            ' files: [{name: /etc/passwd, size: 1, sha256: a}]}]',
            "no place in this repository",
        ),
    ],
)  # fmt: skip
def test_a_lock_that_cannot_be_read_is_told_with_its_path(root: Path, content: str, words: str):
    root.mkdir()
    (root / NAME).write_text(content)
    with pytest.raises(HubError) as caught:
        read_lock(root)
    assert words in str(caught.value)
    assert NAME in str(caught.value)


def test_a_repository_that_cannot_be_written_to_is_told(tmp_path: Path, cache: Path):
    (tmp_path / "models").write_text("a file")
    with pytest.raises(HubError, match=r"cannot write .*models") as caught:
        publish(tmp_path / "models", wanted(cache), places(cache))
    assert caught.value.kind == "disk"


def test_a_lock_is_held_by_one_at_a_time(root: Path):
    def enter() -> None:
        with locked(root):
            pass

    with ThreadPoolExecutor(1) as pool:
        with locked(root):
            waiting = pool.submit(enter)
            assert not waiting.done()
        waiting.result(30)


def test_verify_tells_what_is_not_what_was_pulled(root: Path, cache: Path):
    made = publish(root, wanted(cache), places(cache))
    assert list(verify(root)) == []
    (made.path / "LICENSE").write_text("TIM")
    assert [problem.message for problem in verify(root)] == [
        "is not what was pulled: its sha256 is another one"
    ]
    (made.path / "LICENSE").write_text("longer")
    assert "has 6 bytes, and 3 when it was pulled" in str(*verify(root))
    (made.path / "LICENSE").unlink()
    assert "`modelyard pull` brings it back" in str(*verify(root))
