"""`modelyard.lock` at a repository's root: where each version that was pulled came from, with sizes and hashes.

Read strictly, written whole or not at all, under a file lock that parallel pulls share.
"""

import fcntl
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import msgspec
from msgspec import Struct

from repository.document import read_document
from repository.hub.errors import HubError
from repository.hub.failures import disk_problem
from repository.hub.reference import is_inside

NAME = "modelyard.lock"
_GUARD = ".modelyard.lock.held"
_FORMAT = 1
_HEAD = "# Written by modelyard pull: what each version is, and where it came from. `modelyard pull` restores it.\n"


class LockedFile(Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """A file of a version; `source` is its name on the hub where that is another one."""

    name: str
    size: int
    sha256: str
    source: str = ""

    @property
    def on_hub(self) -> str:
        return self.source or self.name


class LockedVersion(Struct, frozen=True, forbid_unknown_fields=True):
    """One version of a model, as it was pulled. `revision` is a commit."""

    model: str
    version: int
    repo: str
    revision: str
    files: tuple[LockedFile, ...]

    @property
    def folder(self) -> str:
        """Its path below the repository's root."""
        return f"{self.model}/{self.version}"


class _Content(Struct, frozen=True, forbid_unknown_fields=True):
    format: int
    versions: tuple[LockedVersion, ...] = ()


def read_lock(root: Path) -> tuple[LockedVersion, ...]:
    """What the lock file says; nothing where there is none. HubError: it cannot be read."""
    path = root / NAME
    if not path.exists():
        return ()
    document = read_document(path)
    if document.problems or document.root is None:
        raise HubError("; ".join(str(problem) for problem in document.problems), "broken")
    try:
        content = msgspec.convert(document.root.plain(), _Content)
    except msgspec.ValidationError as error:
        raise HubError(f"{path}: {error}; mend it, or move it away and pull again", "broken") from error
    if content.format != _FORMAT:
        raise HubError(f"{path} is of format {content.format}; this Modelyard knows {_FORMAT}", "broken")
    for each in content.versions:
        if outside := [
            name for name in (each.model, *(file.name for file in each.files)) if not is_inside(name)
        ]:
            raise HubError(f"{path}: {outside[0]!r} is no place in this repository", "broken")
    return content.versions


def write_lock(root: Path, versions: tuple[LockedVersion, ...]) -> None:
    """Replaces the lock file. Hold `locked(root)`."""
    content = _HEAD + "".join(_lines(sorted(versions, key=lambda each: (each.model, each.version))))
    new = root / f".{NAME}.new"
    with new.open("w", encoding="utf-8") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    new.replace(root / NAME)


@contextmanager
def locked(root: Path) -> Iterator[None]:
    """Nobody else publishes into the repository, or writes its lock file, meanwhile; makes it where there is none.

    HubError: it cannot be written to.
    """
    try:
        root.mkdir(parents=True, exist_ok=True)
        guard = (root / _GUARD).open("a")
    except OSError as error:
        raise disk_problem(error) from error
    with guard:
        fcntl.flock(guard, fcntl.LOCK_EX)
        yield


def _lines(versions: list[LockedVersion]) -> Iterator[str]:
    """YAML, every text in quotes: a hash may look like a number."""
    yield f"format: {_FORMAT}\nversions:{'' if versions else ' []'}\n"
    for each in versions:
        yield f"- model: {_text(each.model)}\n  version: {each.version}\n  repo: {_text(each.repo)}\n"
        yield f"  revision: {_text(each.revision)}\n  files:{'' if each.files else ' []'}\n"
        for file in each.files:
            yield f"  - name: {_text(file.name)}\n    size: {file.size}\n    sha256: {_text(file.sha256)}\n"
            if file.source:
                yield f"    source: {_text(file.source)}\n"


def _text(value: str) -> str:
    return json.dumps(value, ensure_ascii=False)
