"""`modelyard doctor`: whether this installation is sound, and what it runs on."""

import os
import platform
from collections.abc import Callable, Iterator
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from pathlib import Path

import typer

from adapters.about import DISTRIBUTION, distribution_version
from adapters.cli.memory import show_size, total_memory_bytes

PACKAGES = ("adapters", "backends", "benchmarks", "repository", "runner")
_LIBRARIES = ("msgspec", "starlette", "hypercorn", "uvloop", "numpy", "llama-cpp-python")


def doctor() -> None:
    """Check the installation and show versions, cores and memory."""
    clashes = list(package_clashes())
    for line in clashes:
        typer.echo(f"problem: {line}")
    for name in PACKAGES:
        place = package_place(name)
        typer.echo(f"{name:<12} {place or 'missing'}")
    typer.echo(f"{DISTRIBUTION:<12} {distribution_version()}")
    typer.echo(f"{'python':<12} {platform.python_version()} ({platform.platform()})")
    for name in _LIBRARIES:
        typer.echo(f"{name:<12} {_version(name)}")
    typer.echo(f"{'cores':<12} {len(os.sched_getaffinity(0))}")
    typer.echo(f"{'memory':<12} {show_size(total_memory_bytes())}")
    if clashes:
        raise typer.Exit(1)
    typer.echo("All is well.")


def package_place(name: str) -> Path | None:
    """The folder that `import name` takes the package from; None where there is none."""
    spec = find_spec(name)
    places = list(spec.submodule_search_locations or ()) if spec is not None else []
    return Path(places[0]).resolve() if places else None


def package_clashes(
    place_of: Callable[[str], Path | None] = package_place, *, home: Path | None = None
) -> Iterator[str]:
    """A sentence for each of our packages that does not come from `home`, by default this file's own place.

    Other distributions use short names too, and the one that comes first on the path wins.
    """
    home = home or Path(__file__).resolve().parents[2]
    for name in PACKAGES:
        place = place_of(name)
        if place is None:
            yield f"the package {name} is missing; install {DISTRIBUTION} again"
        elif place != home / name:
            yield (
                f"the package {name} comes from {place}, not from {home}, where {DISTRIBUTION} is; "
                f"install {DISTRIBUTION} into an environment of its own"
            )


def _version(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return "not installed"
