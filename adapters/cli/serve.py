"""`modelyard serve`: flags and environment variables to settings; the rest is `adapters.serve`."""

import enum
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, NoReturn

import typer

from adapters.about import distribution_version
from adapters.cli.memory import parse_size, total_memory_bytes
from adapters.cli.state import StateDir, state_folder
from adapters.settings import AppSettings, GrpcSettings, ResponseStoreSettings, ServeSettings
from runner.settings import RunnerSettings

_ORIGIN = re.compile(r"https?://[^/\s?#@]+")


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


class UnknownFields(enum.StrEnum):
    WARN = "warn"
    STRICT = "strict"
    IGNORE = "ignore"


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
        int | None,
        typer.Option(
            envvar="MODELYARD_GRPC_PORT",
            min=0,
            max=65535,
            help="For KServe v2 over gRPC; 0 for none.  [default: 8001, if that is free]",
        ),
    ] = None,
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
    state_dir: StateDir = None,
    ready_means: Annotated[
        ReadyMeans,
        typer.Option(
            envvar="MODELYARD_READY_MEANS",
            help="Whether a model that can be loaded on demand counts as ready.",
        ),
    ] = ReadyMeans.LOADABLE,
    api_key: Annotated[
        list[str] | None,
        typer.Option(
            envvar="MODELYARD_API_KEY",
            help="Ask clients for this key, which may do everything; may be repeated.",
        ),
    ] = None,
    api_key_file: Annotated[
        Path | None,
        typer.Option(
            envvar="MODELYARD_API_KEY_FILE",
            help="A file with one key a line: KEY name=alice models=orca,tiny role=user. Followed while serving.",
        ),
    ] = None,
    cors_origin: Annotated[
        list[str] | None,
        typer.Option(
            envvar="MODELYARD_CORS_ORIGIN",
            help="A web origin like https://example.org whose pages may ask, or *; may be repeated.",
        ),
    ] = None,
    unknown_fields: Annotated[
        UnknownFields,
        typer.Option(
            envvar="MODELYARD_UNKNOWN_FIELDS",
            help="Fields of a body that nobody knows: listed in X-Ignored-Params, refused, or passed over.",
        ),
    ] = UnknownFields.WARN,
    opaque_errors: Annotated[
        bool,
        typer.Option(
            "--opaque-errors",
            envvar="MODELYARD_OPAQUE_ERRORS",
            help="Tell clients no reasons of errors inside; the log has them.",
        ),
    ] = False,
    single_model_fallback: Annotated[
        Fallback,
        typer.Option(
            envvar="MODELYARD_SINGLE_MODEL_FALLBACK",
            help="When the only model there is answers: to every name, to requests without one, or never.",
        ),
    ] = Fallback.ALWAYS,
    allow_pull: Annotated[
        bool,
        typer.Option(
            "--allow-pull",
            envvar="MODELYARD_ALLOW_PULL",
            help="Fetch models from the hub that requests name as owner/repo[/file][@revision].",
        ),
    ] = False,
    keep_free: Annotated[
        str,
        typer.Option(
            envvar="MODELYARD_KEEP_FREE",
            help="What --allow-pull leaves free on the disk: like 10GiB.",
        ),
    ] = "10GiB",
    allow_remote_code: Annotated[
        bool,
        typer.Option(
            "--allow-remote-code",
            envvar="MODELYARD_ALLOW_REMOTE_CODE",
            help="Let models with trust_remote_code run Python code that came with their weights.",
        ),
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
    response_store: Annotated[
        Path | None,
        typer.Option(
            envvar="MODELYARD_RESPONSE_STORE",
            help="A file to keep responses in, so that a later one can go on with them.",
        ),
    ] = None,
    response_max_days: Annotated[
        float,
        typer.Option(envvar="MODELYARD_RESPONSE_MAX_DAYS", min=0, help="How long responses are kept."),
    ] = 30.0,
    response_max_count: Annotated[
        int,
        typer.Option(
            envvar="MODELYARD_RESPONSE_MAX_COUNT", min=1, help="How many responses are kept at most."
        ),
    ] = 100_000,
    log_format: Annotated[LogFormat, typer.Option(envvar="MODELYARD_LOG_FORMAT")] = LogFormat.TEXT,
    access_log: Annotated[
        bool, typer.Option("--access-log", envvar="MODELYARD_ACCESS_LOG", help="Log every request.")
    ] = False,
) -> None:
    """Serve a folder of models over HTTP until SIGTERM or Ctrl-C."""
    if allow_pull and model_control_mode in (ControlMode.NONE, ControlMode.POLL):
        _refuse(f"--allow-pull: with --model-control-mode {model_control_mode} no request loads a model")
    if not repository.is_dir():
        _refuse(f"there is no folder {repository}; create it and put models into it, or name another")
    try:
        budget = parse_size(memory_budget, total_bytes=total_memory_bytes())
    except ValueError as error:
        _refuse(f"--memory-budget: {error}")
    try:
        keep_free_bytes = parse_size(keep_free, total_bytes=0)
        if not keep_free_bytes:
            raise ValueError(f'"{keep_free}" is no size of a part of a disk; write it like 10GiB')
    except ValueError as error:
        _refuse(f"--keep-free: {error}")
    _check_keys(api_key or [], api_key_file)
    for origin in cors_origin or ():
        if origin != "*" and not _ORIGIN.fullmatch(origin):
            _refuse(f"--cors-origin: {origin!r} is not an origin; write it like https://example.org, or *")
    state_dir = state_folder(state_dir)
    settings = ServeSettings(
        runner=RunnerSettings(
            repository=repository,
            state_dir=state_dir,
            control_mode=model_control_mode.value,
            load_models=tuple(load_model or ()),
            memory_budget_bytes=budget,
            ready_means=ready_means.value,
            single_model_fallback=single_model_fallback.value,
            poll_s=poll_seconds,
            drain_s=drain_timeout,
            allow_remote_code=allow_remote_code,
            allow_pull=allow_pull,
            keep_free_bytes=keep_free_bytes,
        ),
        host=host,
        port=port,
        grpc=_grpc(grpc_port),
        log_format=log_format.value,
        responses=ResponseStoreSettings(
            path=response_store, max_age_s=86400 * response_max_days, max_count=response_max_count
        )
        if response_store is not None
        else None,
        app=AppSettings(
            version=distribution_version(),
            api_keys=tuple(api_key or ()),
            api_key_file=api_key_file,
            cors_origins=tuple(cors_origin or ()),
            unknown_fields=unknown_fields.value,
            opaque_errors=opaque_errors,
            private_folders=tuple(folder for folder in (repository, state_dir) if folder.is_absolute()),
            access_log=access_log,
        ),
    )
    from adapters.serve import run

    raise typer.Exit(run(settings))


def _grpc(port: int | None) -> GrpcSettings | None:
    """Nobody who never asked for gRPC is to be stopped by another server on its port."""
    if port is None:
        return GrpcSettings()
    return GrpcSettings(port=port, required=True) if port else None


def _check_keys(keys: Sequence[str], file: Path | None) -> None:
    from adapters.keys import KeyFileError, check_key, read_key_file

    try:
        for key in keys:
            check_key(key)
    except ValueError as error:
        _refuse(f"--api-key: {error}")
    try:
        if file is not None:
            read_key_file(file)
    except KeyFileError as error:
        _refuse(f"--api-key-file: {error}")


def _refuse(message: str) -> NoReturn:
    typer.echo(f"modelyard: {message}", err=True)
    raise typer.Exit(1)
