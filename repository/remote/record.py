"""What was fetched for whom, in the state folder: a restart loads the same weights, and asks nobody for it."""

import os
import tempfile
from pathlib import Path

import msgspec
from msgspec import Struct

from repository.remote.wanted import Remote

FOLDER = "fetched"


class Kept(Struct, frozen=True):
    """A file that was fetched, and its size in bytes."""

    path: str
    size: int


class Record(Struct, frozen=True):
    """`weights` is what an engine loads, None where the weights are not among what was fetched. `revision` is the
    commit that the hub's repository was at."""

    what: str
    weights: str | None
    files: tuple[Kept, ...]
    revision: str | None = None

    @property
    def is_whole(self) -> bool:
        """Every file is there in its size."""
        return all(_size(file.path) == file.size for file in self.files)


def read_record(state_dir: Path, remote: Remote) -> Record | None:
    """What was fetched for this wish, whole or not any more; None: nothing, or nothing that can be read."""
    try:
        return msgspec.json.decode(_place(state_dir, remote).read_bytes(), type=Record)
    except (OSError, msgspec.MsgspecError):
        return None


def known(state_dir: Path, remote: Remote) -> Record | None:
    """The same, where all of it is still there."""
    record = read_record(state_dir, remote)
    return record if record is not None and record.is_whole else None


def write_record(state_dir: Path, remote: Remote, record: Record) -> None:
    """Raises OSError."""
    place = _place(state_dir, remote)
    place.parent.mkdir(parents=True, exist_ok=True)
    text = msgspec.json.format(msgspec.json.encode(record), indent=2)
    with tempfile.NamedTemporaryFile(dir=place.parent, suffix=".tmp", delete=False) as file:
        file.write(text)
    os.replace(file.name, place)  # noqa: PTH105


def _place(state_dir: Path, remote: Remote) -> Path:
    return state_dir / FOLDER / f"{remote.key}.json"


def _size(path: str) -> int | None:
    try:
        return Path(path).stat().st_size
    except OSError:
        return None
