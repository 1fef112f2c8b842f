"""What one scan found, as immutable values: models, versions, what is wrong."""

from pathlib import Path
from typing import Literal

from msgspec import Struct

from repository.config import ModelConfig
from repository.look import Tree
from repository.problem import Problem
from repository.remote.wanted import Remote
from repository.versions import Selection, select_versions


class VersionEntry(Struct, frozen=True):
    """One version on disk.

    `path` is its folder, or the file itself where a model is a loose file. `weights_path` is a file, a folder
    that is itself the weights, or None: either `problem` says why, or the configuration names a backend and
    there are none; then `no_weights` is what to say if it needs some. With a `source` something has to come from the
    network before a load: the weights, where `weights_path` is None. `stamp` changes with its files.
    """

    number: int
    path: Path
    weights_path: Path | None
    stamp: str
    problem: Problem | None = None
    no_weights: str = ""
    source: Remote | None = None


class ModelEntry(Struct, frozen=True):
    """One model on disk. With `problems` it cannot be served; `ignored` lists what was passed over, and why.

    `config` is None when the file is wrong, and all defaults when there is none; `config_item` is its place in a file
    that lists several. `settled` is False while the model's files are still arriving and no earlier state of it is
    known.
    """

    name: str
    path: Path
    kind: Literal["folder", "yaml", "file"]
    config: ModelConfig | None = ModelConfig()
    config_path: Path | None = None
    versions: tuple[VersionEntry, ...] = ()
    aliases: tuple[str, ...] = ()
    problems: tuple[Problem, ...] = ()
    ignored: tuple[Problem, ...] = ()
    settled: bool = True
    config_item: int | None = None

    @property
    def redirect(self) -> str | None:
        """The model that this name stands for, where it is nothing but another name."""
        return self.config.alias if self.config is not None else None

    @property
    def all_problems(self) -> tuple[Problem, ...]:
        """The model's own problems and its versions'."""
        return (*self.problems, *(version.problem for version in self.versions if version.problem))

    def version(self, number: int) -> VersionEntry | None:
        return next((version for version in self.versions if version.number == number), None)

    def selection(self) -> Selection:
        """The versions its policy serves."""
        policy = (self.config or ModelConfig()).version_policy
        return select_versions([version.number for version in self.versions], policy)


class Found(Struct, frozen=True):
    """The scan's memory of one place: what the last look saw, and the entries made when it last settled; `ignored` says
    why there are none."""

    tree: Tree
    outside: tuple[tuple[str, Tree | None], ...] = ()  # paths beyond the tree that the entry was made from
    entries: tuple[ModelEntry, ...] = ()
    is_built: bool = False  # `entries` were made from exactly this look
    waits_for: str = ""
    ignored: tuple[Problem, ...] = ()


class Snapshot(Struct, frozen=True):
    """A whole repository. `entries` are sorted by name; `models` has those that hold their name."""

    root: Path
    entries: tuple[ModelEntry, ...]
    models: dict[str, ModelEntry]
    aliases: dict[str, str]
    redirects: frozenset[str] = frozenset()  # aliases by which answers are named too
    waiting: tuple[Problem, ...] = ()
    ignored: tuple[Problem, ...] = ()
    is_moving: bool = False  # something changed since the last look; worth another look soon
    found: dict[str, Found] = {}

    def shows_same(self, other: "Snapshot") -> bool:
        """True when nothing a reader can see differs."""
        mine = (self.entries, self.waiting, self.ignored, self.aliases, self.redirects)
        return mine == (other.entries, other.waiting, other.ignored, other.aliases, other.redirects)
