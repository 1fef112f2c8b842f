"""`modelyard check`: every problem of every model, each with its place."""

from pathlib import Path
from typing import Annotated

import typer

from adapters.cli.state import StateDir, state_folder


def check(
    repository: Annotated[
        Path, typer.Argument(envvar="MODELYARD_REPOSITORY", help="The folder with the models.")
    ] = Path("models"),
    verbose: Annotated[
        bool,
        typer.Option("--verbose", "-v", help="Say also which backend is picked, and why."),
    ] = False,
    state_dir: StateDir = None,
) -> None:
    """Print every problem of every model, and what was passed over; exit 1 if there is a problem."""
    from adapters.cli.inspection import ModelView, known_backends, scan_repository, view_models
    from runner.environments.folder import Environments

    def explain(model: ModelView) -> None:
        for version in model.versions:
            scores = ", ".join(f"{name} {score}" for name, score in sorted(version.scores.items()))
            if version.backend:
                typer.echo(f"{version.entry.path}: runs on {version.backend} (claims: {scores})")

    environments = Environments(state_folder(state_dir))
    registry = known_backends(environments)
    snapshot = scan_repository(repository, registry)
    models = view_models(snapshot, registry, environments)
    for model in models:
        for problem in model.problems:
            typer.echo(str(problem))
        for idle in dict.fromkeys(each for version in model.versions for each in version.idle):
            typer.echo(str(idle))
        for ignored in model.entry.ignored:
            typer.echo(f"{ignored} (passed over)")
        if verbose:
            explain(model)
    for problem in snapshot.ignored:
        typer.echo(f"{problem} (passed over)")
    for name, reason in sorted(registry.broken().items()):
        typer.echo(f"backend {name}: {reason}")
    bad = sum(1 for model in models if model.problems)
    count = f"{len(models)} model{'' if len(models) == 1 else 's'}"
    typer.echo(f"{count}, {bad} with problems" if bad else f"{count}, no problems", err=True)
    if bad:
        raise typer.Exit(1)
