"""One pass over a repository: from what `look` saw to a `Snapshot`. Reads configurations, never weights.

A model whose files changed since the last look waits for a look that sees no change; until then its last
entry stays in force. One model's trouble is that model's entry and nothing else.
"""

import logging
import os
from collections.abc import Iterator, Set
from pathlib import Path

import msgspec

from repository import pick
from repository.entries import CONFIG, Built, Unit, build_entry, unit_name
from repository.look import Tree, look, look_at
from repository.names import printable
from repository.naming import settle_names
from repository.options import Schemas
from repository.problem import Problem
from repository.snapshot import Found, ModelEntry, Snapshot
from repository.versions import looks_like_version, parse_version_folder

log = logging.getLogger(__name__)

DEPTH = 4  # owner / repo / version / a folder inside


class RepositoryError(Exception):
    """The repository itself cannot be read."""


def scan(root: Path | str, previous: Snapshot | None = None, *, schemas: Schemas | None = None) -> Snapshot:
    """Looks at every model below `root`.

    Hand in the last snapshot: what has not changed is taken from it; it is itself returned if nothing has.
    `schemas`: option schemas by backend name and alias; None leaves options unchecked.
    RepositoryError: there is no such folder, or it cannot be read.
    """
    root = Path(root)
    tree = look(os.fspath(root), DEPTH)
    if tree.error:
        raise RepositoryError(f"the repository {root} {tree.error}")
    before = previous.found if previous is not None else None
    found: dict[str, Found] = {}
    is_moving = False
    seen = list(units(tree))
    for unit in seen:
        last = before.get(unit.rel) if before is not None else None
        found[unit.rel] = now = _look_again(root, unit, last, is_first=before is None, schemas=schemas)
        is_moving |= now is not last and not now.is_built
    ignored = tuple(_passed_over(root, tree, {unit.rel for unit in seen}))
    if previous is not None and found == previous.found and ignored == previous.ignored:
        return previous if not previous.is_moving else msgspec.structs.replace(previous, is_moving=False)
    named = settle_names([each.entry for each in found.values() if each.entry is not None])
    waiting = [
        Problem(printable(str(root / rel)), 0, 0, each.waits_for)
        for rel, each in found.items()
        if each.waits_for
    ]
    return Snapshot(
        root=root,
        entries=named.entries,
        models=named.models,
        aliases=named.aliases,
        waiting=tuple(sorted(waiting)),
        ignored=ignored,
        is_moving=is_moving,
        found=found,
    )


def units(tree: Tree) -> Iterator[Unit]:
    """The models of a repository: folders, folders two deep, and at the root YAML and loose weight files."""
    for name, folder in tree.folders:
        subs = []
        if not folder.error and not _is_model(folder):
            subs = [(sub, each) for sub, each in folder.folders if each.error or _is_model(each)]
        yield from (Unit(f"{name}/{sub}", "folder", each) for sub, each in subs)
        if not subs:
            yield Unit(name, "folder", folder)
    stamps = {file.name: file for file in tree.files}
    for name, stamp in stamps.items():
        if name.endswith((".yaml", ".yml")):
            yield Unit(name, "yaml", Tree((stamp,)))
    for name in pick.first_parts([name for name in stamps if name.lower().endswith(".gguf")]):
        yield Unit(name, "file", Tree(tuple(stamps[part] for part in pick.parts_of(name) if part in stamps)))


def _is_model(tree: Tree) -> bool:
    return (
        any(name in (CONFIG, "config.json") for name in tree.names)
        or any(parse_version_folder(name) or looks_like_version(name) for name, _ in tree.folders)
        or pick.holds_weights(tree.names)
    )


def _look_again(
    root: Path, unit: Unit, last: Found | None, *, is_first: bool, schemas: Schemas | None
) -> Found:
    outside = tuple((path, look_at(path)) for path, _ in last.outside) if last else ()
    is_same = last is not None and last.tree == unit.tree and last.outside == outside
    if last is not None and is_same and last.is_built:
        return last
    unfinished = pick.unfinished([name for tree in _all_trees(unit.tree) for name in tree.names])
    if not unfinished and (is_same or is_first):
        try:
            built = build_entry(root, unit, schemas)
        except Exception as error:  # whatever it is, it must not hide the other models
            log.exception("the model in %s cannot be understood", printable(str(root / unit.rel)))
            message = f"cannot be understood: {type(error).__name__}: {error}"
            problem = Problem(printable(str(root / unit.rel)), 0, 0, message)
            built = Built(ModelEntry(unit_name(unit), root / unit.rel, unit.kind, None, problems=(problem,)))
        return Found(unit.tree, built.outside, built.entry, is_built=True)
    waits_for = f"still being copied ({unfinished or 'its files are changing'})"
    entry = last.entry if last else None
    if entry is None or not entry.settled:
        problem = Problem(printable(str(root / unit.rel)), 0, 0, waits_for)
        entry = ModelEntry(unit_name(unit), root / unit.rel, unit.kind, problems=(problem,), settled=False)
    now = Found(unit.tree, outside, entry, waits_for=waits_for)
    return last if last is not None and last == now else now


def _passed_over(root: Path, tree: Tree, listed: Set[str]) -> Iterator[Problem]:
    """Things at the root that are no models but might have been meant as one."""

    def problem(rel: str, message: str) -> Problem:
        return Problem(printable(str(root / rel)), 0, 0, message)

    for file in tree.files:
        if file.size < 0 and not file.name.lower().endswith(".gguf"):
            yield problem(file.name, "a link that leads nowhere")
        elif pick.unfinished([file.name]):
            yield problem(file.name, "still being copied")
        elif pick.holds_weights([file.name]) and not file.name.lower().endswith(".gguf"):
            yield problem(
                file.name, "only .gguf files can stand alone; put this one into a folder of its own"
            )
    for name, folder in tree.folders:
        if name not in listed:
            for sub, _ in folder.folders:
                if f"{name}/{sub}" not in listed:
                    yield problem(f"{name}/{sub}", "no weights in this folder")


def _all_trees(tree: Tree) -> Iterator[Tree]:
    yield tree
    for _, folder in tree.folders:
        yield from _all_trees(folder)
