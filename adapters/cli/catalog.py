"""`modelyard list`, `backends` and `schema`: what is there, without a server."""

from pathlib import Path
from typing import Annotated

import msgspec
import typer


def list_models(
    repository: Annotated[
        Path, typer.Argument(envvar="MODELYARD_REPOSITORY", help="The folder with the models.")
    ] = Path("models"),
) -> None:
    """Show the models of a repository."""
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    from adapters.cli.inspection import ModelView, scan_repository, view_models
    from adapters.cli.memory import show_size
    from backends.registry import Registry

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

    registry = Registry()
    models = view_models(scan_repository(repository, registry), registry)
    if not models:
        typer.echo(f"There are no models in {repository}.")
        return
    table = Table("Model", "Versions", "Backend", "Weights", "Size", "", box=None, header_style="dim")
    for model in models:
        table.add_row(*row(model))
    Console().print(table)


def backends() -> None:
    """Show the installed backends."""
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    from backends.registry import Registry

    registry = Registry()
    table = Table("Backend", "Also called", "Shape", "", box=None, header_style="dim")
    for spec in registry.specs():
        table.add_row(
            Text(spec.name, style="bold"), Text(", ".join(spec.aliases)), Text(spec.shape), Text(spec.summary)
        )
    for name, reason in sorted(registry.broken().items()):
        table.add_row(Text(name, style="bold"), "", "", Text(f"broken: {reason}", style="red"))
    Console().print(table)


def schema() -> None:
    """Print the JSON Schema of config.yaml, for editors."""
    from adapters.cli.inspection import option_schemas
    from backends.registry import Registry
    from repository.schema import json_schema

    made = msgspec.json.encode(json_schema(option_schemas(Registry())))
    typer.echo(msgspec.json.format(made, indent=2).decode())
