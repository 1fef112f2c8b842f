"""`modelyard backends`: each backend, where it runs and on what, or the command that installs it."""

from typing import Annotated

import typer

from adapters.cli.state import StateDir, state_folder


def backends(
    verbose: Annotated[
        bool, typer.Option("--verbose", "-v", help="Say also what each is for and called.")
    ] = False,
    state_dir: StateDir = None,
) -> None:
    """Show every backend: where it runs, its engine and devices, or how to install it."""
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    from adapters.cli.inspection import known_backends
    from backends.contract import BackendSpec
    from runner.environments.folder import Environments
    from runner.environments.interpreters import Interpreters, Place

    def row(spec: BackendSpec, place: Place) -> list[Text]:
        found = place.found
        devices = f" on {', '.join(found.devices)}" if found.devices else ""
        trouble = place.problem or found.problem
        names = f" ({', '.join(spec.aliases)})" if spec.aliases and verbose else ""
        cells = [
            Text(f"{spec.name}{names}"),
            Text(f"environment {place.environment}" if place.environment else "server" * (not place.problem)),
            Text(trouble, style="red" if place.environment or not place.problem else "dim")
            if trouble
            else Text(f"{found.engine}{devices}"),
        ]
        return [*cells, Text(spec.summary)] if verbose else cells

    environments = Environments(state_folder(state_dir))
    registry = known_backends(environments)
    specs = registry.specs()
    table = Table("Backend", "Runs in", "Engine", *["For"] * verbose, box=None, header_style="dim")
    for spec, place in zip(specs, Interpreters(environments).places(specs), strict=True):
        table.add_row(*row(spec, place))
    for name, reason in sorted(registry.broken().items()):
        table.add_row(Text(name), "", Text(f"broken: {reason}", style="red"))
    Console().print(table)
