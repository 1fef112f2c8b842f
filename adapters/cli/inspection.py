"""What can be said about a repository without a server: its models, their backends, and all that is wrong.

The same functions that serving uses decide here, so that `check` and `serve` never disagree.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import NoReturn

import msgspec
import typer
from msgspec.structs import replace

from backends.registry import Registry
from repository.config_file import check_options, idle_options, locate
from repository.problem import Problem
from repository.remote.record import known
from repository.remote.wanted import Remote
from repository.scan import RepositoryError, scan
from repository.snapshot import ModelEntry, Snapshot, VersionEntry
from repository.weights import WeightsError, WeightsFacts, read_facts
from runner.environments.folder import Environments
from runner.environments.interpreters import Interpreters
from runner.environments.values import EnvironmentProblem
from runner.errors import LoadFailed
from runner.resolve import Choice, choose_backend, option_schemas


class VersionView(msgspec.Struct, frozen=True, kw_only=True):
    """One version: what its weights are and who would run it. `scores`: how each candidate claims them. `idle`: options
    that have no effect there. `awaits`: what has to come from the network first. `missing_engine`: why the backend does
    not run here, and what to do."""

    entry: VersionEntry
    facts: WeightsFacts | None = None
    backend: str = ""
    scores: dict[str, int] = {}
    problems: tuple[Problem, ...] = ()
    idle: tuple[Problem, ...] = ()
    awaits: Remote | None = None
    missing_engine: str = ""


class ModelView(msgspec.Struct, frozen=True, kw_only=True):
    """One model; `problems` has its own and its served versions'."""

    entry: ModelEntry
    versions: tuple[VersionView, ...] = ()
    problems: tuple[Problem, ...] = ()


def fail(message: str) -> NoReturn:
    """One line on stderr and exit 1."""
    typer.echo(f"modelyard: {message}", err=True)
    raise typer.Exit(1)


def known_backends(environments: Environments) -> Registry:
    """The backends that a server with these environments would know."""
    return Registry(elsewhere=environments.plugins())


def scan_repository(repository: Path, registry: Registry) -> Snapshot:
    """One look at the disk; ends the command with a sentence where there is no repository."""
    try:
        return scan(repository, schemas=option_schemas(registry))
    except RepositoryError as error:
        fail(str(error))


def view_models(
    snapshot: Snapshot, registry: Registry, environments: Environments, *, asks_engines: bool = True
) -> tuple[ModelView, ...]:
    """Every model of the snapshot, each problem once. `asks_engines`: find out which engines run here, which takes
    seconds for each."""
    interpreters = Interpreters(environments) if asks_engines else None
    return tuple(_view(entry, registry, environments, interpreters) for entry in snapshot.entries)


def _view(
    entry: ModelEntry, registry: Registry, environments: Environments, interpreters: Interpreters | None
) -> ModelView:
    if entry.config is None:
        return ModelView(entry=entry, problems=tuple(dict.fromkeys(entry.all_problems)))
    selection = entry.selection()
    served = [version for version in entry.versions if version.number in selection.versions]
    state_dir = environments.state_dir
    views = tuple(
        _view_version(entry, version, registry, interpreters, state_dir=state_dir) for version in served
    )
    where = entry.config_path or entry.path
    problems = [
        *entry.all_problems,
        *_environment_problem(entry, environments),
        *(problem for view in views for problem in view.problems),
        *(_problem(where, f"version_policy: version {number} is missing") for number in selection.missing),
    ]
    return ModelView(entry=entry, versions=views, problems=tuple(dict.fromkeys(problems)))


def _environment_problem(entry: ModelEntry, environments: Environments) -> Iterator[Problem]:
    """What is wrong with the environment that its configuration names."""
    config, path = entry.config, entry.config_path
    if config is None or config.environment is None or path is None:
        return
    try:
        problem = environments.problem(environments.get(config.environment))
    except EnvironmentProblem as error:
        problem = str(error)
    if problem:
        yield Problem(str(path), *locate(path, "environment", item=entry.config_item), problem)


def _view_version(
    entry: ModelEntry,
    version: VersionEntry,
    registry: Registry,
    interpreters: Interpreters | None,
    *,
    state_dir: Path,
) -> VersionView:
    config = entry.config
    if version.problem is not None or config is None:
        return VersionView(entry=version)
    if version.source is not None:
        record = known(state_dir, version.source)
        if record is None:
            backend = config.backend or ""
            return VersionView(entry=version, backend=backend, awaits=version.source)
        if record.weights is not None:
            version = replace(version, weights_path=Path(record.weights))
    facts: WeightsFacts | None = None
    try:
        facts = read_facts(version.weights_path) if version.weights_path is not None else None
        choice = choose_backend(facts, config, registry, no_weights=version.no_weights)
    except (WeightsError, LoadFailed) as error:
        where = version.weights_path or version.path
        return VersionView(entry=version, facts=facts, problems=(_problem(where, str(error)),))
    spec, path, item = choice.spec, entry.config_path, entry.config_item
    return VersionView(
        entry=version,
        facts=facts,
        backend=spec.name,
        scores=choice.scores,
        problems=tuple(check_options(config, spec.name, spec.options, path=path, item=item)),
        idle=tuple(idle_options(config, spec.name, spec.options, path=path, item=item)),
        missing_engine=_missing_engine(choice, config.environment, registry, interpreters),
    )


def _missing_engine(
    choice: Choice, environment: str | None, registry: Registry, interpreters: Interpreters | None
) -> str:
    if interpreters is None:
        return ""
    others = [registry.get(name) for name in choice.runners_up]
    try:
        interpreters.choose(choice.spec, environment, others=others)
    except LoadFailed as error:
        return str(error)
    return ""


def _problem(path: Path, message: str) -> Problem:
    shown = str(path)
    return Problem(shown, 0, 0, message.removeprefix(f"{shown}: "))
