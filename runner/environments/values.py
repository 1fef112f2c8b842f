"""What an environment was asked to hold, what it holds, and what can be wrong with one."""

from pathlib import Path
from typing import Literal

import msgspec

from runner.wire.description import Description

Device = Literal["cpu", "cuda"]

REQUEST = "request.json"
RECORD = "environment.json"
"""Written last: an environment without it was left half-made."""


class EnvironmentProblem(Exception):
    """An environment cannot be made, found or used; the message says why and what to do."""


class Wanted(msgspec.Struct, frozen=True, kw_only=True):
    """What somebody asked for. `backends` have requirement sets of ours; `packages` are requirements as pip takes
    them, such as a plugin's name or folder. `python` is a version or an interpreter, empty for the server's own."""

    backends: tuple[str, ...] = ()
    packages: tuple[str, ...] = ()
    device: Device = "cpu"
    python: str = ""
    find_links: tuple[str, ...] = ()


class WorkerHalf(msgspec.Struct, frozen=True, kw_only=True):
    """The code of the worker's half that an environment runs: a copy with the hash `stamp`, or the checkout at
    `folder` itself, which has none."""

    folder: str
    stamp: str = ""
    version: str = ""


class Record(msgspec.Struct, frozen=True, kw_only=True):
    """What an environment holds. `stamp` changes with what is installed; `description` was given at that state."""

    wanted: Wanted
    half: WorkerHalf
    stamp: str
    description: Description


class Environment(msgspec.Struct, frozen=True, kw_only=True):
    """An environment on disk. `record` is None where it was left half-made; `wanted` too where even that is lost."""

    name: str
    folder: Path
    wanted: Wanted | None = None
    record: Record | None = None

    @property
    def python(self) -> Path:
        """Its interpreter. Not resolved: the link's own place tells Python which environment it is."""
        return self.folder / "bin" / "python"

    @property
    def place(self) -> str:
        """It, in words."""
        return f"environment {self.name}"

    @property
    def remedy(self) -> str:
        """The command that brings it in order."""
        return f"modelyard env create {self.name} --refresh"

    def serves(self, backend: str) -> bool:
        """It was made for that backend, or a plugin of that name was found in it."""
        if self.record is not None:
            return any(each.name == backend for each in self.record.description.backends)
        return self.wanted is not None and backend in self.wanted.backends
