"""`modelyard gallery list|install`: models that an index names."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from adapters.cli.state import StateDir, state_folder

if TYPE_CHECKING:
    from repository.gallery.index import Index

gallery = typer.Typer(help="List models of a gallery, and install them.", no_args_is_help=True)

Place = Annotated[
    str | None,
    typer.Option(
        "--index",
        envvar="MODELYARD_GALLERY",
        help="A YAML index, ours or LocalAI's: a file or an http address.  [default: the one that is shipped]",
    ),
]


@gallery.command("list")
def show(
    *,
    index: Place = None,
    backend: Annotated[str | None, typer.Option(help="Only models for this backend.")] = None,
    memory: Annotated[
        str | None, typer.Option(help="Only models that fit into this much: like 8GiB.")
    ] = None,
) -> None:
    """Show what a gallery has."""
    from rich.console import Console

    from adapters.cli.inspection import fail
    from adapters.cli.memory import parse_size, show_size, total_memory_bytes

    try:
        most = parse_size(memory, total_bytes=total_memory_bytes()) if memory else None
    except ValueError as error:
        fail(f"--memory: {error}")
    found = _read(index)
    chosen = [
        entry
        for entry in found.entries
        if (backend is None or entry.backend == backend)
        and (most is None or (entry.memory_bytes is not None and entry.memory_bytes <= most))
    ]
    if not chosen:
        typer.echo("The gallery has no such models.")
        return
    console = Console()
    if not console.is_terminal:
        for entry in chosen:
            size = show_size(entry.memory_bytes) if entry.memory_bytes else ""
            what = " ".join(entry.description.split())
            typer.echo("\t".join([entry.name, entry.backend, size, entry.license, what]))
        return
    from rich.table import Table
    from rich.text import Text

    table = Table("Model", "Backend", "Memory", "Licence", "", box=None, header_style="dim")
    for entry in chosen:
        size = show_size(entry.memory_bytes) if entry.memory_bytes else ""
        what = " ".join(entry.description.split())
        table.add_row(
            Text(entry.name, style="bold"), Text(entry.backend), Text(size), Text(entry.license), Text(what)
        )
    console.print(table)


@gallery.command("install")
def install(
    name: Annotated[str, typer.Argument(help="The model, as `gallery list` shows it.")],
    repository: Annotated[
        Path, typer.Argument(envvar="MODELYARD_REPOSITORY", help="The folder with the models.")
    ] = Path("models"),
    *,
    called: Annotated[
        str | None, typer.Option("--as", help="What to call the model.  [default: as the gallery does]")
    ] = None,
    index: Place = None,
    state_dir: StateDir = None,
) -> None:
    """Download a model of a gallery, check it, and publish it with its configuration."""
    from adapters.cli.inspection import fail, known_backends
    from adapters.cli.pulling import PullConsole
    from repository.gallery.entry import GalleryError
    from repository.gallery.index import complete
    from repository.gallery.install import install as install_entry
    from repository.hub.errors import HubError
    from repository.importing.values import ImportProblem
    from runner.environments.folder import Environments
    from runner.resolve import option_schemas

    found = _read(index)
    state_dir = state_folder(state_dir)
    with PullConsole() as console:
        try:
            entry = complete(found.find(name), found)
            installed = install_entry(
                entry,
                repository,
                name=called,
                origin="the gallery" if index is None else index,
                state_dir=state_dir,
                schemas=option_schemas(known_backends(Environments(state_dir))),
                progress=console.telling.progress,
                say=console.telling.say,
            )
        except (GalleryError, HubError, ImportProblem) as error:
            console.close()
            fail(str(error))
        except KeyboardInterrupt:
            console.close()
            typer.echo("modelyard: stopped; the same command goes on from here", err=True)
            raise typer.Exit(130) from None
    licence = f", licence {entry.license}" if entry.license else ""
    is_there = "is" if installed.is_new else "is already"
    typer.echo(f"{called or entry.name} {is_there} in {installed.folder}{licence}")


def _read(place: str | None) -> "Index":
    from adapters.cli.inspection import fail
    from repository.gallery.entry import GalleryError
    from repository.gallery.index import read_index

    try:
        found = read_index(place)
    except GalleryError as error:
        fail(str(error))
    for problem in found.problems:
        typer.echo(f"left out: {problem}", err=True)
    return found
