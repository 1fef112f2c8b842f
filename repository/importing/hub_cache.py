"""Models of the hub library's cache: per repository blobs, snapshots of links to them, and names of commits."""

from collections.abc import Iterator
from pathlib import Path

from repository.hub.cache import RepoCache
from repository.hub.choose import Chosen, choose, quantisations
from repository.hub.errors import HubError
from repository.hub.reference import HubReference, parse_reference
from repository.hub.values import Choice, Listing
from repository.importing.values import Importable, ImportProblem, source_file
from repository.pick import stem

_PREFIX = "models--"


def find_models(folder: Path) -> Iterator[Importable]:
    """The models of the cache, at the commit that `main` stood at, or else the newest that is there; each quantisation
    of GGUFs is one. ImportProblem: there is no cache."""
    homes = sorted(folder.glob(f"{_PREFIX}*")) if folder.is_dir() else []
    if not homes:
        raise ImportProblem(
            f"{folder} holds no models of the hub's cache; name the folder that has those called {_PREFIX}..."
        )
    for home in homes:
        repo = home.name.removeprefix(_PREFIX).replace("--", "/")
        try:
            yield from _models(folder, home, repo)
        except (ImportProblem, HubError) as problem:
            yield Importable(name=repo.rpartition("/")[2], label=repo, problem=str(problem))


def _models(folder: Path, home: Path, repo: str) -> Iterator[Importable]:
    if "/" not in repo:
        raise ImportProblem(f"{home.name} is of no owner; pull it by its full name")
    commit = _commit(home)
    for link in (home / "snapshots" / commit).rglob("*"):
        if link.is_symlink() and not link.exists():
            raise ImportProblem(f"{link} leads to no blob: pull it again with `modelyard pull {repo}`")
    reference = HubReference(repo, None, commit)
    listing = RepoCache(folder, parse_reference(repo).repo).listing(reference)
    if listing is None:
        raise ImportProblem(f"{home} holds no files; its download never came to an end")
    found = quantisations([file for file in listing.files if file.name.lower().endswith(".gguf")])
    if len(found) < 2:
        yield _importable(home, listing, choose(listing, reference, Choice()), name=repo.rpartition("/")[2])
        return
    for each in found:
        chosen = choose(listing, HubReference(repo, each.files[0].name, commit), Choice())
        yield _importable(home, listing, chosen, name=stem(each.files[0].name.rpartition("/")[2]))


def _importable(home: Path, listing: Listing, chosen: Chosen, *, name: str) -> Importable:
    snapshot = home / "snapshots" / listing.revision
    base = f"{chosen.base}/" if chosen.base else ""
    files = tuple(source_file(snapshot / file.name, file.name.removeprefix(base)) for file in chosen.files)
    label = f"{listing.repo}@{listing.revision[:8]}"
    return Importable(name=name, label=label, files=files, notes=chosen.notes)


def _commit(home: Path) -> str:
    """The commit that `main` stood at when it was last fetched, else the one whose snapshot is newest."""
    snapshots = home / "snapshots"
    there = {path.name: path.stat().st_mtime_ns for path in snapshots.iterdir()} if snapshots.is_dir() else {}
    if not there:
        raise ImportProblem(f"{home} holds no files; its download never came to an end")
    refs = [path for path in sorted((home / "refs").rglob("*")) if path.is_file()]
    named = [ref.read_text(encoding="utf-8").strip() for ref in refs if ref.name == "main"]
    return next((commit for commit in named if commit in there), max(there, key=lambda name: there[name]))
