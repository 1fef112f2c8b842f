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
    verify: Annotated[
        bool,
        typer.Option("--verify", help="Read also what was pulled, and compare it with modelyard.lock."),
    ] = False,
    state_dir: StateDir = None,
) -> None:
    """Print every problem of every model, and what was passed over; exit 1 if there is a problem."""
    from adapters.cli.inspection import ModelView, known_backends, scan_repository, view_models
    from runner.environments.folder import Environments

    def explain(model: ModelView) -> None:
        for version in model.versions:
            scores = ", ".join(f"{name} {score}" for name, score in sorted(version.scores.items()))
            if version.scores:
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
        for version in model.versions:
            if version.missing_engine:
                typer.echo(f"{version.entry.path}: {version.missing_engine} (not served here)", err=True)
        for awaits in dict.fromkeys(version.awaits for version in model.versions if version.awaits):
            typer.echo(
                f"{model.entry.config_path or model.entry.path}: {awaits} is on {awaits.origin}, not fetched yet"
            )
        for ignored in model.entry.ignored:
            typer.echo(f"{ignored} (passed over)")
        if verbose:
            explain(model)
    for problem in snapshot.ignored:
        typer.echo(f"{problem} (passed over)")
    for name, reason in sorted(registry.broken().items()):
        typer.echo(f"backend {name}: {reason}")
    damaged = _print_damaged(repository) if verify else 0
    bad = sum(1 for model in models if model.problems)
    count = f"{len(models)} model{'' if len(models) == 1 else 's'}"
    away = sum(1 for model in models if any(version.awaits for version in model.versions))
    count += f", {bad} with problems" if bad else ", no problems"
    typer.echo(count + (f"; {away} not fetched yet" if away else ""), err=True)
    if bad or damaged:
        raise typer.Exit(1)


def _print_damaged(repository: Path) -> int:
    """Prints which files are not what was pulled; how many there are."""
    from adapters.cli.inspection import fail
    from repository.hub.errors import HubError
    from repository.hub.pull import verify

    count = 0
    try:
        for problem in verify(repository):
            typer.echo(str(problem))
            count += 1
    except HubError as error:
        fail(str(error))
    return count
