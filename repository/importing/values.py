"""What is found in another program's store, before anything is done with it."""

from pathlib import Path
from typing import Any

from msgspec import Struct


class ImportProblem(Exception):
    """The store, or one model of it, cannot be imported; the message is one sentence."""


class SourceFile(Struct, frozen=True):
    """A file to take over: where it really lies, its name in the version's folder, its size."""

    path: Path
    name: str
    size: int


class Importable(Struct, frozen=True, kw_only=True):
    """One model of a store. `label` is what the store calls it, `name` what it shall be called here.

    `files` are its weights and what lies beside them; `texts` are small files to write (name -> content); `config` are
    keys of a `config.yaml`. With `problem` it cannot be imported; `notes` say what is left behind, and why.
    """

    name: str
    label: str
    files: tuple[SourceFile, ...] = ()
    texts: dict[str, str] = {}
    config: dict[str, Any] = {}
    notes: tuple[str, ...] = ()
    problem: str = ""

    @property
    def size(self) -> int:
        return sum(file.size for file in self.files)


def source_file(path: Path, name: str | None = None) -> SourceFile:
    """A file as it lies on disk, links followed. ImportProblem: it is not there, or is no file."""
    real = path.resolve()
    try:
        if real.is_file():
            return SourceFile(real, name or path.name, real.stat().st_size)
    except OSError as error:
        raise ImportProblem(f"{path} cannot be read: {error.strerror}") from error
    if path.is_symlink():
        raise ImportProblem(f"{path} is a link that leads nowhere: download it again with its own program")
    raise ImportProblem(f"{path} is missing: download it again with its own program")


def files_below(folder: Path) -> tuple[SourceFile, ...]:
    """Every visible file of a folder and of those inside it. ImportProblem: a link leads nowhere."""
    found = []
    for path in sorted(folder.rglob("*")):
        name = path.relative_to(folder)
        if not any(part.startswith(".") for part in name.parts) and not path.is_dir():
            found.append(source_file(path, name.as_posix()))
    return tuple(found)
