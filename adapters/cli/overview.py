"""The table of a repository's models that `list` prints, and `serve` at its start: what is served, by which backend,
and what is not and why.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec
import typer

from adapters.cli.inspection import ModelView, known_backends, view_models
from adapters.cli.memory import show_size
from repository.problem import Problem
from repository.scan import scan
from runner.environments.folder import Environments
from runner.resolve import option_schemas

if TYPE_CHECKING:
    from rich.console import Console

MOST_VIEWED = 100
"""In a repository of more models `serve` reads no weights for its table, and points to `list`."""

MOST_ROWS = 20


class Row(msgspec.Struct, frozen=True, kw_only=True):
    """One model. `trouble` says why it is not served; `note` is its description."""

    name: str
    versions: str = "-"
    backend: str = ""
    weights: str = ""
    size: str = ""
    note: str = ""
    trouble: str = ""


def model_row(model: ModelView) -> Row:
    """What the table says of a model."""
    last = model.versions[-1] if model.versions else None
    facts = last.facts if last is not None else None
    source = last.awaits if last is not None else None
    config = model.entry.config
    is_disabled = config is not None and config.disabled
    weights = " ".join(filter(None, (facts.architecture, facts.quantisation))) if facts else ""
    trouble = _trouble(model)
    return Row(
        name=model.entry.name,
        versions=", ".join(str(view.entry.number) for view in model.versions) or "-",
        backend=last.backend if last is not None else "",
        weights=weights or (f"{source}: on {source.origin}, not fetched yet" if source is not None else ""),
        size=show_size(facts.size_bytes) if facts else "",
        note=(config.description or "") if config else "",
        trouble="disabled" if is_disabled and not trouble else trouble,
    )


def _trouble(model: ModelView) -> str:
    """The first reason why a model, or its newest version, is not served."""
    if model.problems:
        return model.problems[0].message
    return model.versions[-1].missing_engine if model.versions else ""


def print_rows(console: "Console", rows: Sequence[Row], passed_over: Sequence[Problem] = ()) -> None:
    """A table on a terminal, else a line for each model, tabs between the columns."""
    if not console.is_terminal:
        for row in rows:
            what = [row.versions, row.backend, row.weights, row.size, row.note]
            cells = [row.name, f"not served: {row.trouble}"] if row.trouble else [row.name, *what]
            typer.echo("\t".join(cells).rstrip("\t"))
        for problem in passed_over:
            typer.echo(f"passed over\t{problem}")
        return
    from rich.table import Table
    from rich.text import Text

    table = Table("Model", "Versions", "Backend", "Weights", "Size", "", box=None, header_style="dim")
    for row in rows:
        table.add_row(
            Text(row.name, style="bold"),
            Text(row.versions),
            Text(row.backend),
            Text(row.weights),
            Text(row.size),
            Text(row.trouble or row.note, style="red" if row.trouble else ""),
        )
    for problem in passed_over:
        table.add_row(
            Text(Path(problem.path).name, style="dim"), "", "", "", "", Text(problem.message, style="dim")
        )
    console.print(table)


def print_start(repository: Path, state_dir: Path) -> list[str]:
    """Look at a repository as `modelyard list` does, and print as much of it as is read at a start: what is not served
    and what is, in equal parts where both are many. Returns the names of those that are. Raises RepositoryError."""
    from rich.console import Console

    environments = Environments(state_dir)
    registry = known_backends(environments)
    snapshot = scan(repository, schemas=option_schemas(registry))
    rows = [model_row(model) for model in view_models(snapshot, registry, environments)]
    good = [row for row in rows if not row.trouble]
    bad = [row for row in rows if row.trouble]
    room = max(MOST_ROWS - len(bad), MOST_ROWS // 2)
    shown = good[:room] + bad[: MOST_ROWS - min(len(good), room)]
    passed_over = snapshot.ignored[: MOST_ROWS // 4]
    console = Console()
    print_rows(console, shown, passed_over)
    left = len(rows) - len(shown) + len(snapshot.ignored) - len(passed_over)
    if left:
        typer.echo(f"and {left} more: `modelyard list {repository}` and `modelyard check` show them")
    return [row.name for row in good]
