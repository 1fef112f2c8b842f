"""`modelyard check`: every problem of every model, each with its place."""

from pathlib import Path
from typing import Annotated

import typer


def check(
    repository: Annotated[
        Path, typer.Argument(envvar="MODELYARD_REPOSITORY", help="The folder with the models.")
    ] = Path("models"),
    verbose: Annotated[
        bool,
        typer.Option("--verbose", "-v", help="Say also what was passed over and which backend is picked."),
    ] = False,
) -> None:
    """Print every problem of every model; exit 1 if there is one."""
    from adapters.cli.inspection import ModelView, scan_repository, view_models
    from backends.registry import Registry

    def explain(model: ModelView) -> None:
        for ignored in model.entry.ignored:
            typer.echo(f"{ignored} (passed over)")
        for version in model.versions:
            scores = ", ".join(f"{name} {score}" for name, score in sorted(version.scores.items()))
            if version.backend:
                typer.echo(f"{version.entry.path}: runs on {version.backend} (claims: {scores})")

    registry = Registry()
    snapshot = scan_repository(repository, registry)
    models = view_models(snapshot, registry)
    for model in models:
        for problem in model.problems:
            typer.echo(str(problem))
        if verbose:
            explain(model)
    for problem in snapshot.ignored:
        if verbose:
            typer.echo(f"{problem} (passed over)")
    for name, reason in sorted(registry.broken().items()):
        typer.echo(f"backend {name}: {reason}")
    bad = sum(1 for model in models if model.problems)
    count = f"{len(models)} model{'' if len(models) == 1 else 's'}"
    typer.echo(f"{count}, {bad} with problems" if bad else f"{count}, no problems", err=True)
    if bad:
        raise typer.Exit(1)
