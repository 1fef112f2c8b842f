"""`modelyard serve`: flags and environment variables to settings; the rest is `adapters.serve`."""

import enum
import os
from pathlib import Path
from typing import Annotated, NoReturn

import typer

from adapters.about import DISTRIBUTION, distribution_version
from adapters.cli.memory import parse_size, total_memory_bytes
from adapters.settings import AppSettings, ServeSettings
from runner.settings import RunnerSettings

_GRPC_PORT = 8001


class ControlMode(enum.StrEnum):
    ON_DEMAND = "on-demand"
    NONE = "none"
    POLL = "poll"
    EXPLICIT = "explicit"


class ReadyMeans(enum.StrEnum):
    LOADABLE = "loadable"
    LOADED = "loaded"


class Fallback(enum.StrEnum):
    ALWAYS = "always"
    MISSING = "missing"
    NEVER = "never"


class LogFormat(enum.StrEnum):
    TEXT = "text"
    JSON = "json"


def serve(
    *,
    repository: Annotated[
        Path, typer.Argument(envvar="MODELYARD_REPOSITORY", help="The folder with the models.")
    ] = Path("models"),
    host: Annotated[str, typer.Option(envvar="MODELYARD_HOST")] = "127.0.0.1",
    port: Annotated[int, typer.Option(envvar="MODELYARD_PORT", min=0, max=65535)] = 8080,
    grpc_port: Annotated[
        int, typer.Option(envvar="MODELYARD_GRPC_PORT", min=0, max=65535, help="Not served yet.")
    ] = _GRPC_PORT,
    model_control_mode: Annotated[
        ControlMode,
        typer.Option(
            envvar="MODELYARD_MODEL_CONTROL_MODE",
            help="on-demand: follow the disk, load at first use. none: load all at start. "
            "poll: load all, follow the disk. explicit: load and unload over the API only.",
        ),
    ] = ControlMode.ON_DEMAND,
    load_model: Annotated[
        list[str] | None,
        typer.Option(envvar="MODELYARD_LOAD_MODEL", help="A model to load at start; may be repeated."),
    ] = None,
    memory_budget: Annotated[
        str,
        typer.Option(envvar="MODELYARD_MEMORY_BUDGET", help="For all loaded models: like 80% or 12GiB."),
    ] = "80%",
    state_dir: Annotated[
        Path | None,
        typer.Option(
            envvar=["MODELYARD_STATE", "MODELYARD_STATE_DIR"],
            help="Where logs and caches go.  [default: $XDG_STATE_HOME/modelyard]",
        ),
    ] = None,
    ready_means: Annotated[
        ReadyMeans,
        typer.Option(
            envvar="MODELYARD_READY_MEANS",
            help="Whether a model that can be loaded on demand counts as ready.",
        ),
    ] = ReadyMeans.LOADABLE,
    api_key: Annotated[
        list[str] | None,
        typer.Option(envvar="MODELYARD_API_KEY", help="Ask clients for this key; may be repeated."),
    ] = None,
    api_key_file: Annotated[
        Path | None, typer.Option(envvar="MODELYARD_API_KEY_FILE", help="A file with one key a line.")
    ] = None,
    single_model_fallback: Annotated[
        Fallback,
        typer.Option(
            envvar="MODELYARD_SINGLE_MODEL_FALLBACK",
            help="When the only model there is answers: to every name, to requests without one, or never.",
        ),
    ] = Fallback.ALWAYS,
    allow_pull: Annotated[
        bool, typer.Option("--allow-pull", envvar="MODELYARD_ALLOW_PULL", help="Not possible yet.")
    ] = False,
    poll_seconds: Annotated[
        float, typer.Option(envvar="MODELYARD_POLL_SECONDS", min=0.1, help="How often to look at the disk.")
    ] = 2.0,
    drain_timeout: Annotated[
        float,
        typer.Option(
            envvar="MODELYARD_DRAIN_TIMEOUT", min=0, help="Seconds for running requests to finish at the end."
        ),
    ] = 30.0,
    log_format: Annotated[LogFormat, typer.Option(envvar="MODELYARD_LOG_FORMAT")] = LogFormat.TEXT,
    access_log: Annotated[
        bool, typer.Option("--access-log", envvar="MODELYARD_ACCESS_LOG", help="Log every request.")
    ] = False,
) -> None:
    """Serve a folder of models over HTTP until SIGTERM or Ctrl-C."""
    if grpc_port != _GRPC_PORT:
        _refuse("this version does not serve gRPC yet; leave --grpc-port away")
    if allow_pull:
        _refuse("this version cannot fetch models that a request names yet; leave --allow-pull away")
    if not repository.is_dir():
        _refuse(f"there is no folder {repository}; create it and put models into it, or name another")
    try:
        budget = parse_size(memory_budget, total_bytes=total_memory_bytes())
    except ValueError as error:
        _refuse(f"--memory-budget: {error}")
    settings = ServeSettings(
        runner=RunnerSettings(
            repository=repository,
            state_dir=state_dir or default_state_dir(),
            control_mode=model_control_mode.value,
            load_models=tuple(load_model or ()),
            memory_budget_bytes=budget,
            ready_means=ready_means.value,
            single_model_fallback=single_model_fallback.value,
            poll_s=poll_seconds,
            drain_s=drain_timeout,
        ),
        host=host,
        port=port,
        log_format=log_format.value,
        app=AppSettings(
            version=distribution_version(),
            api_keys=(*(api_key or ()), *_keys_of(api_key_file)),
            access_log=access_log,
        ),
    )
    from adapters.serve import run

    raise typer.Exit(run(settings))


def default_state_dir() -> Path:
    """`$XDG_STATE_HOME/modelyard`, which is `~/.local/state/modelyard` where the variable is not set."""
    given = os.environ.get("XDG_STATE_HOME")
    return (Path(given) if given else Path.home() / ".local" / "state") / DISTRIBUTION


def _keys_of(path: Path | None) -> list[str]:
    if path is None:
        return []
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        _refuse(f"cannot read the API keys in {path}: {error}")
    keys = [line.strip() for line in lines if line.strip() and not line.startswith("#")]
    if not keys:
        _refuse(f"{path} holds no API key; write one a line")
    return keys


def _refuse(message: str) -> NoReturn:
    typer.echo(f"modelyard: {message}", err=True)
    raise typer.Exit(1)
