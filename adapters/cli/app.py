"""Puts the subcommands together."""

from typing import Annotated

import typer

from adapters.about import DISTRIBUTION, distribution_version
from adapters.cli.backends import backends
from adapters.cli.bench import bench
from adapters.cli.catalog import list_models, schema
from adapters.cli.chat import chat
from adapters.cli.check import check
from adapters.cli.doctor import doctor
from adapters.cli.environments import env
from adapters.cli.gallery import gallery
from adapters.cli.importing import importing
from adapters.cli.pull import pull
from adapters.cli.serve import serve


def build_cli() -> typer.Typer:
    """The whole command line."""
    cli = typer.Typer(
        name=DISTRIBUTION,
        help="Serve a directory of language models.",
        no_args_is_help=True,
        add_completion=False,
        pretty_exceptions_enable=False,
        rich_markup_mode=None,
    )
    cli.callback()(_options)
    cli.command("serve")(serve)
    cli.command("check")(check)
    cli.command("list")(list_models)
    cli.command("pull")(pull)
    cli.add_typer(importing, name="import")
    cli.add_typer(gallery, name="gallery")
    cli.command("chat")(chat)
    cli.command("schema")(schema)
    cli.command("backends")(backends)
    cli.add_typer(env, name="env")
    cli.add_typer(bench, name="bench")
    cli.command("doctor")(doctor)
    return cli


def _show_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"{DISTRIBUTION} {distribution_version()}")
        raise typer.Exit


def _options(
    version: Annotated[
        bool, typer.Option("--version", callback=_show_version, is_eager=True, help="Show the version.")
    ] = False,
) -> None:
    """Serve a directory of language models."""
