"""`modelyard bench`: the harness on the command line. Imports it only when a subcommand runs."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, NoReturn

import typer

from adapters.cli.bench_work import OutputTokens, PromptWords, Requests, Seed, WorkOptions, with_work
from adapters.cli.inspection import fail
from adapters.cli.state import StateDir, state_folder

if TYPE_CHECKING:
    from rich.console import Console

    from benchmarks.harness.result import Result, Run
    from benchmarks.harness.run import Wanted, Work

bench = typer.Typer(
    help="Measure servers and compare engines on the same work.", no_args_is_help=True, add_completion=False
)

MixName = Annotated[
    str,
    typer.Option(
        "--mix",
        help="chat, long-prompt, shared-prefix, multi-turn, structured, embeddings, or a JSON Lines file of requests.",
    ),
]
Clients = Annotated[int, typer.Option(help="Closed loop: so many requests at once.", min=1)]
Output = Annotated[Path | None, typer.Option("-o", "--output", help="Where the result goes, as JSON.")]


@bench.command("run")
@with_work
def run(
    url: Annotated[str, typer.Argument(help="Base URL, such as http://127.0.0.1:8080/v1.")],
    *,
    model: Annotated[str, typer.Option(help="The model; may be left out where there is one.")] = "",
    api_key: Annotated[str, typer.Option(envvar="OPENAI_API_KEY", help="Sent as the bearer token.")] = "",
    mix: MixName = "chat",
    clients: Clients = 8,
    work: WorkOptions,
    output: Output = None,
) -> None:
    """Measure one model of any OpenAI-compatible server. Exits 1 where requests failed."""
    from benchmarks.client import Endpoint
    from benchmarks.harness.discovery import DiscoveryError, find_model
    from benchmarks.harness.run import measure_run

    console = _console()
    planned = _planned(work.wanted(mix=mix, clients=clients))
    try:
        endpoint = Endpoint.at(url, model=model, api_key=api_key)
        found = find_model(endpoint)
    except (ValueError, DiscoveryError) as error:
        fail(str(error))
    done = measure_run(
        found.endpoint, planned, label=found.endpoint.model, url=url, console=console, facts=found.facts
    )
    _finish([done], output=output)


@bench.command("compare")
@with_work
def compare(
    repository: Annotated[Path, typer.Argument(help="A model repository.")],
    *,
    models: Annotated[str, typer.Option(help="Names, separated by commas; the first is the reference.")],
    mix: Annotated[str, typer.Option(help="Mixes, separated by commas; see `bench run`.")] = "chat",
    clients: Annotated[str, typer.Option(help="Closed loop: numbers of clients, separated by commas.")] = "8",
    work: WorkOptions,
    state_dir: StateDir = None,
    output: Output = None,
) -> None:
    """Start a server, load each model in turn, and give all of them the same work. Exits 1 where one failed."""
    import random

    from benchmarks.harness.compare import compare as compare_models
    from benchmarks.harness.run import LARGEST_SEED
    from benchmarks.servers import ServerError

    if work.seed is None:
        work = work._replace(seed=random.randrange(LARGEST_SEED))  # one for all
    works = [
        _planned(work.wanted(mix=name, clients=count))
        for name in mix.split(",")
        for count in _numbers(clients)
    ]
    console = _console()
    done: list[Run] = []
    try:
        for run in compare_models(
            repository, models.split(","), works, console=console, state_dir=state_folder(state_dir)
        ):
            done.append(run)
            if run.is_partial:
                break
    except (ServerError, KeyboardInterrupt) as error:
        if not done:
            fail(str(error) or "broken off before anything was measured")
    _finish(done, output=output)


@bench.command("sweep")
def sweep(
    model: Annotated[Path, typer.Argument(help="A model's folder, or a GGUF file.")],
    *,
    settings: Annotated[
        list[str] | None,
        typer.Option("--try", help="A key of config.yaml and its values, such as threads=1,2,4."),
    ] = None,
    mix: MixName = "chat",
    clients: Clients = 8,
    requests: Requests = None,
    prompt_words: PromptWords = None,
    output_tokens: OutputTokens = None,
    seed: Seed = None,
    state_dir: StateDir = None,
    output: Output = None,
    fragment: Annotated[
        Path | None, typer.Option(help="Where the quickest settings go, as a part of a config.yaml.")
    ] = None,
) -> None:
    """Try settings of one model, and print the quickest as a fragment of config.yaml."""
    import os

    from benchmarks.harness import sweep as sweeping
    from benchmarks.harness.run import Wanted
    from benchmarks.harness.work import Arrival
    from benchmarks.servers import ServerError

    wanted = Wanted(
        mix=mix,
        arrival=Arrival(clients=clients),
        requests=requests,
        prompt_words=prompt_words,
        output_tokens=output_tokens,
        seed=seed,
    )
    runs: list[Run] = []
    choices: list[sweeping.Choice] = []
    try:
        found = sweeping.read_model(model)
        tried = sweeping.parse_settings(settings or ()) or sweeping.usual_settings(
            found, cores=os.cpu_count() or 1
        )
        work = _planned(wanted)
        for choice in sweeping.sweep(
            found, tried, work, console=_console(), state_dir=state_folder(state_dir), on_run=runs.append
        ):
            choices.append(choice)
            speed = "failed" if choice.tokens_per_s is None else f"{choice.tokens_per_s:.4g} tokens/s"
            typer.echo(f"{choice.key}: {choice.value}: {speed} {choice.failure}".rstrip())
    except (sweeping.SweepError, ServerError) as error:
        fail(str(error))
    except KeyboardInterrupt:
        typer.echo("broken off; this is the best so far", err=True)
    if runs:
        _keep(runs, output=output)
    text = f"# for {found.name}/config.yaml\n{sweeping.fragment(sweeping.best_of(choices))}"
    typer.echo(f"\n{text}", nl=False)
    if fragment is not None:
        fragment.write_text(text, "utf-8")


@bench.command("diff")
def diff(
    before: Annotated[Path, typer.Argument(help="A result.")],
    after: Annotated[Path, typer.Argument(help="A later one, of the same work.")],
    tolerance: Annotated[float, typer.Option(help="A change below this share is none.", min=0.0)] = 0.05,
) -> None:
    """Compare two results, run by run. Exits 1 on a regression beyond the noise."""
    from benchmarks.harness.diff import compare_results

    changes = compare_results(_loaded(before), _loaded(after), tolerance=tolerance)
    if not changes:
        fail("the results have no run of the same model and work in common")
    _table([["run", "figure", "before", "after", "change", "verdict"], *[change.row() for change in changes]])
    raise typer.Exit(int(any(change.is_regression for change in changes)))


@bench.command("report")
def report(
    results: Annotated[list[Path], typer.Argument(help="Results of `bench run` or `bench compare`.")],
    output: Annotated[Path, typer.Option("-o", "--output", help="The page.")] = Path("report.html"),
) -> None:
    """Make one self-contained HTML page of results."""
    from benchmarks.harness.report import render

    output.write_text(render([_loaded(path) for path in results]), "utf-8")
    typer.echo(f"wrote {output}")


def _planned(wanted: "Wanted") -> "Work":
    from benchmarks.harness.mixes import MixError
    from benchmarks.harness.run import plan_work

    try:
        return plan_work(wanted)
    except MixError as error:
        fail(str(error))


def _numbers(text: str) -> list[int]:
    try:
        found = [int(part) for part in text.split(",")]
    except ValueError:
        found = []
    if not found or min(found) < 1:
        fail(f"--clients {text!r}: write whole numbers, separated by commas, such as 1,8,16")
    return found


def _loaded(path: Path) -> "Result":
    from benchmarks.harness.result import ResultError, load

    try:
        return load(path)
    except ResultError as error:
        fail(str(error))


def _console() -> "Console":
    from rich.console import Console

    return Console(stderr=True)


def _finish(runs: "list[Run]", *, output: Path | None) -> NoReturn:
    """Show the figures, keep the result, and exit: 1 where anything failed, 130 where it was broken off."""
    from benchmarks.harness.compare import agreement
    from benchmarks.harness.tables import notes, summary

    _table(summary(runs))
    for label, words in agreement(runs).items():
        typer.echo(f"greedy answers of {label}: {words}")
    for note in notes(runs):
        typer.echo(f"- {note}")
    _keep(runs, output=output)
    if any(run.is_partial for run in runs):
        raise typer.Exit(130)
    raise typer.Exit(int(any(run.failure or (run.measures and run.measures.failed) for run in runs)))


def _keep(runs: "list[Run]", *, output: Path | None) -> None:
    from benchmarks.harness.machine import machine_facts
    from benchmarks.harness.result import Result, save

    started = runs[0].started
    path = output or Path(f"bench-{started:%Y%m%d-%H%M%S}.json")
    save(Result(started=started, machine=machine_facts(), runs=runs), path)
    typer.echo(f"kept in {path}")


def _table(rows: list[list[str]]) -> None:
    from rich.console import Console
    from rich.table import Table

    head, *body = rows
    shown = Table(*head)
    for row in body:
        shown.add_row(*row)
    console = Console()
    console.print(shown) if console.is_terminal else Console(width=200).print(shown)
