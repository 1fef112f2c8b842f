"""What a process that fetches is told, in the one line on its stdin, and what it tells, a line each."""

from msgspec import Struct

from repository.hub.errors import Kind
from repository.remote.wanted import Remote


class Job(Struct, frozen=True):
    """`keep_free_bytes`: it stops where less than this would stay free on the disk."""

    remote: Remote
    state_dir: str
    keep_free_bytes: int = 0


class Moved(Struct, frozen=True, tag=True):
    """So much is there; `total_bytes` grows as more becomes known."""

    done_bytes: int
    total_bytes: int


class Said(Struct, frozen=True, tag=True):
    """A line for the log."""

    text: str


class Done(Struct, frozen=True, tag=True):
    """All is there. `weights`: what an engine loads, None where that was on disk already."""

    weights: str | None


class Failed(Struct, frozen=True, tag=True):
    """One sentence for a person."""

    message: str
    kind: Kind


Told = Moved | Said | Done | Failed
