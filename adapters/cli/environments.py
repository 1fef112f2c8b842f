"""`modelyard env create|list|remove`: Python environments for engines that cannot live beside the server."""

import enum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from adapters.cli.state import StateDir, state_folder

if TYPE_CHECKING:
    from runner.environments.values import Environment

env = typer.Typer(help="Make Python environments for engines, list and remove them.", no_args_is_help=True)


class DeviceChoice(enum.StrEnum):
    AUTO = "auto"
    CPU = "cpu"
    CUDA = "cuda"


@env.command("create")
def create(
    *,
    name: Annotated[str, typer.Argument(help="Its name; without --backend also the backend it is for.")],
    backend: Annotated[
        list[str] | None, typer.Option(help="A backend whose engine goes in; may be repeated.")
    ] = None,
    package: Annotated[
        list[str] | None,
        typer.Option(help="A package to install too, such as a plugin: as pip takes it; may be repeated."),
    ] = None,
    device: Annotated[
        DeviceChoice | None, typer.Option(help="What the engines compute on.  [default: auto]")
    ] = None,
    python: Annotated[
        str | None, typer.Option(help="A version or an interpreter.  [default: the server's own]")
    ] = None,
    find_links: Annotated[
        list[str] | None,
        typer.Option(help="A folder or page of wheels; may be repeated. Settings of uv (UV_*) hold too."),
    ] = None,
    refresh: Annotated[
        bool, typer.Option("--refresh", help="Bring one that is there up to date; what is not said stays.")
    ] = False,
    state_dir: StateDir = None,
) -> None:
    """Make an environment, install what the backends need, and check that it works."""
    from adapters.cli.inspection import fail
    from runner.environments.folder import Environments
    from runner.environments.making import make
    from runner.environments.sets import choose_device, find_sets, has_nvidia_gpu, requirement_sets
    from runner.environments.uv import Uv
    from runner.environments.values import EnvironmentProblem, Wanted

    environments = Environments(state_folder(state_dir))
    old = environments.find(name)
    if old is not None and not refresh:
        fail(f"there is an environment {name!r} already; --refresh brings it up to date")
    before = (old.wanted if old is not None else None) or Wanted()
    packages = _places(package) if package is not None else before.packages
    backends = tuple(backend) if backend is not None else before.backends
    if not backends and (name in requirement_sets() or not packages):
        backends = (name,)
    try:
        sets = find_sets(backends)
        asked = device.value if device is not None else (before.device if old is not None else "auto")
        wanted = Wanted(
            backends=backends,
            packages=packages,
            device=choose_device(sets, asked, has_gpu=has_nvidia_gpu()),
            python=before.python if python is None else next(iter(_places([python]))),
            find_links=before.find_links if find_links is None else _places(find_links),
        )
        _say(f"environment {name}: {', '.join((*backends, *packages))}, for {wanted.device}")
        made = make(environments, name, wanted, uv=Uv(_say), say=_say)
    except EnvironmentProblem as error:
        fail(str(error))
    if not _report(made):
        raise typer.Exit(1)


@env.command("list")
def show(state_dir: StateDir = None) -> None:
    """Show the environments and what is wrong with them."""
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    from runner.environments.folder import Environments

    environments = Environments(state_folder(state_dir))
    table = Table("Environment", "Backends", "Device", "Python", "", box=None, header_style="dim")
    for each in environments.all():
        record = each.record
        table.add_row(
            Text(each.name, style="bold"),
            Text(", ".join(_names(each))),
            Text(each.wanted.device if each.wanted is not None else ""),
            Text(record.description.python if record is not None else ""),
            Text(environments.problem(each), style="red"),
        )
    if not table.row_count:
        typer.echo(f"There are no environments in {environments.folder}.")
        return
    Console().print(table)


@env.command("remove")
def remove_one(
    name: Annotated[str, typer.Argument(help="The environment to remove.")], state_dir: StateDir = None
) -> None:
    """Remove an environment with all that is in it."""
    from adapters.cli.inspection import fail
    from runner.environments.folder import Environments
    from runner.environments.making import remove
    from runner.environments.values import EnvironmentProblem

    try:
        remove(Environments(state_folder(state_dir)), name)
    except EnvironmentProblem as error:
        fail(str(error))
    typer.echo(f"environment {name} is removed")


def _report(made: "Environment") -> bool:
    """Show what was found in a new environment; False where an engine does not work."""
    assert made.record is not None
    description = made.record.description
    is_well = True
    for each in description.backends:
        found = each.found
        if found is not None and found.problem:
            is_well = False
            _say(f"{each.name} does not work: {found.problem}")
        elif found is not None:
            where = f" on {', '.join(found.devices)}" if found.devices else ""
            _say(f"{each.name}: {found.engine or 'works'}{where}")
    for name, reason in description.broken.items():
        is_well = False
        _say(f"{name} does not work: {reason}")
    _say(f"environment {made.name} is ready in {made.folder}")
    return is_well


def _names(environment: "Environment") -> list[str]:
    if environment.record is not None:
        found = [each.name for each in environment.record.description.backends]
        return list(dict.fromkeys((*environment.record.wanted.backends, *found)))
    return list(environment.wanted.backends if environment.wanted is not None else ())


def _places(given: list[str]) -> tuple[str, ...]:
    """Paths, made absolute, for uv runs elsewhere; what is no path here is left as it is."""
    return tuple(
        str(Path(each).absolute()) if "/" in each and Path(each).exists() else each for each in given
    )


def _say(line: str) -> None:
    typer.echo(line, err=True)
