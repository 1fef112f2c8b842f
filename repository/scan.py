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
from repository.builder import CONFIG, Built
from repository.entries import Unit, build_entry, is_hub_cache, unit_name
from repository.look import Tree, look, look_at
from repository.names import printable
from repository.naming import settle_names, used_weights
from repository.options import Schemas
from repository.problem import Problem
from repository.snapshot import Found, ModelEntry, Snapshot
from repository.triton.pbtxt import NAME as PBTXT
from repository.versions import looks_like_version, parse_version_folder

log = logging.getLogger(__name__)

DEPTH = 4  # owner / repo / version / a folder inside
_STORE = ("blobs", "manifests")
LEVELS = 3  # how deep folders may stand that are models


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
    entries = [entry for each in found.values() for entry in each.entries]
    ignored = tuple(_passed_over(root, tree, {unit.rel for unit in seen}, used=used_weights(entries)))
    ignored += tuple(problem for each in found.values() for problem in each.ignored)
    if previous is not None and found == previous.found and ignored == previous.ignored:
        return previous if not previous.is_moving else msgspec.structs.replace(previous, is_moving=False)
    named = settle_names(entries)
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
        redirects=named.redirects,
        waiting=tuple(sorted(waiting)),
        ignored=ignored,
        is_moving=is_moving,
        found=found,
    )


def units(tree: Tree) -> Iterator[Unit]:
    """The models of a repository: folders, folders inside these, and at the root YAML and loose weight files. Or the
    one model that the folder itself is."""
    if _is_alone(tree):
        yield Unit(".", "folder", tree)
        return
    for name, folder in tree.folders:
        if not (name in _STORE and _is_store(tree)):
            yield from _inside(name, folder, LEVELS - 1) or [Unit(name, "folder", folder)]
    for file in tree.files:
        if file.name.endswith((".yaml", ".yml")):
            yield Unit(file.name, "yaml", Tree((file,)))
    yield from _loose("", tree)


def _inside(rel: str, folder: Tree, levels: int) -> list[Unit]:
    """The models of a folder: the one that it is, those of a heap of GGUFs, or those of its folders."""
    if folder.error:
        return [Unit(rel, "folder", folder)]
    is_heap = _is_heap(folder)
    if not is_heap and (_is_model(folder) or is_hub_cache(rel, folder)):
        return [Unit(rel, "folder", folder)]
    loose = list(_loose(f"{rel}/", folder)) if is_heap else []
    found = (
        [unit for sub, each in folder.folders for unit in _inside(f"{rel}/{sub}", each, levels - 1)]
        if levels
        else []
    )
    if len(loose) == 1 and not found:
        return [Unit(rel, "folder", folder)]
    return [*found, *loose]


def _loose(prefix: str, tree: Tree) -> Iterator[Unit]:
    """Each GGUF of a folder, split files as one; projectors belong to the model that they lie beside."""
    stamps = {file.name: file for file in tree.files if file.name.lower().endswith(".gguf")}
    for name in pick.first_parts([name for name in stamps if not pick.is_projector(name)]):
        parts = Tree(tuple(stamps[part] for part in pick.parts_of(name) if part in stamps))
        yield Unit(f"{prefix}{name}", "file", parts)


def _is_model(tree: Tree) -> bool:
    return (
        any(name in (CONFIG, PBTXT, "config.json") for name in tree.names)
        or any(parse_version_folder(name) or looks_like_version(name) for name, _ in tree.folders)
        or pick.holds_weights(tree.names)
    )


def _is_store(tree: Tree) -> bool:
    """An Ollama store: weights are named by their hashes there, and manifests say what they are."""
    return all(tree.folder(name) is not None for name in _STORE)


def _is_heap(tree: Tree) -> bool:
    """Nothing but GGUFs say what is in it: each may be a model of its own."""
    names = tree.names
    return (
        any(name.lower().endswith(".gguf") and not pick.is_projector(name) for name in names)
        and CONFIG not in names
        and PBTXT not in names
        and not any(name.endswith(".safetensors") for name in names)
        and not any(parse_version_folder(name) or looks_like_version(name) for name, _ in tree.folders)
    )


def _is_alone(tree: Tree) -> bool:
    """The root is a model itself: a checkpoint, or a configuration beside version folders."""
    names = tree.names
    if CONFIG in names or PBTXT in names:
        return any(parse_version_folder(name) for name, _ in tree.folders)
    return "config.json" in names and pick.is_checkpoint(names)


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
            built = Built(
                (ModelEntry(unit_name(root, unit), root / unit.rel, unit.kind, None, problems=(problem,)),)
            )
        return Found(unit.tree, built.outside, built.entries, is_built=True, ignored=built.ignored)
    waits_for = f"still being copied ({unfinished or 'its files are changing'})"
    entries, ignored = (last.entries, last.ignored) if last else ((), ())
    if not ignored and not any(entry.settled for entry in entries):
        problem = Problem(printable(str(root / unit.rel)), 0, 0, waits_for)
        name = unit_name(root, unit)
        entries = (ModelEntry(name, root / unit.rel, unit.kind, problems=(problem,), settled=False),)
    now = Found(unit.tree, outside, entries, waits_for=waits_for, ignored=ignored)
    return last if last is not None and last == now else now


def _passed_over(root: Path, tree: Tree, listed: Set[str], *, used: Set[Path]) -> Iterator[Problem]:
    """Things at the root that are no models but might have been meant as one; what is `used` is a part of one."""

    def problem(rel: str, message: str) -> Problem:
        return Problem(printable(str(root / rel)), 0, 0, message)

    if "." in listed:
        return
    for file in tree.files:
        if file.size < 0 and not file.name.lower().endswith(".gguf"):
            yield problem(file.name, "a link that leads nowhere")
        elif pick.unfinished([file.name]):
            yield problem(file.name, "still being copied")
        elif file.name.lower().endswith(".gguf") and pick.is_projector(file.name):
            yield problem(file.name, "a projector, with which a model reads pictures; prompts here are text")
        elif root / file.name in used:
            continue
        elif pick.holds_weights([file.name]) and not file.name.lower().endswith(".gguf"):
            yield problem(
                file.name, "only .gguf files can stand alone; put this one into a folder of its own"
            )
    if _is_store(tree):
        yield problem("manifests", "an Ollama store; `modelyard import ollama` takes its models over")
    parents = {rel.rpartition("/")[0] for rel in listed}
    for name, folder in tree.folders:
        if name not in listed and name not in _STORE:
            for sub, _ in folder.folders:
                if f"{name}/{sub}" not in listed and f"{name}/{sub}" not in parents:
                    yield problem(f"{name}/{sub}", "no weights in this folder")


def _all_trees(tree: Tree) -> Iterator[Tree]:
    yield tree
    for _, folder in tree.folders:
        yield from _all_trees(folder)
