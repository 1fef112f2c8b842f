"""Makes fetched files a new version of a model: all of it appears at once, or nothing does.

Files are hard links into the cache, or clones, where that is one filesystem, else copies. A version is built in a
hidden folder, which scans pass over, and renamed.
"""

import fcntl
import os
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path

from msgspec import Struct
from msgspec.structs import replace

from repository.hub.choose import show_bytes
from repository.hub.errors import HubError
from repository.hub.failures import disk_problem
from repository.hub.lock import LockedVersion, locked, read_lock, write_lock
from repository.versions import parse_version_folder

_STAGE = ".staged-"
_LINKED_BYTES = 1 << 20  # smaller files are copied: a person may edit them
_FICLONE = 0x40049409


class Published(Struct, frozen=True):
    """A version that is there now. `copied_bytes`: what is on the disk twice; `is_new` False: it was there before."""

    version: LockedVersion
    path: Path
    copied_bytes: int = 0
    is_new: bool = True


def publish(
    root: Path, wanted: LockedVersion, places: Mapping[str, Path], *, force: bool = False
) -> Published:
    """Make the files of `wanted`, which lie at `places` by name, the version of that number, or 0: the next one.

    With the number of a version that lacks some of its files, those are added, and only they need a place. A version
    that is the same already is not made again, unless `force`. HubError: full disk, read-only repository,
    other files in the way.
    """
    folder = root / wanted.model
    try:
        with staged(root, folder if folder.is_dir() else root) as stage:
            copied = _fill(stage / "files", wanted, places)
            with locked(root):
                known = read_lock(root)
                same = same_version(root, wanted, known)
                if same is not None and not force:
                    return Published(same, root / same.folder, is_new=False)
                number = wanted.version or _next_number(folder, wanted.model, known)
                made = replace(wanted, version=number)
                others = tuple(each for each in known if each.folder != made.folder)
                write_lock(root, (*others, made))
                try:
                    _move(stage, folder, made)
                except BaseException:
                    write_lock(root, known)
                    raise
            return Published(made, root / made.folder, copied)
    except OSError as error:
        raise disk_problem(error) from error


def same_version(root: Path, wanted: LockedVersion, known: tuple[LockedVersion, ...]) -> LockedVersion | None:
    """The version that is made of the same files of the same revision already, and is there."""

    def files(version: LockedVersion) -> set[tuple[str, int]]:
        return {(file.name, file.size) for file in version.files}

    for each in known:
        if (
            (each.model, each.repo, each.revision) == (wanted.model, wanted.repo, wanted.revision)
            and files(each) == files(wanted)
            and wanted.version in (0, each.version)
            and not lacking(root, each)
        ):
            return each
    return None


def lacking(root: Path, version: LockedVersion) -> list[str]:
    """The names of its files that are not there."""
    return [file.name for file in version.files if not (root / version.folder / file.name).exists()]


def _next_number(folder: Path, model: str, known: tuple[LockedVersion, ...]) -> int:
    numbers = [parse_version_folder(path.name) or 0 for path in folder.glob("*")]
    return max([0, *numbers, *(each.version for each in known if each.model == model)]) + 1


def _fill(target: Path, version: LockedVersion, places: Mapping[str, Path]) -> int:
    """Puts the files that have a place into a new folder; how many bytes of it are copies."""
    copied = 0
    for file in [each for each in version.files if each.name in places]:
        path = target / file.name
        path.parent.mkdir(parents=True, exist_ok=True)
        source = Path(os.path.realpath(places[file.name]))
        if file.size >= _LINKED_BYTES and (_is_linked(source, path) or _is_cloned(source, path)):
            continue
        free = shutil.disk_usage(target).free
        if free < file.size:
            raise HubError(
                f"{target.parents[1]} has {show_bytes(free)} free, and {file.name} needs {show_bytes(file.size)}; "
                "make room there, or set HF_HOME to a folder on that disk, so that it need not be copied",
                "disk",
            )
        shutil.copyfile(source, path)
        copied += file.size if file.size >= _LINKED_BYTES else 0
    return copied


def _is_linked(source: Path, path: Path) -> bool:
    try:
        os.link(source, path)
    except OSError:
        return False
    return True


def _is_cloned(source: Path, path: Path) -> bool:
    """A copy that shares its blocks, where the filesystem can do that."""
    try:
        with source.open("rb") as old, path.open("wb") as new:
            fcntl.ioctl(new, _FICLONE, old.fileno())
    except OSError:
        return False
    return True


def _move(stage: Path, folder: Path, version: LockedVersion) -> None:
    """Gives the filled folder its name: with its model's folder, if that is new."""
    target = folder / str(version.version)
    if target.is_dir():
        for file in version.files:
            if not (target / file.name).exists():
                (target / file.name).parent.mkdir(parents=True, exist_ok=True)
                (stage / "files" / file.name).rename(target / file.name)
    elif folder.is_dir():
        (stage / "files").rename(target)
    else:
        folder.parent.mkdir(parents=True, exist_ok=True)
        new = stage / "model"
        new.mkdir()
        (stage / "files").rename(new / target.name)
        new.rename(folder)


@contextmanager
def staged(root: Path, place: Path) -> Iterator[Path]:
    """A hidden folder in `place` for a version in the making; clears away those that a killed process left.

    HubError, OSError: the disk said no.
    """
    with ExitStack() as stack:
        with locked(root):
            for old in place.glob(f"{_STAGE}*"):
                with _held(old) as is_ours:
                    if is_ours:
                        shutil.rmtree(old, ignore_errors=True)
            stage = Path(tempfile.mkdtemp(prefix=_STAGE, dir=place))
            stack.callback(shutil.rmtree, stage, ignore_errors=True)
            stack.enter_context(_held(stage))
        yield stage


@contextmanager
def _held(folder: Path) -> Iterator[bool]:
    """A lock on a folder for as long as its process lives; False where another has it."""
    try:
        number = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    except OSError:
        yield False
        return
    try:
        yield _is_locked(number)
    finally:
        os.close(number)


def _is_locked(number: int) -> bool:
    try:
        fcntl.flock(number, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    return True
