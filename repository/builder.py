"""Builds one model's entry from its configuration and the files that its folder, or the file at the root, has:
versions, their weights, and what is wrong. What kind of place it is has been decided elsewhere (`repository.entries`).
"""

import hashlib
from collections.abc import Iterator, Mapping
from functools import partial
from pathlib import Path, PurePosixPath

from msgspec import Struct
from msgspec.structs import replace

from repository import pick
from repository.config import ModelConfig, Split
from repository.config_file import OVERRIDES, Loaded, locate
from repository.look import Tree, look_at
from repository.names import name_problem, printable
from repository.problem import Problem
from repository.remote.wanted import local_name, remote_of
from repository.snapshot import ModelEntry, VersionEntry
from repository.triton.model import MODEL_JSON
from repository.versions import looks_like_version, parse_version_folder, select_versions

CONFIG = "config.yaml"


class Built(Struct, frozen=True):
    """The entries of a unit, and what was looked at beyond its own tree to make them. `ignored` says why there are
    none."""

    entries: tuple[ModelEntry, ...]
    outside: tuple[tuple[str, Tree | None], ...] = ()
    ignored: tuple[Problem, ...] = ()


class EntryBuilder:
    """Gathers problems on the way. Call `build` for a folder, `build_file` for a file at the root."""

    def __init__(
        self, root: Path, path: Path, tree: Tree, *, name: str, loaded: Loaded, config_path: Path | None
    ) -> None:
        self.root = root
        self.path = path
        self.tree = tree
        self.name = name
        self.config_path = config_path
        self.config_item: int | None = None
        self.loaded = loaded
        self.config = loaded.config or ModelConfig()
        self.problems: list[Problem] = list(self.loaded.problems)
        self.ignored: list[Problem] = []
        self.outside: dict[str, Tree | None] = {}
        self.weights: Mapping[int, str] = {}  # what a version's own file names as its weights

    def build(self) -> Built:
        if self.tree.error:
            self.problems.append(self._problem(self.tree.error))
        if self.loaded.name is None and (message := name_problem(self.name)):
            self.problems.append(self._problem(message))
        if "config.yml" in self.tree.names:
            self.ignored.append(self._problem("not read; rename it to config.yaml", "config.yml"))
        if self.config.alias is not None:
            other = self.config.alias
            message = (
                f'alias: a folder is a model of its own; write this name into the `aliases` of "{other}"'
            )
            self.problems.append(self._config_problem(message, "alias"))
        versions = tuple(self._versions())
        if self.loaded.config is not None:
            self._check_policy([version.number for version in versions])
        self._watch_templates()
        self._note_idle()
        entry = ModelEntry(
            self.loaded.name or printable(self.name),
            self.path,
            "folder",
            self.loaded.config,
            self.config_path,
            versions,
            problems=tuple(self.problems),
            ignored=(*self.loaded.notes, *self.ignored),
        )
        return Built((entry,), tuple(self.outside.items()))

    def build_file(self, item: int | None = None) -> ModelEntry:
        """The entry of a model that is a file at the root: its one version is the weights that the file names. `item`
        is its place in a file that lists several."""
        self.config_item = item
        if self.loaded.name is None and (message := name_problem(self.name)):
            self.problems.append(self._problem(message))
        versions: tuple[VersionEntry, ...] = ()
        if self.loaded.config is not None and self.config.alias is None:
            versions = (self._file_version(),)
            self._check_policy([1])
        self._watch_templates()
        self._note_idle()
        return ModelEntry(
            self.loaded.name or printable(self.name),
            self.path,
            "yaml",
            self.loaded.config,
            self.config_path,
            versions,
            problems=tuple(self.problems),
            ignored=(*self.loaded.notes, *self.ignored),
            config_item=item,
        )

    def _file_version(self) -> VersionEntry:
        if self._names_weights:
            version = self._version(1, self.root, Tree())
            return replace(version, path=version.weights_path or self.path)
        message, problem = "no weights; name them in parameters.model", None
        if self.config.backend is None:
            problem = Problem(str(self.path), 0, 0, message)
        return VersionEntry(1, self.path, None, fingerprint(Tree()), problem, message)

    def _watch_templates(self) -> None:
        """Behind the versions, whose stamps hold what was looked at by then: templates are no weights."""
        self.outside |= {str(path): look_at(str(path)) for path in self.loaded.template_files}

    def _note_idle(self) -> None:
        """What of an artifact is the business of whoever wrote it."""
        for artifact in self.config.artifacts:
            for key in ("endpoint", "cache_key"):
                if artifact.resolved is not None and getattr(artifact.resolved, key) is not None:
                    message = f"artifacts.resolved.{key}: no effect; HF_ENDPOINT and HF_HOME say that"
                    self.ignored.append(self._config_problem(message, "artifacts"))

    def _versions(self) -> Iterator[VersionEntry]:
        numbered = {
            number: (name, tree) for name, tree in self.tree.folders if (number := parse_version_folder(name))
        }
        for name, _ in self.tree.folders:
            if looks_like_version(name) or (numbered and not parse_version_folder(name)):
                self.ignored.append(self._problem("not a version: those are folders named 1, 2, 3 ...", name))
        holds_weights = pick.holds_weights(self.tree.names)
        if numbered and holds_weights:
            self.ignored.append(self._problem("weights beside version folders are not used"))
        for number, (name, tree) in sorted(numbered.items()):
            yield self._version(number, self.path / name, tree)
        if numbered or self.tree.error:
            return
        if self.ignored and not holds_weights and not self._names_weights:
            self.problems.append(self._problem("no version: expected weights, or folders named 1, 2, 3 ..."))
        else:
            yield self._version(1, self.path, self.tree)

    @property
    def _names_weights(self) -> bool:
        config = self.config
        return bool(config.parameters.model or config.artifacts or config.download_files)

    def _version(self, number: int, path: Path, tree: Tree) -> VersionEntry:
        if tree.error:
            unread = Problem(printable(str(path)), 0, 0, tree.error)
            return VersionEntry(number, path, None, fingerprint(tree), unread)
        named = self.weights.get(number) or self.config.parameters.model
        chosen, message = self._named(path, tree, named) if named else self._picked(path, tree)
        source = remote_of(self.config, named, has=partial(self._has, path), has_weights=not message)
        if source is not None:
            message = ""
        no_weights = ""
        if not named and message and self.config.backend and not pick.holds_weights(tree.names):
            message, no_weights = "", message  # some backends need none; theirs is the word
        problem = None
        if message and number in self.weights:
            message = message.removeprefix("parameters.")
            problem = Problem(printable(str(path / MODEL_JSON)), 0, 0, message)
        elif message and named:
            problem = self._config_problem(message, "parameters", "model")
        elif message:
            problem = Problem(printable(str(path)), 0, 0, message)
        stamp = fingerprint(tree, *self.outside.items())
        return VersionEntry(number, path, chosen, stamp, problem, no_weights, source)

    def _picked(self, path: Path, tree: Tree) -> tuple[Path | None, str]:
        choice = pick.pick_weights(tree.names)
        if message := dead_links(tree):
            return None, message
        return (None, choice.message) if choice.name is None else (path / choice.name, "")

    def _named(self, path: Path, tree: Tree, named: str) -> tuple[Path | None, str]:
        """The weights that `parameters.model` names: in the version's folder, or else below the root."""
        local = local_name(self.config, named)
        if local is None:
            return None, f'parameters.model: "{named}" is not on disk'
        named = local
        *folders, last = PurePosixPath(named).parts or (".",)
        inside: Tree | None = tree
        for folder in folders:
            inside = inside.folder(folder) if inside else None
        if inside and last in inside.names:
            missing = pick.missing_parts([last], inside.names)
            return (None, f"incomplete: {', '.join(missing[:5])} missing") if missing else (path / named, "")
        if inside and (last == "." or inside.folder(last)):
            return path / named, ""
        for place in dict.fromkeys((path / named, self.root / named)):
            there = self.outside[str(place)] = look_at(str(place))
            if there is not None:
                return self._outside(place, there)
        places = " or ".join(printable(str(place)) for place in dict.fromkeys((path, self.root)))
        message = f'parameters.model: no "{named}" in {places}'
        if "/" in named:
            message += "; a model on a hub is written owner/repo, or owner/repo/file"
        return None, message

    def _has(self, path: Path, name: str) -> bool:
        """There is such a file, in the version's folder or below the root."""
        for place in (path / name, self.root / name):
            self.outside[str(place)] = look_at(str(place))
            if self.outside[str(place)] is not None:
                return True
        return False

    def _outside(self, place: Path, tree: Tree) -> tuple[Path | None, str]:
        """The weights at a place beyond the version's folder: a file with all its parts, or what a folder holds, the
        latest version where it is a model's."""
        if not place.is_dir():
            parts = [place.with_name(name) for name in pick.parts_of(place.name)]
            for part in parts[1:]:
                self.outside[str(part)] = look_at(str(part))
            missing = [part.name for part in parts[1:] if self.outside[str(part)] is None]
            return (None, f"incomplete: {', '.join(missing[:5])} missing") if missing else (place, "")
        numbers = {number: name for name, _ in tree.folders if (number := parse_version_folder(name))}
        if numbers and not pick.holds_weights(tree.names):
            name = numbers[max(numbers)]
            place, tree = place / name, tree.folder(name) or Tree()
        choice = pick.pick_weights(tree.names)
        if choice.name is None and pick.holds_weights(tree.names):
            return None, f"parameters.model: {printable(str(place))}: {choice.message}"
        return (place / choice.name if choice.name else place), ""

    def _check_policy(self, available: list[int]) -> None:
        chosen = select_versions(available, self.config.version_policy)
        if chosen.missing:
            missing = ", ".join(map(str, chosen.missing))
            place = ("version_policy", "specific", "versions")
            problem = self._config_problem(f"there is no version {missing}", *place)
            (self.ignored if chosen.versions else self.problems).append(problem)
        served = ", ".join(map(str, chosen.versions)) or "none"
        wanted: list[tuple[int, tuple[str, ...]]] = []
        match self.config.default_version:
            case Split(weights):
                wanted = [(int(version), ("default_version", "weights", version)) for version in weights]
            case int(version):
                wanted = [(version, ("default_version",))]
        for version, keys in wanted:
            if version not in chosen.versions:
                message = f"{'.'.join(keys[:2])}: version {version} is not served (served: {served})"
                self.problems.append(self._config_problem(message, *keys))

    def _config_problem(self, message: str, *keys: str) -> Problem:
        if self.config_path is None:
            return Problem(OVERRIDES, 0, 0, message)
        where = locate(self.config_path, *keys, item=self.config_item)
        return Problem(str(self.config_path), *where, message)

    def _problem(self, message: str, rel: str = "") -> Problem:
        return Problem(printable(str(self.path / rel)), 0, 0, message)


def dead_links(tree: Tree) -> str:
    """What to say of weights that are a link to nothing."""
    dead = [file.name for file in tree.files if file.size < 0 and pick.holds_weights([file.name])]
    return f"{dead[0]} is a link that leads nowhere" if dead else ""


def fingerprint(tree: Tree, *outside: object) -> str:
    """A fingerprint of weights. The configuration is left out: it is compared as a value."""
    files = tuple(file for file in tree.files if file.name != CONFIG)
    return hashlib.blake2b(repr((files, tree.folders, outside)).encode(), digest_size=16).hexdigest()
