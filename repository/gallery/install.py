"""Installs an entry of a gallery: its files fetched and checked, then a new version with its configuration."""

from collections.abc import Callable
from pathlib import Path, PurePosixPath
from typing import Any

from msgspec import Struct

from repository.config_file import load_values
from repository.gallery.entry import GalleryEntry, GalleryError
from repository.hub.fetch import fetch
from repository.hub.lock import LockedFile, LockedVersion, locked, read_lock, write_lock
from repository.hub.reference import HubReference, parse_reference
from repository.hub.values import Choice, Fetched, Progress
from repository.importing.placing import place, plan
from repository.importing.values import Importable, SourceFile, source_file
from repository.options import Schemas
from repository.remote.bring import bring
from repository.remote.wanted import Remote, RemoteFile, hub_reference


class Installed(Struct, frozen=True):
    """`folder` is the version's; `is_new` False: it was there before."""

    folder: Path
    is_new: bool


def install(
    entry: GalleryEntry,
    root: Path,
    *,
    name: str | None = None,
    origin: str,
    state_dir: Path,
    schemas: Schemas | None = None,
    progress: Callable[[Progress], None] = lambda _: None,
    say: Callable[[str], None] = lambda _: None,
) -> Installed:
    """Make a complete entry the next version of a model called `name`, by default as the entry is.

    `origin` names the gallery in the configuration's comment. GalleryError, HubError, ImportProblem: one sentence.
    """
    config = _config(entry)
    reference = _reference(entry, config)
    if problems := load_values(config, entry.name, schemas).problems:
        raise GalleryError(
            f"{entry.name}: its settings are not possible here: {'; '.join(each.message for each in problems)}"
        )
    fetched: Fetched | None = None
    files: tuple[SourceFile, ...] = ()
    if reference is not None:
        fetched = fetch(reference, choice=Choice(entry.quant), progress=progress, say=say)
        for note in fetched.notes:
            say(note)
        base = _base(fetched)
        files = tuple(
            SourceFile(each.place.resolve(), each.name.removeprefix(base), each.size)
            for each in fetched.files
        )
    if entry.files:
        files = (*files, *_brought(entry, state_dir, progress=progress, say=say))
    if not files:
        raise GalleryError(
            f"{entry.name} names no files and no model on a hub, so there is nothing to install"
        )
    model = Importable(name=name or entry.name, label=entry.name, files=files, config=config)
    planned = plan(model, root, way="auto", may_follow=name is not None)
    if planned.is_there:
        return Installed(planned.folder, is_new=False)
    comments = [f"Installed from {origin}: {entry.name}"]
    if entry.license:
        comments.append(f"Licence: {entry.license}")
    place(planned, root, comments=comments)
    if fetched is not None and not entry.files:
        _note_in_lock(root, model, planned.folder, fetched, base)
    return Installed(planned.folder, is_new=True)


def _config(entry: GalleryEntry) -> dict[str, Any]:
    """The configuration, with the templates that it names put into it, and only the backend if nothing else."""
    config = dict(entry.config)
    config.pop("name", None)
    template = config.get("template")
    if isinstance(template, dict):
        config["template"] = {key: entry.templates.get(str(text), text) for key, text in template.items()}
    if entry.description and "description" not in config:
        config["description"] = " ".join(entry.description.split())[:200]
    if entry.backend and "backend" not in config:
        config = {"backend": entry.backend, **config}
    return config


def _reference(entry: GalleryEntry, config: dict[str, Any]) -> HubReference | None:
    """The model on a hub that an entry has, or that LocalAI's `parameters.model` names where no file is of that name;
    the configuration then leaves it to the version's folder."""
    if entry.model is not None:
        return parse_reference(entry.model)
    parameters = config.get("parameters")
    named = parameters.get("model") if isinstance(parameters, dict) else None
    if not isinstance(named, str) or named in [file.filename for file in entry.files]:
        return None
    reference = hub_reference(named)
    if reference is not None and isinstance(parameters, dict):
        config["parameters"] = {key: value for key, value in parameters.items() if key != "model"}
        if not config["parameters"]:
            del config["parameters"]
    return reference


def _brought(
    entry: GalleryEntry,
    state_dir: Path,
    *,
    progress: Callable[[Progress], None],
    say: Callable[[str], None],
) -> tuple[SourceFile, ...]:
    remote = Remote(files=tuple(RemoteFile(each.filename, each.uri, each.sha256) for each in entry.files))

    def on_bytes(done: int, total: int) -> None:
        progress(Progress(entry.name, done, total, done, total))

    record = bring(remote, state_dir=state_dir, progress=on_bytes, say=say)
    places = [Path(each.path) for each in record.files]
    return tuple(source_file(path, each.filename) for path, each in zip(places, entry.files, strict=True))


def _base(fetched: Fetched) -> str:
    """The folder of the repository that the loaded files stand in, with a slash, or nothing."""
    loaded = [each.name for each in fetched.files if PurePosixPath(each.name).name == fetched.path.name]
    if loaded and not fetched.path.is_dir():
        base = PurePosixPath(loaded[0]).parent.as_posix()
    else:
        base = next(
            (
                parent.as_posix()
                for parent in PurePosixPath(fetched.files[0].name).parents
                if fetched.path.as_posix().endswith(f"/{parent}")
            ),
            ".",
        )
    return "" if base == "." else f"{base}/"


def _note_in_lock(root: Path, model: Importable, folder: Path, fetched: Fetched, base: str) -> None:
    """What `modelyard pull` would note: `check --verify` and a later `pull` know these files then."""
    files = tuple(
        LockedFile(name, each.size, each.sha256, "" if name == each.name else each.name)
        for each in fetched.files
        if (name := each.name.removeprefix(base))
    )
    made = LockedVersion(model.name, int(folder.name), fetched.repo, fetched.revision, files)
    with locked(root):
        known = read_lock(root)
        write_lock(root, (*(each for each in known if each.folder != made.folder), made))
