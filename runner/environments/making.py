"""Makes environments, whole or not at all, and removes them. What was asked for is written first and what came of it
last, so that one that was left half-made is known as such and can be made again.
"""

import contextlib
import fcntl
import shutil
import sys
import tomllib
from collections.abc import Iterator, Sequence
from pathlib import Path

import psutil

from backends.registry import Registry
from runner.environments.describing import describe
from runner.environments.folder import NAME, Environments, site_packages, stamp_of, write
from runner.environments.half import give_half
from runner.environments.sets import HOME, RequirementSet, find_sets
from runner.environments.uv import Say, Uv
from runner.environments.values import RECORD, REQUEST, Environment, EnvironmentProblem, Record, Wanted

WORKER_REQUIREMENTS = HOME / "runner" / "worker" / "requirements.txt"
COPIED_HALF = "modelyard"


def make(environments: Environments, name: str, wanted: Wanted, *, uv: Uv, say: Say) -> Environment:
    """Make an environment, or bring the one of that name in line with `wanted`.

    Raises EnvironmentProblem. A new one is gone then; one that was there is as before if uv had not begun to change
    it, and half-made otherwise.
    """
    if not NAME.fullmatch(name):
        raise EnvironmentProblem(f"{name!r} cannot be a name; use letters, digits, '.', '-' and '_'")
    sets = find_sets(wanted.backends)
    folder = environments.folder / name
    with _words_for_disk_errors(), _alone(environments.folder, name):
        old = environments.find(name)
        if old is not None:
            _check_unused(old)
        before = stamp_of(folder)
        try:
            _prepare(folder, wanted, old, uv=uv)
            say("installing; the first time this fetches what is not in uv's cache")
            _install(folder, wanted, sets, uv=uv)
            _record(folder, wanted, say=say)
        except BaseException:
            if old is None:
                shutil.rmtree(folder, ignore_errors=True)
            elif old.record is not None and before and stamp_of(folder) == before:
                write(folder / REQUEST, old.record.wanted)
                write(folder / RECORD, old.record)
            raise
    return environments.get(name)


def remove(environments: Environments, name: str) -> None:
    """Remove an environment with all that is in it. Raises EnvironmentProblem where it is not there or used."""
    with _words_for_disk_errors():
        environment = environments.get(name)
        with _alone(environments.folder, name):
            _check_unused(environment)
            (environment.folder / RECORD).unlink(missing_ok=True)
            shutil.rmtree(environment.folder)


def workers_in(environment: Environment) -> list[int]:
    """The processes that run its Python now."""
    python = str(environment.python)
    found = psutil.process_iter(["pid", "cmdline"])
    return [each.info["pid"] for each in found if (each.info["cmdline"] or [""])[0] == python]


def _check_unused(environment: Environment) -> None:
    workers = workers_in(environment)
    if workers:
        raise EnvironmentProblem(
            f"environment {environment.name!r} is used by process {', '.join(map(str, workers))}; "
            "unload its models or stop the server first"
        )


def _prepare(folder: Path, wanted: Wanted, old: Environment | None, *, uv: Uv) -> None:
    """An environment of the right Python, marked as half-made."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / RECORD).unlink(missing_ok=True)
    is_fit = old is not None and old.wanted is not None and old.wanted.python == wanted.python
    if not is_fit or not (folder / "bin" / "python").exists():
        for each in folder.iterdir():
            shutil.rmtree(each) if each.is_dir() and not each.is_symlink() else each.unlink()
    write(folder / REQUEST, wanted)
    if not (folder / "bin" / "python").exists():
        python = wanted.python or sys.executable
        uv.run("venv", "--quiet", "--allow-existing", "--python", python, str(folder), cwd=folder.parent)


def _install(folder: Path, wanted: Wanted, sets: tuple[RequirementSet, ...], *, uv: Uv) -> None:
    words = ["--python", str(folder / "bin" / "python"), "--requirements", str(WORKER_REQUIREMENTS)]
    for each in sets:
        words += ["--requirements", str(each.file(wanted.device))]
        if each.overrides is not None:
            words += ["--overrides", str(each.overrides)]
    for link in wanted.find_links:
        words += ["--find-links", link]
    for name in _own_names(wanted.packages):
        words += ["--reinstall-package", name]  # what changed in a folder is not seen from its version
    words += uv.torch_words(wanted.device, has_links=bool(wanted.find_links))
    uv.run("pip", "install", *words, *wanted.packages, cwd=folder.parent)


def _own_names(packages: Sequence[str]) -> Iterator[str]:
    """The names of those packages that are folders here."""
    for each in packages:
        with contextlib.suppress(OSError, tomllib.TOMLDecodeError, KeyError):
            yield tomllib.loads((Path(each) / "pyproject.toml").read_text(encoding="utf-8"))["project"][
                "name"
            ]


def _record(folder: Path, wanted: Wanted, *, say: Say) -> None:
    place = site_packages(folder)
    if place is None:
        raise EnvironmentProblem(f"{folder} has no folder for packages; remove it and try again")
    half = give_half(place, folder / COPIED_HALF)
    say("asking it for its backends")
    engines = [name for name in wanted.backends if name in Registry.BUILT_IN]  # the others are helpers of one
    description = describe(folder / "bin" / "python", engines)
    write(folder / RECORD, Record(wanted=wanted, half=half, stamp=stamp_of(folder), description=description))


@contextlib.contextmanager
def _alone(folder: Path, name: str) -> Iterator[None]:
    """Nobody else makes or removes the environment meanwhile."""
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / f".{name}.lock").open("ab") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise EnvironmentProblem(
                f"environment {name!r} is being made or removed by another process"
            ) from error
        yield


@contextlib.contextmanager
def _words_for_disk_errors() -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise EnvironmentProblem(f"{error.filename or 'the state folder'}: {error.strerror}") from error
