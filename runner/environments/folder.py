"""The environments there are. Looks at the disk anew whenever it is asked: commands make and remove environments while
servers run. Makes none, and starts a process only for one whose packages have changed since it was described.
"""

import contextlib
import difflib
import hashlib
import os
import re
from pathlib import Path
from typing import TypeVar

import msgspec

from backends.registry import Elsewhere
from runner.environments.describing import describe_specs
from runner.environments.half import mismatch, own_half
from runner.environments.values import (
    RECORD,
    REQUEST,
    Environment,
    EnvironmentProblem,
    Record,
    Wanted,
    WorkerHalf,
)

NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")

Value = TypeVar("Value")


class Environments:
    """Those in `STATE_DIR/environments`."""

    def __init__(self, state_dir: Path) -> None:
        self.state_dir = state_dir.absolute()
        self.folder = self.state_dir / "environments"
        self._mine: WorkerHalf | None = None

    def all(self) -> tuple[Environment, ...]:
        """By name, half-made ones too."""
        try:
            names = sorted(each.name for each in self.folder.iterdir() if each.is_dir())
        except OSError:
            return ()
        return tuple(self._read(name) for name in names if NAME.fullmatch(name))

    def find(self, name: str) -> Environment | None:
        is_there = NAME.fullmatch(name) is not None and (self.folder / name).is_dir()
        return self._read(name) if is_there else None

    def get(self, name: str) -> Environment:
        """Raises EnvironmentProblem with close names."""
        found = self.find(name)
        if found is None:
            names = [each.name for each in self.all()]
            close = difflib.get_close_matches(name, names, n=1)
            there = f"there are {', '.join(names)}" if names else "`modelyard env create` makes one"
            hint = f"did you mean {close[0]!r}?" if close else there
            raise EnvironmentProblem(f"there is no environment {name!r}; {hint}")
        return found

    def of_backend(self, backend: str) -> Environment | None:
        """The one that serves a backend: that of its name, or else the first that does."""
        able = [each for each in self.all() if each.serves(backend)]
        return min(able, key=lambda each: (each.name != backend, each.record is None), default=None)

    def problem(self, environment: Environment) -> str:
        """Why no worker can run in it, and the command that mends it; empty where one can."""
        named = f"environment {environment.name!r}"
        if environment.record is None:
            return f"{named} was left half-made; run `{environment.remedy}`"
        if not environment.python.exists():
            return f"the Python of {named} is gone; run `{environment.remedy}`"
        if self._mine is None:
            self._mine = own_half()
        differs = mismatch(environment.record.half, self._mine)
        return f"{named} {differs}; run `{environment.remedy}`" if differs else ""

    def plugins(self) -> tuple[Elsewhere, ...]:
        """The plugins of others in all of them."""
        return tuple(self._plugins(each, each.record) for each in self.all() if each.record is not None)

    def _plugins(self, environment: Environment, record: Record) -> Elsewhere:
        if record.stamp != stamp_of(environment.folder) and not self.problem(environment):
            record = _described_again(environment, record)
        description = record.description
        foreign = [each.spec for each in description.backends if not each.is_built_in]
        return Elsewhere(environment.place, specs=tuple(foreign), broken=description.broken)

    def _read(self, name: str) -> Environment:
        folder = self.folder / name
        return Environment(
            name=name,
            folder=folder,
            wanted=_decode(folder / REQUEST, Wanted),
            record=_decode(folder / RECORD, Record),
        )


def _described_again(environment: Environment, record: Record) -> Record:
    """What was found in it by trying still counts; to try again would take too long for the start of a server. An
    environment that does not answer is not asked at every start either."""
    stamp, old = stamp_of(environment.folder), record.description
    built_in = [each for each in old.backends if each.is_built_in]
    try:
        new = describe_specs(environment.python)
        foreign = [msgspec.structs.replace(each, found=old.found(each.name)) for each in new.backends]
    except EnvironmentProblem as error:
        broken = {environment.place: f"{error}; run `{environment.remedy}`"}
        new, foreign = msgspec.structs.replace(old, broken=broken), []
    description = msgspec.structs.replace(new, backends=(*built_in, *foreign))
    record = msgspec.structs.replace(record, stamp=stamp, description=description)
    with contextlib.suppress(OSError):  # whoever may not write looks again the next time
        write(environment.folder / RECORD, record)
    return record


def site_packages(folder: Path) -> Path | None:
    """Where an environment has its packages; None where it has no such folder."""
    return next(folder.glob("lib/python*/site-packages"), None)


def stamp_of(folder: Path) -> str:
    """A hash of what an environment has installed, empty where it has no packages. Opens no file."""
    place = site_packages(folder)
    if place is None:
        return ""
    with os.scandir(place) as entries:
        seen = [(each.name, each.stat().st_mtime_ns) for each in entries if each.name.endswith(".dist-info")]
    return hashlib.blake2b(repr(sorted(seen)).encode(), digest_size=16).hexdigest()


def write(path: Path, value: msgspec.Struct) -> None:
    """Write a value as JSON for people and programs, whole or not at all."""
    partial = path.with_name(f".{path.name}.{os.getpid()}")
    partial.write_bytes(msgspec.json.format(msgspec.json.encode(value), indent=2) + b"\n")
    partial.replace(path)


def _decode(path: Path, kind: type[Value]) -> Value | None:
    try:
        return msgspec.json.decode(path.read_bytes(), type=kind)
    except (OSError, msgspec.MsgspecError):
        return None
