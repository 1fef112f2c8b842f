"""The worker's half of the server's own code, for environments that do not have Modelyard installed: a copy, or the
very checkout that the server runs from, so that developers need not refresh anything.
"""

import hashlib
import os
import shutil
from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from runner.environments.sets import HOME
from runner.environments.values import WorkerHalf

PACKAGES = ("runner", "backends")
STAMPED = ("runner/__init__.py", "runner/errors.py", "runner/wire", "runner/worker", "backends")
LINK = "modelyard.pth"


def own_half(home: Path = HOME) -> WorkerHalf:
    """The half that goes with this server. Reads its files."""
    return WorkerHalf(folder=str(home), stamp=stamp_of_half(home), version=_version())


def stamp_of_half(home: Path) -> str:
    """A hash of all code that a worker may run; empty where there is none."""
    digest, count = hashlib.blake2b(digest_size=16), 0
    for path in _files(home):
        digest.update(f"{path.relative_to(home)}\0".encode())
        digest.update(path.read_bytes())
        count += 1
    return digest.hexdigest() if count else ""


def give_half(site_packages: Path, folder: Path, *, home: Path = HOME) -> WorkerHalf:
    """Make the code at `home` importable from `site_packages`: where it is, if that is a checkout, or else as a copy
    in `folder`, in place of the one there."""
    mine = own_half(home)
    if (home / "pyproject.toml").is_file():
        mine = WorkerHalf(folder=str(home), version=mine.version)
    else:
        shutil.rmtree(folder, ignore_errors=True)
        for package in PACKAGES:
            shutil.copytree(home / package, folder / package, ignore=shutil.ignore_patterns("__pycache__"))
        mine = WorkerHalf(folder=str(folder), stamp=mine.stamp, version=mine.version)
    (site_packages / LINK).write_text(f"{mine.folder}\n", encoding="utf-8")
    return mine


def mismatch(half: WorkerHalf, mine: WorkerHalf) -> str:
    """Why workers with this half would not understand a server with `mine`; empty where they do."""
    if half.folder == mine.folder:
        return ""
    stamp = half.stamp or stamp_of_half(Path(half.folder))
    if stamp == mine.stamp:
        return ""
    if not stamp:
        return f"runs the code in {half.folder}, which is not there any more"
    theirs = half.version if half.version != mine.version else f"{half.version} with other code"
    return f"has the worker's half of Modelyard {theirs}, and this server is {mine.version}"


def _files(home: Path) -> Iterator[Path]:
    for name in STAMPED:
        place = home / name
        if place.is_file():
            yield place
        for folder, folders, files in os.walk(place):
            folders[:] = sorted(each for each in folders if each != "__pycache__")
            yield from (Path(folder) / file for file in sorted(files) if file.endswith(".py"))


def _version() -> str:
    try:
        return version("modelyard")
    except PackageNotFoundError:
        return "0+unknown"
