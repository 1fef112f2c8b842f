"""Puts importable models into a repository: by hard link where that is one filesystem, else as was chosen.

What will happen is planned first, with the bytes that it takes. A model appears whole or not at all: it is built in a
hidden folder, which scans pass over, and renamed. Nothing in a source is changed.
"""

import os
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from msgspec import Struct

from repository.hub.choose import show_bytes
from repository.hub.errors import HubError
from repository.hub.publish import staged
from repository.importing.config_text import config_text
from repository.importing.values import Importable, ImportProblem, SourceFile
from repository.names import name_problem
from repository.versions import parse_version_folder

CONFIG = "config.yaml"

Way = Literal["auto", "hard", "symbolic", "copy"]
"""How files come: `auto` by hard link or else copied, `hard` by hard link or not at all, `symbolic` by hard link or
else a symbolic one, `copy` always copied."""

_SMALL_BYTES = 1 << 20  # copied in any case: a person may edit them


class Placement(Struct, frozen=True):
    """What will be done with one model. `folder` is the version's, the model's own where there are no files.

    `copied_bytes`: how much more the disk will hold. `is_there`: this very model was imported before.
    """

    model: Importable
    folder: Path
    links: Literal["hard", "symbolic", "copy"]
    copied_bytes: int
    is_there: bool = False
    keeps_config: bool = False


def plan(model: Importable, root: Path, *, way: Way, may_follow: bool = False) -> Placement:
    """Where a model goes and how. `may_follow`: it may be the next version of a model that is there, and take over from
    it. ImportProblem: it cannot have that name, or cannot come that way."""
    if message := name_problem(model.name):
        raise ImportProblem(message)
    home = root / model.name
    if home.exists() and not home.is_dir():
        raise ImportProblem(f"{home} is in the way; choose another name with --as")
    if (root / f"{model.name}.yaml").exists():
        raise ImportProblem(f"{root / model.name}.yaml is a model of that name; choose another with --as")
    numbers = sorted(parse_version_folder(path.name) or 0 for path in home.iterdir()) if home.exists() else []
    newest = numbers[-1] if numbers else 0
    if home.exists() and not newest and any(_is_loose(path) for path in home.iterdir()):
        raise ImportProblem(
            f"{home} holds files that are no version; move them into {home / '1'}, or use --as"
        )
    if not model.files:
        keeps_config = (home / CONFIG).exists()
        is_there = keeps_config and _config_is_same(home, model)
        if newest and not is_there:
            raise ImportProblem(
                f"there is a model {model.name} already, with weights in {home / str(newest)}; choose another name "
                "with --as"
            )
        return Placement(model, home, "copy", 0, is_there=is_there, keeps_config=keeps_config)
    if newest and _is_same(home / str(newest), model):
        return Placement(model, home / str(newest), "hard", 0, is_there=True)
    if newest and not may_follow:
        raise ImportProblem(
            f"there is a model {model.name} already; --as {model.name} makes this its next version, another name "
            "keeps both"
        )
    links = _links(model.files, root, way)
    copied = sum(
        file.size for file in model.files if links == "copy" or (file.size < _SMALL_BYTES and links == "hard")
    )
    return Placement(
        model,
        home / str(newest + 1),
        links,
        copied if links == "copy" else 0,
        keeps_config=(home / CONFIG).exists(),
    )


def place(placement: Placement, root: Path, *, comments: Sequence[str]) -> None:
    """Do what was planned; `comments` stand at the head of the `config.yaml`. ImportProblem: the disk said no."""
    home = root / placement.model.name
    try:
        with staged(root, home if home.exists() else root) as stage:
            made = stage / "model"
            _build(made, placement, comments=comments)
            if not home.exists():
                home.parent.mkdir(parents=True, exist_ok=True)
                made.rename(home)
                return
            if placement.model.files:
                (made / placement.folder.name).rename(placement.folder)
            if not placement.keeps_config and (made / CONFIG).exists():
                (made / CONFIG).rename(home / CONFIG)
    except HubError as error:
        raise ImportProblem(str(error)) from error
    except OSError as error:
        raise ImportProblem(
            f"{error.filename or home}: {error.strerror or error}; nothing of it is there"
        ) from error


def check_room(copied_bytes: int, root: Path) -> None:
    """ImportProblem: the disk of the repository has no room for so much."""
    free = shutil.disk_usage(_nearest(root)).free
    if copied_bytes > free:
        raise ImportProblem(
            f"{show_bytes(copied_bytes)} would be copied, and {root} has {show_bytes(free)} free; make room, choose "
            "fewer with --model, or link them with --link symbolic"
        )


def _build(made: Path, placement: Placement, *, comments: Sequence[str]) -> None:
    model = placement.model
    made.mkdir()
    if model.files:
        target = made / placement.folder.name
        target.mkdir()
        for file in model.files:
            _bring(file, target / file.name, links=placement.links)
        for name, text in model.texts.items():
            (target / name).write_text(text, encoding="utf-8")
    if model.config:
        (made / CONFIG).write_text(config_text(model.config, comments), encoding="utf-8")


def _bring(file: SourceFile, target: Path, *, links: str) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    if links == "symbolic":
        target.symlink_to(file.path)
    elif links == "hard" and file.size >= _SMALL_BYTES:
        try:
            os.link(file.path, target)
        except OSError as error:
            raise ImportProblem(
                f"{file.path} cannot be linked ({error.strerror}); use --copy or --link symbolic"
            ) from error
    else:
        shutil.copy2(file.path, target)


def _links(files: Sequence[SourceFile], root: Path, way: Way) -> Literal["hard", "symbolic", "copy"]:
    if way == "copy":
        return "copy"
    device = _device(_nearest(root))
    if all(_device(file.path) == device for file in files):
        return "hard"
    if way == "hard":
        raise ImportProblem(
            f"{files[0].path} is on another filesystem, where no hard link leads; use --copy or --link symbolic"
        )
    return "symbolic" if way == "symbolic" else "copy"


def _nearest(folder: Path) -> Path:
    """The folder, or where it would be made."""
    return next(path for path in (folder, *folder.absolute().parents) if path.exists())


def _is_loose(path: Path) -> bool:
    """Something in a model's folder that is no version, and that its configuration does not explain."""
    return path.suffix != ".yaml" and not path.name.startswith(".")


def _device(path: Path) -> int:
    """Which filesystem it is on."""
    return path.stat().st_dev


def _is_same(version: Path, model: Importable) -> bool:
    """The version was made of these very files: each is a link to one, or a copy with its size and time."""
    for file in model.files:
        here = version / file.name
        try:
            there, mine = file.path.stat(), here.stat()
        except OSError:
            return False
        is_linked = (there.st_dev, there.st_ino) == (mine.st_dev, mine.st_ino)
        if not is_linked and (there.st_size, there.st_mtime_ns) != (mine.st_size, mine.st_mtime_ns):
            return False
    return True


def _config_is_same(home: Path, model: Importable) -> bool:
    written = (home / CONFIG).read_text(encoding="utf-8")
    return written.endswith(config_text(model.config, ()))
