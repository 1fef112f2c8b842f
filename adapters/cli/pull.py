"""`modelyard pull`: a model from a hub, as a new version in a repository."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from adapters.cli.pulling import PullConsole
    from repository.hub.publish import Published


def pull(
    reference: Annotated[
        str | None,
        typer.Argument(
            help="What to pull: owner/repo[/file][@revision].  [default: what modelyard.lock names and is missing]",
            show_default=False,
        ),
    ] = None,
    repository: Annotated[
        Path, typer.Argument(envvar="MODELYARD_REPOSITORY", help="The folder with the models.")
    ] = Path("models"),
    *,
    name: Annotated[
        str | None, typer.Option("--as", help="What to call the model.  [default: the repository's name]")
    ] = None,
    quant: Annotated[
        str | None, typer.Option(help="Which quantisation to take, as Q4_K_M, where there are several.")
    ] = None,
    allow: Annotated[
        list[str] | None,
        typer.Option(metavar="PATTERN", help="Take only such files, as '*.gguf'; may be repeated."),
    ] = None,
    ignore: Annotated[
        list[str] | None, typer.Option(metavar="PATTERN", help="Leave such files; may be repeated.")
    ] = None,
    force: Annotated[
        bool, typer.Option("--force", help="Make a version even of what is one already.")
    ] = False,
) -> None:
    """Download a model, check it, and publish it as the next version."""
    from adapters.cli.inspection import fail
    from adapters.cli.pulling import PullConsole
    from repository.hub.errors import HubError
    from repository.hub.pull import pull as pull_one
    from repository.hub.reference import looks_like_reference, parse_reference
    from repository.hub.values import Choice

    if reference and not looks_like_reference(reference) and Path(reference).is_dir():
        repository, reference = Path(reference), None
    if reference is None and (name or quant or allow or ignore or force):
        fail("--as, --quant, --allow, --ignore and --force need to be told what to pull: owner/repo")
    with PullConsole() as console:
        telling = console.telling
        try:
            if reference is None:
                _restore(repository, console)
                return
            wanted = parse_reference(reference)
            choice = Choice(quant, tuple(allow or ()), tuple(ignore or ()), console.ask)
            made = pull_one(repository, wanted, name=name, choice=choice, force=force, telling=telling)
        except HubError as error:
            console.close()
            fail(str(error))
        except (KeyboardInterrupt, EOFError):
            console.close()
            typer.echo("modelyard: stopped; the same command goes on from here", err=True)
            raise typer.Exit(130) from None
    typer.echo(_show(made))


def _restore(repository: Path, console: "PullConsole") -> None:
    """Prints what came back, and what could not; exit 1 where something could not."""
    from adapters.cli.inspection import fail
    from repository.hub.errors import HubError
    from repository.hub.lock import NAME
    from repository.hub.pull import restore

    failed = False
    found = 0
    for each in restore(repository, telling=console.telling):
        found += 1
        console.close()
        if isinstance(each, HubError):
            failed = True
            typer.echo(f"modelyard: {each}", err=True)
        else:
            typer.echo(_show(each))
    if failed:
        raise typer.Exit(1)
    if not found:
        fail(f"{repository / NAME} names no versions; say what to pull: owner/repo[/file][@revision]")


def _show(published: "Published") -> str:
    from repository.hub.choose import show_bytes

    version = published.version
    origin = f"{version.repo}@{version.revision[:8]}"
    if not published.is_new:
        return f"{version.model}:{version.version} is {origin} already, in {published.path}"
    size = show_bytes(sum(file.size for file in version.files))
    line = f"{version.model}:{version.version} is {origin}, {size}, in {published.path}"
    if published.copied_bytes:
        line += f" ({show_bytes(published.copied_bytes)} copied, as the cache could not be linked to)"
    return line
