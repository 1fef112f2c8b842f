"""`modelyard list` and `schema`: what is there, without a server."""

from pathlib import Path
from typing import Annotated

import msgspec
import typer

from adapters.cli.state import StateDir, state_folder


def list_models(
    repository: Annotated[
        Path, typer.Argument(envvar="MODELYARD_REPOSITORY", help="The folder with the models.")
    ] = Path("models"),
    state_dir: StateDir = None,
) -> None:
    """Show the models of a repository."""
    from rich.console import Console

    from adapters.cli.inspection import known_backends, scan_repository, view_models
    from adapters.cli.overview import model_row, print_rows
    from runner.environments.folder import Environments

    environments = Environments(state_folder(state_dir))
    registry = known_backends(environments)
    models = view_models(scan_repository(repository, registry), registry, environments)
    if not models:
        typer.echo(f"There are no models in {repository}.")
        return
    print_rows(Console(), [model_row(model) for model in models])


def schema(state_dir: StateDir = None) -> None:
    """Print the JSON Schema of config.yaml, for editors."""
    from adapters.cli.inspection import known_backends
    from repository.schema import json_schema
    from runner.environments.folder import Environments
    from runner.resolve import option_schemas

    registry = known_backends(Environments(state_folder(state_dir)))
    made = msgspec.json.encode(json_schema(option_schemas(registry)))
    typer.echo(msgspec.json.format(made, indent=2).decode())
