"""Pulls a model into a repository as a new version, and brings back versions that the lock file names.

Composes listing, choosing, downloading and publishing; talks to nobody: what a person is to know goes to `say`.
"""

from collections.abc import Callable, Iterator
from pathlib import Path

from msgspec import Struct

from repository.hub.choose import Chosen, choose
from repository.hub.download import hash_of, size_of
from repository.hub.errors import HubError
from repository.hub.fetch import Hub
from repository.hub.lock import LockedFile, LockedVersion, locked, read_lock
from repository.hub.publish import Published, lacking, publish, same_version
from repository.hub.reference import HubReference
from repository.hub.values import Choice, Fetched, HubFile, Progress
from repository.names import name_problem
from repository.pick import holds_weights, stem
from repository.problem import Problem
from repository.versions import parse_version_folder

_USUAL_ENDINGS = ("-GGUF", "-gguf", "_GGUF")


class Telling(Struct, frozen=True):
    """Who hears of progress, and of what a person should know."""

    progress: Callable[[Progress], None] = lambda _: None
    say: Callable[[str], None] = lambda _: None


def pull(
    root: Path,
    reference: HubReference,
    *,
    name: str | None = None,
    choice: Choice = Choice(),  # noqa: B008  frozen
    force: bool = False,
    telling: Telling = Telling(),  # noqa: B008  frozen
) -> Published:
    """Make what the reference names the next version of a model; `name` is by default the repository's.

    Downloads nothing where that is a version already, unless `force`. HubError: one sentence for a person.
    """
    model = name or _usual_name(reference)
    if message := _unfit_name(root, model):
        raise HubError(message, "malformed")
    with locked(root):  # where nothing can be written, nothing need be downloaded
        known = read_lock(root)
    if name is None:
        _refuse_another_model(root, model, reference.repo, known)
    hub = Hub(reference, say=telling.say)
    listing = hub.listing()
    chosen = choose(listing, reference, choice)
    for note in chosen.notes:
        telling.say(note)
    planned = LockedVersion(
        model,
        0,
        listing.repo,
        listing.revision,
        tuple(_locked_file(file, chosen, file.sha256 or "") for file in chosen.files),
    )
    same = same_version(root, planned, known)
    if same is not None and not force:
        return Published(same, root / same.folder, is_new=False)
    fetched = hub.download(listing, chosen, progress=telling.progress, verify=True)
    return _publish(root, planned, fetched, chosen.base, force=force)


def restore(root: Path, *, telling: Telling = Telling()) -> Iterator[Published | HubError]:  # noqa: B008  frozen
    """Bring back what the lock file names and is missing; says of each version where it is, or why it cannot be had.

    HubError, raised: the lock file cannot be read.
    """
    for version in read_lock(root):
        missing = lacking(root, version)
        if not missing:
            yield Published(version, root / version.folder, is_new=False)
            continue
        telling.say(f"{version.folder}: {len(missing)} of {len(version.files)} files missing")
        try:
            yield publish(root, version, _bring_back(version, missing, telling))
        except HubError as error:
            yield error


def _bring_back(version: LockedVersion, missing: list[str], telling: Telling) -> dict[str, Path]:
    """Where the missing files of a version lie in the cache, after they were fetched."""
    hub = Hub(HubReference(version.repo, revision=version.revision), say=telling.say)
    listing = hub.listing()
    by_name = {file.name: file for file in listing.files}
    wanted = [file for file in version.files if file.name in missing]
    if gone := [file.on_hub for file in wanted if file.on_hub not in by_name]:
        raise HubError(f"{version.repo} has no {gone[0]} any more at {version.revision}", "missing")
    chosen = Chosen(tuple(by_name[file.on_hub] for file in wanted), "")
    fetched = hub.download(listing, chosen, progress=telling.progress, verify=True)
    here = {each.name: each for each in fetched.files}
    for file in wanted:
        if here[file.on_hub].sha256 != file.sha256:
            raise HubError(f"{version.repo}: {file.on_hub} is not what modelyard.lock says it was", "broken")
    return {file.name: here[file.on_hub].place for file in wanted}


def verify(root: Path) -> Iterator[Problem]:
    """What differs from the lock file, by reading every file that it names. HubError: the lock file is unreadable."""
    for version in read_lock(root):
        for file in version.files:
            path = root / version.folder / file.name
            size = size_of(path)
            if size is None:
                message = "is missing; `modelyard pull` brings it back"
            elif size != file.size:
                message = f"has {size} bytes, and {file.size} when it was pulled"
            elif hash_of(path) != file.sha256:
                message = "is not what was pulled: its sha256 is another one"
            else:
                continue
            yield Problem(str(path), 0, 0, message)


def _publish(root: Path, planned: LockedVersion, fetched: Fetched, base: str, *, force: bool) -> Published:
    files = tuple(
        LockedFile(locked.name, each.size, each.sha256, locked.source)
        for locked, each in zip(planned.files, fetched.files, strict=True)
    )
    places = {file.name: each.place for file, each in zip(files, fetched.files, strict=True)}
    version = LockedVersion(planned.model, 0, planned.repo, planned.revision, files)
    return publish(root, version, places, force=force)


def _locked_file(file: HubFile, chosen: Chosen, sha256: str) -> LockedFile:
    name = file.name.removeprefix(f"{chosen.base}/") if chosen.base else file.name
    return LockedFile(name, file.size, sha256, "" if name == file.name else file.name)


def _usual_name(reference: HubReference) -> str:
    name = reference.repo.partition("/")[2]
    for ending in _USUAL_ENDINGS:
        name = name.removesuffix(ending)
    return name


def _unfit_name(root: Path, model: str) -> str | None:
    """Why no version of a model of this name can be made here."""
    if message := name_problem(model):
        return message
    if model.count("/") > 1 or any(part.startswith(".") for part in model.split("/")):
        return f'"{model}" cannot be a folder of models: at most owner/name, and no dot in front'
    if any(parse_version_folder(part) for part in model.split("/")):
        return f'"{model}" would read as a version; choose a name with --as'
    folder = root / model
    if folder.parent != root and _is_model(folder.parent):
        return f"{folder.parent} is a model, so there can be none inside it; choose another name with --as"
    if not folder.is_dir():
        loose = [path.name for path in root.glob("*.*") if path.is_file() and stem(path.name) == model]
        taken = [each for each in loose if each.endswith((".gguf", ".yaml", ".yml"))]
        return f"{root / taken[0]} has the name {model}; choose another with --as" if taken else None
    if _is_model(folder):
        return None
    if holds_weights([path.name for path in folder.iterdir()]):
        return (
            f"{folder} holds weights of its own, which a version folder beside them would hide; "
            "choose another name with --as, or move them into a folder called 1"
        )
    if below := [path for path in folder.iterdir() if path.is_dir() and not path.name.startswith(".")]:
        return f"{folder} holds folders such as {below[0].name}; choose another name with --as"
    return None


def _is_model(folder: Path) -> bool:
    """True where versions are in the folder."""
    return folder.is_dir() and any(parse_version_folder(path.name) for path in folder.iterdir())


def _refuse_another_model(root: Path, model: str, repo: str, known: tuple[LockedVersion, ...]) -> None:
    """A version takes over from the one before, so it must not be another model by chance."""
    if not _is_model(root / model):
        return
    sources = {each.repo for each in known if each.model == model}
    if repo not in sources:
        origin = f"from {', '.join(sorted(sources))}" if sources else "not pulled"
        raise HubError(
            f"there is a model {model} already ({origin}); --as {model} makes this its next version, "
            "another name keeps both",
            "ambiguous",
        )
