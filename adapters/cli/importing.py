"""`modelyard import triton|ollama|lmstudio|huggingface|localai`: other programs' models, by link where possible."""

import enum
import os
import sys
from collections.abc import Callable, Iterable, Sequence
from fnmatch import fnmatchcase
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

if TYPE_CHECKING:
    from repository.importing.placing import Placement
    from repository.importing.values import Importable

ASKED_BYTES = 1_000_000_000
"""Who copies more than this is asked first."""

importing = typer.Typer(help="Take over models that other programs have.", no_args_is_help=True)


class Link(enum.StrEnum):
    HARD = "hard"
    SYMBOLIC = "symbolic"


Repository = Annotated[
    Path,
    typer.Option("--repository", envvar="MODELYARD_REPOSITORY", help="The folder that the models come into."),
]
Model = Annotated[
    list[str] | None,
    typer.Option(metavar="PATTERN", help="Import only models of this name, as 'llama*'; may be repeated."),
]
As = Annotated[str | None, typer.Option("--as", help="What to call the model, where it is one.")]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Say what would be done, and do nothing.")]
Copy = Annotated[bool, typer.Option("--copy", help="Copy files even where they could be linked.")]
LinkChoice = Annotated[
    Link | None,
    typer.Option(
        help="`symbolic`: link symbolically where no hard link leads; `hard`: never copy.  [default: hard, else copy]"
    ),
]
Yes = Annotated[bool, typer.Option("--yes", "-y", help="Copy without asking.")]

_REPOSITORY = Path("models")


@importing.command("triton")
def triton(
    folder: Annotated[Path, typer.Argument(help="The model repository of a Triton server.")],
    repository: Repository = _REPOSITORY,
    *,
    model: Model = None,
    name: As = None,
    backend: Annotated[
        str | None, typer.Option(help="Run them on this backend in place of vLLM.  [default: vllm]")
    ] = None,
    dry_run: DryRun = False,
    copy: Copy = False,
    link: LinkChoice = None,
    yes: Yes = False,
) -> None:
    """Import the vLLM models of a Triton repository."""
    from repository.importing.triton import find_models

    job = _Job(repository, "a Triton repository", model, name, dry_run=dry_run, copy=copy, link=link, yes=yes)
    job.run(lambda: (_on_backend(each, backend) for each in find_models(folder)))


@importing.command("ollama")
def ollama(
    folder: Annotated[
        Path | None,
        typer.Argument(help="Its models folder.  [default: $OLLAMA_MODELS, or ~/.ollama/models]"),
    ] = None,
    repository: Repository = _REPOSITORY,
    *,
    model: Model = None,
    name: As = None,
    dry_run: DryRun = False,
    copy: Copy = False,
    link: LinkChoice = None,
    yes: Yes = False,
) -> None:
    """Import models that Ollama has: weights, parameters, system text, template."""
    from repository.importing.ollama import find_models

    place = folder or Path(os.environ.get("OLLAMA_MODELS") or Path.home() / ".ollama" / "models")
    job = _Job(repository, "Ollama", model, name, dry_run=dry_run, copy=copy, link=link, yes=yes)
    job.run(lambda: find_models(place))


@importing.command("lmstudio")
def lmstudio(
    folder: Annotated[
        Path | None,
        typer.Argument(help="Its models folder.  [default: ~/.lmstudio/models, or the older place]"),
    ] = None,
    repository: Repository = _REPOSITORY,
    *,
    model: Model = None,
    name: As = None,
    dry_run: DryRun = False,
    copy: Copy = False,
    link: LinkChoice = None,
    yes: Yes = False,
) -> None:
    """Import models that LM Studio has."""
    from repository.importing.lmstudio import find_models

    old = Path.home() / ".cache" / "lm-studio" / "models"
    place = folder or (old if old.is_dir() else Path.home() / ".lmstudio" / "models")
    job = _Job(repository, "LM Studio", model, name, dry_run=dry_run, copy=copy, link=link, yes=yes)
    job.run(lambda: find_models(place))


@importing.command("huggingface")
def huggingface(
    folder: Annotated[
        Path | None, typer.Argument(help="The hub's cache.  [default: what HF_HOME or HF_HUB_CACHE say]")
    ] = None,
    repository: Repository = _REPOSITORY,
    *,
    model: Model = None,
    name: As = None,
    dry_run: DryRun = False,
    copy: Copy = False,
    link: LinkChoice = None,
    yes: Yes = False,
) -> None:
    """Import models that the Hugging Face libraries have downloaded."""
    from huggingface_hub import constants

    from repository.importing.hub_cache import find_models

    place = folder or Path(constants.HF_HUB_CACHE)
    if not list(place.glob("models--*")) and (place / "hub").is_dir():
        place = place / "hub"
    job = _Job(repository, "the hub's cache", model, name, dry_run=dry_run, copy=copy, link=link, yes=yes)
    job.run(lambda: find_models(place))


@importing.command("localai")
def localai(
    folder: Annotated[Path, typer.Argument(help="The models folder of a LocalAI.")],
    repository: Repository = _REPOSITORY,
    *,
    model: Model = None,
    name: As = None,
    dry_run: DryRun = False,
    copy: Copy = False,
    link: LinkChoice = None,
    yes: Yes = False,
) -> None:
    """Import models of a LocalAI: its YAML files, with weights and templates."""
    from repository.importing.localai import find_models

    job = _Job(repository, "LocalAI", model, name, dry_run=dry_run, copy=copy, link=link, yes=yes)
    job.run(lambda: find_models(folder))


class _Job:
    """One call of `modelyard import`: choose, plan, say, ask, do."""

    def __init__(
        self,
        repository: Path,
        source: str,
        patterns: Sequence[str] | None,
        name: str | None,
        *,
        dry_run: bool,
        copy: bool,
        link: Link | None,
        yes: bool,
    ) -> None:
        from adapters.cli.inspection import fail

        if copy and link is not None:
            fail("--copy and --link exclude each other")
        self._root = repository
        self._source = source
        self._patterns = patterns or ()
        self._name = name
        self._dry_run = dry_run
        self._way: Literal["auto", "hard", "symbolic", "copy"] = (
            "copy" if copy else "auto" if link is None else "hard" if link is Link.HARD else "symbolic"
        )
        self._yes = yes
        self._failed = 0
        self._taken: dict[str, str] = {}

    def run(self, find: Callable[[], Iterable["Importable"]]) -> None:
        """Everything; ends the command with exit 1 if some model was not imported."""
        from adapters.cli.inspection import fail
        from repository.importing.placing import check_room, place
        from repository.importing.values import ImportProblem

        try:
            chosen = self._choose(list(find()))
        except ImportProblem as problem:
            fail(str(problem))
        plans = [plan for each in chosen if (plan := self._plan(each)) is not None]
        for plan in plans:
            self._announce(plan)
        wanted = [plan for plan in plans if not plan.is_there]
        copied_bytes = sum(plan.copied_bytes for plan in wanted)
        try:
            check_room(copied_bytes, self._root)
        except ImportProblem as problem:
            fail(str(problem))
        if not self._dry_run and self._may_copy(copied_bytes):
            for plan in wanted:
                comments = [f"Imported from {self._source}: {plan.model.label}", *plan.model.notes]
                try:
                    place(plan, self._root, comments=comments)
                except ImportProblem as problem:
                    self._fail(plan.model, str(problem))
                else:
                    typer.echo(f"{plan.model.name} is in {plan.folder}")
        if self._failed:
            raise typer.Exit(1)

    def _choose(self, found: Sequence["Importable"]) -> list["Importable"]:
        from msgspec.structs import replace

        from adapters.cli.inspection import fail

        chosen = [
            each
            for each in found
            if not self._patterns
            or any(
                fnmatchcase(text, pattern) for pattern in self._patterns for text in (each.name, each.label)
            )
        ]
        if not chosen:
            names = ", ".join(each.name for each in found[:20])
            fail(
                f"no model of {self._source} is called so; it has {names}" if found else "there are no models"
            )
        if self._name is not None:
            if len(chosen) > 1:
                fail(f"--as names one model, and {len(chosen)} are chosen; choose one with --model")
            return [replace(chosen[0], name=self._name)]
        return chosen

    def _plan(self, model: "Importable") -> "Placement | None":
        from repository.importing.placing import plan
        from repository.importing.values import ImportProblem

        try:
            if model.problem:
                raise ImportProblem(model.problem)
            planned = plan(model, self._root, way=self._way, may_follow=self._name is not None)
            if problems := _config_problems(model):
                raise ImportProblem(f"its settings are not possible here: {problems}")
            if other := self._taken.get(model.name):
                raise ImportProblem(
                    f"{other} has that name too; import it by itself, with --model '{model.label}' --as ANOTHER-NAME"
                )
        except ImportProblem as problem:
            self._fail(model, str(problem))
            return None
        self._taken[model.name] = model.label
        return planned

    def _announce(self, plan: "Placement") -> None:
        from repository.hub.choose import show_bytes

        model, size = plan.model, show_bytes(plan.model.size)
        if plan.is_there:
            typer.echo(f"{model.name}: {model.label} is there already, in {plan.folder}")
            return
        how = {"hard": "linked", "symbolic": "linked symbolically", "copy": "copied"}[plan.links]
        what = f"{size} {how}" if model.files else "no files; its weights come from the hub"
        typer.echo(f"{model.name}: {model.label}, {what}, into {plan.folder}")
        for note in model.notes:
            typer.echo(f"  {note}")
        if plan.keeps_config and model.config:
            typer.echo(f"  the config.yaml that is in {self._root / model.name} stays as it is")

    def _may_copy(self, size: int) -> bool:
        from repository.hub.choose import show_bytes

        if size <= ASKED_BYTES:
            return True
        typer.echo(f"{show_bytes(size)} will be copied; --link symbolic would link them")
        if self._yes or not sys.stdin.isatty():
            return True
        return typer.confirm("Copy them?")

    def _fail(self, model: "Importable", message: str) -> None:
        self._failed += 1
        typer.echo(f"{model.name}: {model.label} is not imported: {message}", err=True)


def _on_backend(model: "Importable", backend: str | None) -> "Importable":
    """The model on another backend than vLLM, whose own arguments then are left behind."""
    from msgspec.structs import replace

    if backend is None or model.problem:
        return model
    config = {key: value for key, value in model.config.items() if key in _GENERAL}
    left = [key for key in model.config if key not in (*_GENERAL, "backend")]
    note = f"left behind, as they are vLLM's: {', '.join(left)}"
    notes = (*model.notes, note) if left else model.notes
    return replace(model, config={"backend": backend, **config}, notes=notes)


_GENERAL = ("parameters", "context_size", "scheduler", "instance_group", "trust_remote_code")
"""Keys that every backend has."""


def _config_problems(model: "Importable") -> str:
    from adapters.cli.inspection import known_backends
    from adapters.cli.state import state_folder
    from repository.config_file import load_values
    from runner.environments.folder import Environments
    from runner.resolve import option_schemas

    if not model.config:
        return ""
    schemas = option_schemas(known_backends(Environments(state_folder(None))))
    return "; ".join(each.message for each in load_values(model.config, model.label, schemas).problems)
