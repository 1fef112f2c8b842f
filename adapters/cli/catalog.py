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
    from rich.table import Table
    from rich.text import Text

    from adapters.cli.inspection import ModelView, known_backends, scan_repository, view_models
    from adapters.cli.memory import show_size
    from runner.environments.folder import Environments

    def row(model: ModelView) -> list[Text]:
        versions = ", ".join(str(view.entry.number) for view in model.versions)
        last = model.versions[-1] if model.versions else None
        facts = last.facts if last is not None else None
        what = " ".join(filter(None, (facts.architecture, facts.quantisation))) if facts else ""
        config = model.entry.config
        note = str(model.problems[0].message) if model.problems else (config.description if config else "")
        if config is not None and config.disabled:
            note = "disabled"
        return [
            Text(model.entry.name, style="bold"),
            Text(versions or "-"),
            Text(last.backend if last else ""),
            Text(what),
            Text(show_size(facts.size_bytes) if facts else ""),
            Text(note or "", style="red" if model.problems else ""),
        ]

    environments = Environments(state_folder(state_dir))
    registry = known_backends(environments)
    models = view_models(scan_repository(repository, registry), registry, environments)
    if not models:
        typer.echo(f"There are no models in {repository}.")
        return
    table = Table("Model", "Versions", "Backend", "Weights", "Size", "", box=None, header_style="dim")
    for model in models:
        table.add_row(*row(model))
    Console().print(table)


def schema(state_dir: StateDir = None) -> None:
    """Print the JSON Schema of config.yaml, for editors."""
    from adapters.cli.inspection import known_backends
    from repository.schema import json_schema
    from runner.environments.folder import Environments
    from runner.resolve import option_schemas

    registry = known_backends(Environments(state_folder(state_dir)))
    made = msgspec.json.encode(json_schema(option_schemas(registry)))
    typer.echo(msgspec.json.format(made, indent=2).decode())
