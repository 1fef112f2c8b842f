"""What passes between the parts of the hub: files on it, what to choose, progress, what was fetched."""

from collections.abc import Callable, Sequence
from pathlib import Path

from msgspec import Struct


class HubFile(Struct, frozen=True):
    """A file of a repository. `sha256` is None for small files kept in git itself; `blob` is their git id."""

    name: str
    size: int
    sha256: str | None = None
    blob: str | None = None

    @property
    def key(self) -> str:
        """The hash that the hub knows its content by; empty where it tells none."""
        return self.sha256 or self.blob or ""


class Listing(Struct, frozen=True):
    """A repository at one commit. `is_cached`: told by the cache, as the hub could not be asked; maybe not all."""

    repo: str
    revision: str
    files: tuple[HubFile, ...]
    is_cached: bool = False


class Quantisation(Struct, frozen=True):
    """One of several quantisations in a repository: its label, such as `Q4_K_M`, and its files."""

    label: str
    files: tuple[HubFile, ...]

    @property
    def size(self) -> int:
        return sum(file.size for file in self.files)


class Choice(Struct, frozen=True):
    """Which files are wanted. `allow` and `ignore` are patterns as in a shell (`*.gguf`).

    `ask` is called where a repository has several quantisations and `quant` names none: it is given them and the
    label to suggest, and returns the label to take.
    """

    quant: str | None = None
    allow: tuple[str, ...] = ()
    ignore: tuple[str, ...] = ()
    ask: Callable[[Sequence[Quantisation], str], str] | None = None


class Progress(Struct, frozen=True):
    """How far a download is. The totals are of all its files, the `file_` ones of the one that is on its way."""

    file: str
    done_bytes: int
    total_bytes: int
    file_done_bytes: int
    file_total_bytes: int


class FetchedFile(Struct, frozen=True):
    """A file that is here. `name` as on the hub, `place` where it lies in the cache."""

    name: str
    size: int
    sha256: str
    place: Path


class Fetched(Struct, frozen=True):
    """`path` is what an engine loads: a file (of a split one the first part) or a folder. `revision` is a commit.

    `notes`: what a person should know about how this was chosen or had.
    """

    path: Path
    repo: str
    revision: str
    files: tuple[FetchedFile, ...]
    notes: tuple[str, ...] = ()
