"""Where the state folder is: the flag that many subcommands share, and its default."""

import os
from pathlib import Path
from typing import Annotated

import typer

from adapters.about import DISTRIBUTION

StateDir = Annotated[
    Path | None,
    typer.Option(
        envvar=["MODELYARD_STATE", "MODELYARD_STATE_DIR"],
        help="Where environments, logs and caches are.  [default: $XDG_STATE_HOME/modelyard]",
    ),
]


def state_folder(given: Path | None) -> Path:
    """`given`, or `$XDG_STATE_HOME/modelyard`, which is `~/.local/state/modelyard` where that is not set."""
    if given is not None:
        return given
    home = os.environ.get("XDG_STATE_HOME")
    return (Path(home) if home else Path.home() / ".local" / "state") / DISTRIBUTION
