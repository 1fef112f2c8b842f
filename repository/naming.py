"""Who gets a name that several models claim: folder, then YAML, then loose file. Losers are told. Pure."""

from collections.abc import Sequence

from msgspec import Struct
from msgspec.structs import replace

from repository.names import printable
from repository.problem import Problem
from repository.snapshot import ModelEntry


class Named(Struct, frozen=True):
    """All entries by name, those that hold their name, and what each alias stands for."""

    entries: tuple[ModelEntry, ...]
    models: dict[str, ModelEntry]
    aliases: dict[str, str]


def settle_names(found: Sequence[ModelEntry]) -> Named:
    """Gives each name and alias to one model; a loose file that is another's weights becomes its alias."""
    claims = _claimed_files(found)
    order = {"folder": 0, "yaml": 1, "file": 2}
    ranked = sorted(found, key=lambda entry: (order[entry.kind], _is_renamed(entry), str(entry.path)))
    models: dict[str, ModelEntry] = {}
    losers: list[ModelEntry] = []
    for entry in ranked:
        if entry.kind == "file" and str(entry.path) in claims:
            continue
        if entry.name in models:
            message = f"name taken by {printable(str(models[entry.name].path))}"
            problem = Problem(printable(str(entry.path)), 0, 0, message)
            losers.append(replace(entry, problems=(*entry.problems, problem)))
        else:
            models[entry.name] = entry
    aliases: dict[str, str] = {}
    claimed: dict[str, list[str]] = {}
    for entry in found:
        if owner := claims.get(str(entry.path)):
            claimed.setdefault(owner, []).append(entry.name)
    for name, entry in models.items():
        wanted = [*(entry.config.aliases if entry.config else ()), *claimed.get(str(entry.path), ())]
        if wanted:
            models[name] = _with_aliases(entry, wanted, models, aliases)
    entries = sorted([*models.values(), *losers], key=lambda entry: (entry.name, str(entry.path)))
    return Named(tuple(entries), models, aliases)


def _with_aliases(
    entry: ModelEntry, wanted: Sequence[str], models: dict[str, ModelEntry], aliases: dict[str, str]
) -> ModelEntry:
    kept = []
    ignored = list(entry.ignored)
    for alias in dict.fromkeys(wanted):
        owner = models.get(alias) or models.get(aliases.get(alias, ""))
        if owner is None:
            aliases[alias] = entry.name
            kept.append(alias)
        elif owner.path != entry.path:
            message = f'alias "{alias}" taken by {printable(str(owner.path))}'
            ignored.append(Problem(printable(str(entry.config_path or entry.path)), 0, 0, message))
    return replace(entry, aliases=tuple(kept), ignored=tuple(ignored))


def _claimed_files(found: Sequence[ModelEntry]) -> dict[str, str]:
    """Path of a loose file -> path of the model that names it as its weights."""
    loose = {str(entry.path) for entry in found if entry.kind == "file"}
    return {
        str(version.weights_path): str(entry.path)
        for entry in found
        if entry.kind != "file"
        for version in entry.versions
        if str(version.weights_path) in loose
    }


def _is_renamed(entry: ModelEntry) -> bool:
    return entry.config is not None and entry.config.name is not None
