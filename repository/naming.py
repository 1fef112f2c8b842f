"""Who gets a name that several models claim: folder, then YAML, then loose file. Losers are told. Pure."""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TypeAlias

from msgspec import Struct
from msgspec.structs import replace

from repository.names import printable
from repository.problem import Problem
from repository.snapshot import ModelEntry

Key: TypeAlias = tuple[str, int | None]
"""The path of an entry, and its place in a file that lists several."""


class Named(Struct, frozen=True):
    """All entries by name, those that hold their name, what each alias stands for, and which of them are redirects."""

    entries: tuple[ModelEntry, ...]
    models: dict[str, ModelEntry]
    aliases: dict[str, str]
    redirects: frozenset[str] = frozenset()


def settle_names(found: Sequence[ModelEntry]) -> Named:
    """Gives each name and alias to one model. A loose file that is another's weights becomes its alias, and so does a
    folder of nothing but weights that a YAML file names; a redirect becomes an alias of the model it stands for."""
    order = {"folder": 0, "yaml": 1, "file": 2}
    ranked = sorted(
        found,
        key=lambda each: (order[each.kind], _is_renamed(each), str(each.path), each.config_item or 0),
    )
    claims = _claims(ranked)
    models: dict[str, ModelEntry] = {}
    losers: list[ModelEntry] = []
    for entry in ranked:
        if _key(entry) in claims:
            continue
        if entry.name in models:
            message = f"name taken by {printable(str(models[entry.name].path))}"
            losers.append(_with_problem(entry, message))
        else:
            models[entry.name] = entry
    redirects = {name: entry for name, entry in models.items() if entry.redirect and not entry.problems}
    for name in redirects:
        del models[name]
    aliases: dict[str, str] = {}
    claimed: dict[Key, list[str]] = {}
    for entry in ranked:
        if owner := claims.get(_key(entry)):
            claimed.setdefault(owner, []).append(entry.name)
    redirected: dict[str, list[str]] = {}
    for name, entry in redirects.items():
        if entry.redirect in models:
            aliases[name] = entry.redirect
            redirected.setdefault(entry.redirect, []).append(name)
        else:
            models[name] = _with_problem(entry, _no_target(entry, redirects))
    for name, entry in models.items():
        wanted = [*(entry.config.aliases if entry.config else ()), *claimed.get(_key(entry), ())]
        if wanted or name in redirected:
            models[name] = _with_aliases(entry, wanted, models, aliases, redirected.get(name, ()))
    entries = sorted([*models.values(), *losers], key=lambda entry: (entry.name, str(entry.path)))
    return Named(tuple(entries), models, aliases, frozenset(redirects.keys() & aliases.keys()))


def used_weights(entries: Iterable[ModelEntry]) -> frozenset[Path]:
    """The weights that YAML files name."""
    return frozenset(
        version.weights_path
        for entry in entries
        if entry.kind == "yaml"
        for version in entry.versions
        if version.weights_path is not None
    )


def _with_aliases(
    entry: ModelEntry,
    wanted: Sequence[str],
    models: dict[str, ModelEntry],
    aliases: dict[str, str],
    redirected: Sequence[str],
) -> ModelEntry:
    kept = [*redirected]
    ignored = list(entry.ignored)
    for alias in dict.fromkeys(wanted):
        owner = models.get(alias) or models.get(aliases.get(alias, ""))
        if owner is None:
            aliases[alias] = entry.name
            kept.append(alias)
        elif _key(owner) != _key(entry):
            message = f'alias "{alias}" taken by {printable(str(owner.path))}'
            ignored.append(Problem(printable(str(entry.config_path or entry.path)), 0, 0, message))
    return replace(entry, aliases=tuple(kept), ignored=tuple(ignored))


def _claims(ranked: Sequence[ModelEntry]) -> dict[Key, Key]:
    """What is another model's weights -> that model, the first one where several name the same."""
    owners: dict[str, Key] = {}
    files: dict[str, Key] = {}
    for entry in ranked:
        for version in entry.versions if entry.kind != "file" else ():
            if version.weights_path is None:
                continue
            files.setdefault(str(version.weights_path), _key(entry))
            if entry.kind == "yaml":
                owners.setdefault(str(version.weights_path), _key(entry))
    claims: dict[Key, Key] = {}
    for entry in ranked:
        weights = [str(version.weights_path) for version in entry.versions]
        if entry.kind == "file" and str(entry.path) in files:
            claims[_key(entry)] = files[str(entry.path)]
        elif (
            entry.kind == "folder"
            and entry.config_path is None
            and len(weights) == 1
            and weights[0] in owners
        ):
            claims[_key(entry)] = owners[weights[0]]
    return claims


def _no_target(entry: ModelEntry, redirects: Mapping[str, ModelEntry]) -> str:
    if entry.redirect in redirects:
        return f'alias: "{entry.redirect}" is an alias itself; name the model that it stands for'
    return f'alias: there is no model "{entry.redirect}"'


def _with_problem(entry: ModelEntry, message: str) -> ModelEntry:
    return replace(entry, problems=(*entry.problems, Problem(printable(str(entry.path)), 0, 0, message)))


def _key(entry: ModelEntry) -> Key:
    return str(entry.path), entry.config_item


def _is_renamed(entry: ModelEntry) -> bool:
    return entry.config is not None and entry.config.name is not None
