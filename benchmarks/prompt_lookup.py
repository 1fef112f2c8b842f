"""`python -m benchmarks.prompt_lookup [--quick] [--log]`: what guessing from the text itself gains, in one server.

The same prompts with and without `prompt_lookup`, in turns: a trained model that repeats and corrects texts, small and
padded to 350 M, and the random model of 350 M that goes on in a loop of its own making. Exits 1 when a target is
missed.
"""

import argparse
import asyncio
import itertools
import os
import signal
import sys
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path

import msgspec
import numpy as np

from benchmarks import servers
from benchmarks.bench import Run, in_turns
from benchmarks.client import Call, Endpoint
from benchmarks.copying import LONGEST_TEXT, VOCABULARY, exercise
from benchmarks.figures import Figure, Target, compare, table
from benchmarks.harness.work import Session
from benchmarks.measure import Summary, summarise
from benchmarks.models import COPYING, COPYING_350M, RANDOM, Settings, prepare, prepare_copying
from benchmarks.servers import Server, end_in_order
from benchmarks.sessions import run_sessions
from benchmarks.words import text_of, words

ROOT = Path(__file__).parents[1]
WITH, WITHOUT = "with look-up", "without"
ALONE, TOGETHER = Target(1.5), Target(0.95)
CLIENTS = (1, 4, 8)
LOOP_TOKENS = 1000
"""So many tokens the random model says, in which a loop is looked for."""
READ, SAID = 32, 128
"""A loop is where so many tokens go round; the model reads all up to the first of these and is to say the second."""

Prompts = Callable[[int, int], Sequence[Session]]
"""The requests of a repeat for so many clients."""


class Measured(msgspec.Struct, frozen=True, kw_only=True):
    """Samples with and without, and how many of the answers were the same."""

    samples: dict[str, list[Summary]]
    equal: int
    answers: int
    guessed: float = 0.0
    right: float = 0.0


async def copying(server: Server, model: str, *, repeats: int, scale: int) -> list[Figure]:
    """The trained model repeats one half of its texts and corrects the other."""

    def prompts(repeat: int, clients: int) -> list[Session]:
        rng = np.random.default_rng([repeat, clients])
        found = []
        for number in range(2 * clients * scale):
            # Texts of one length would all end at once: their streams would keep step only without guesses.
            length = int(rng.integers(LONGEST_TEXT // 2, LONGEST_TEXT * 9 // 10))
            one = exercise(rng, words=length, corrects=number % 2 == 1)
            found.append(request(text_of(one.prompt, vocabulary=VOCABULARY), len(one.answer)))
        return found

    return [
        figure_of(
            f"{model}, {count} client{'s' * (count > 1)}",
            await measure_prompts(server, model, prompts, clients=count, repeats=repeats),
            clients=count,
        )
        for count in CLIENTS
    ]


async def looping(server: Server, model: str, *, repeats: int) -> list[Figure]:
    """The random model goes on from what it said itself, in which it goes round."""
    loops = await find_loops(server.endpoint(model), count=2 * max(CLIENTS))

    def prompts(repeat: int, clients: int) -> list[Session]:
        given = itertools.islice(itertools.cycle(loops), repeat % len(loops), None)
        return [request(text, SAID) for text in itertools.islice(given, max(2, clients))]

    return [
        figure_of(
            f"{model} in its own loop, {count} client{'s' * (count > 1)}",
            await measure_prompts(server, model, prompts, clients=count, repeats=repeats),
            clients=count,
        )
        for count in CLIENTS
    ]


async def find_loops(endpoint: Endpoint, *, count: int, vocabulary: int = 32_000) -> list[str]:
    """What the model said, greedily, up to where it goes round and goes on to do so, each with the words that it began
    from. Raises ServerError where it never goes round."""
    begun = ["".join(words(8, seed=seed, vocabulary=vocabulary)) for seed in range(count)]
    said = await run_sessions(endpoint, [request(text, LOOP_TOKENS) for text in begun], clients=count)
    loops = []
    for text, records in zip(begun, said.sessions, strict=True):
        tokens = records[0].text.split(" ")
        if end := loop_in(tokens):
            loops.append(text + " ".join(tokens[:end]))
    if not loops:
        raise servers.ServerError(f"of {count} texts that {endpoint.model} said none goes round")
    return loops


def loop_in(said: Sequence[str], *, read: int = READ, ahead: int = SAID) -> int:
    """Where `read` tokens before and `ahead` behind go round, twice at least in the first of these; 0 for nowhere."""
    for period in range(1, read // 2 + 1):
        run = 0
        for place in range(period, len(said)):
            run = run + 1 if said[place] == said[place - period] else 0
            if run + period >= read + ahead:
                return place + 1 - ahead
    return 0


async def measure_prompts(
    server: Server, model: str, prompts: Prompts, *, clients: int, repeats: int
) -> Measured:
    """The same prompts with and without, in turns."""
    texts: dict[str, list[list[list[str]]]] = {WITH: [], WITHOUT: []}

    def run_of(system: str) -> Run:
        async def run(repeat: int) -> Summary:
            # Neither finds the prompts that the other has just read.
            given = {"prompt_lookup": system == WITH, "cache_salt": f"{system} {repeat}"}
            sessions = [_with_body(session, given) for session in prompts(repeat, clients)]
            done = await run_sessions(server.endpoint(model), sessions, clients=clients)
            if repeat < repeats:
                texts[system].append(done.texts)
            return summarise(done.load)

        return run

    runs = {system: run_of(system) for system in texts}
    # Both are warm then, and what the engine takes for steps of each size is known.
    for run in runs.values():
        await run(repeats)
    before = _counted(server)
    samples = await in_turns(runs, repeats)
    guessed, right = (now - then for now, then in zip(_counted(server), before, strict=True))
    answers = [one for repeat in texts[WITHOUT] for session in repeat for one in session]
    others = [one for repeat in texts[WITH] for session in repeat for one in session]
    return Measured(
        samples=samples,
        equal=sum(a == b for a, b in zip(answers, others, strict=True)),
        answers=len(answers),
        guessed=guessed,
        right=right,
    )


def figure_of(name: str, found: Measured, *, clients: int) -> Figure:
    """The speed with look-up beside that without."""
    figure = compare(
        name,
        found.samples,
        pair=(WITH, WITHOUT),
        pick=lambda summary: summary.tokens_per_s,
        unit="tok/s",
        target=ALONE if clients == 1 else TOGETHER,
    )
    share = f"{found.right / found.guessed:.0%}" if found.guessed else "none"
    notes = [f"{found.guessed:.0f} tokens guessed, {share} of them right"]
    if found.equal < found.answers:
        notes.append(f"only {found.equal} of {found.answers} answers are the same with and without")
    # Several tokens in a chunk are what is measured here.
    kept = [note for note in figure.notes if "chunks are not tokens" not in note]
    return msgspec.structs.replace(figure, notes=[*kept, *notes])


def request(prompt: str, tokens: int) -> Session:
    """One completion of exactly so many tokens."""
    body = {
        "prompt": prompt,
        "max_tokens": tokens,
        "temperature": 0,
        "ignore_eos": True,
        "stream": True,
        "stream_options": {"include_usage": True},
    }
    return Session(calls=(Call(path="/completions", body=body, tokens=tokens),))


def _with_body(session: Session, given: Mapping[str, object]) -> Session:
    calls = tuple(msgspec.structs.replace(call, body={**call.body, **given}) for call in session.calls)
    return msgspec.structs.replace(session, calls=calls)


def _counted(server: Server) -> tuple[float, float]:
    """Tokens that were guessed and that were right, so far."""
    return server.metric("modelyard_guessed_tokens_total"), server.metric("modelyard_right_guesses_total")


async def measure(
    settings: Settings, *, logs: Path, repeats: int, scale: int, only: str = ""
) -> list[Figure]:
    """All figures; `scale` is half the number of requests a client."""
    models = prepare(settings)
    prepare_copying(settings)
    figures: list[Figure] = []
    for model in (COPYING, COPYING_350M, RANDOM):
        if only and model not in only.split(","):
            continue
        with servers.modelyard(models.repository, [model], logs=logs) as server:
            if model == RANDOM:
                found = await looping(server, model, repeats=repeats)
            else:
                more = 4 if model == COPYING else 1
                found = await copying(server, model, repeats=repeats, scale=more * scale)
        print(table(found), file=sys.stderr, flush=True)
        figures += found
    return figures


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.prompt_lookup", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="one short repeat of everything")
    parser.add_argument("--only", default="", help=f"some of {COPYING},{COPYING_350M},{RANDOM}")
    parser.add_argument("--repeats", type=int, help="default 3, quick 1")
    parser.add_argument("--threads", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--log", action="store_true", help="append the figures to benchmarks/LOG.md")
    options = parser.parse_args()
    started = datetime.now(UTC)
    signal.signal(signal.SIGTERM, end_in_order)
    figures = asyncio.run(
        measure(
            Settings(threads=options.threads),
            logs=ROOT / "benchmarks" / "results" / "logs",
            repeats=options.repeats or (1 if options.quick else 3),
            scale=1,
            only=options.only,
        )
    )
    text = table(figures)
    print(text)
    if options.log:
        with (ROOT / "benchmarks" / "LOG.md").open("a") as log:
            log.write(f"\n## {started:%Y-%m-%d %H:%M} UTC, prompt look-up\n\n{text}\n")
    return 0 if all(figure.is_met for figure in figures) else 1


if __name__ == "__main__":
    sys.exit(main())
