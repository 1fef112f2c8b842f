"""Conversations whose history grows, beside llama.cpp's server: with a slot for each user, and with fewer slots.

Users answer at once. Each turn sends all turns and answers so far through chat completions and asks for a fixed number
of tokens. Both servers have the same lanes and KV pool, and may keep as much beside it as they do by default.
"""

from collections.abc import Callable, Mapping

from benchmarks.bench import OURS, PEER, Bench, Run, in_turns
from benchmarks.client import Call
from benchmarks.figures import Figure, Target, compare
from benchmarks.harness.work import Session
from benchmarks.measure import Summary, summarise
from benchmarks.models import DEMO, RANDOM
from benchmarks.servers import Server
from benchmarks.sessions import run_sessions
from benchmarks.words import words

SLOTS = 8
USERS = 24
TURNS = 4
ASKED_WORDS = 40
ANSWER_TOKENS = 48
SHARED_WORDS = 250
PROMPT_CACHE_MIB = 8192
"""What llama.cpp's server keeps outside of its KV pool if it is told nothing; Modelyard keeps as much as its pool."""

Conversations = Callable[[int], list[Session]]


async def multi_turn(bench: Bench) -> list[Figure]:
    """Tokens/s of whole conversations: 8 users on 8 slots, and 24 users on 8 slots with one system prompt."""
    figures = []
    for model in (RANDOM, DEMO):
        words_each = (
            ASKED_WORDS if model == RANDOM else ASKED_WORDS // 4
        )  # a word is several tokens of the demo's

        def alone(repeat: int, words_each: int = words_each) -> list[Session]:
            return conversations(SLOTS, words_each=words_each, seed=8000 + repeat)

        def shared(repeat: int, words_each: int = words_each) -> list[Session]:
            return conversations(
                USERS,
                words_each=words_each,
                seed=9000 + repeat,
                shared_words=words_each * SHARED_WORDS // ASKED_WORDS,
            )

        with bench.with_lanes(SLOTS).pair(model, prompt_cache_mib=PROMPT_CACHE_MIB) as pair:
            for name, made, clients, limit in (
                (f"{SLOTS} users on {SLOTS} slots", alone, SLOTS, 1.2),
                (f"{USERS} users on {SLOTS} slots, one system prompt", shared, USERS, 2.0),
            ):
                runs = _runs(pair, model, made, clients=clients)
                for run in runs.values():
                    await run(-1)  # warm
                samples = await in_turns(runs, bench.repeats)
                figures.append(_figure(f"{_short(model)}, multi-turn, {name}", samples, Target(limit)))
    return figures


def conversations(
    users: int, *, words_each: int, seed: int, shared_words: int = 0, vocabulary: int = 32_000
) -> list[Session]:
    """A conversation for each user, which no other seed shares; with `shared_words` all begin with one system prompt of
    so many."""
    system = _message("system", "".join(words(shared_words, seed=seed * 1009, vocabulary=vocabulary)))
    sessions = []
    for user in range(users):
        calls = []
        for turn in range(TURNS):
            said = words(words_each, seed=seed * 1009 + 1 + user * TURNS + turn, vocabulary=vocabulary)
            asked = [_message("user", "".join(said).strip())]
            calls.append(_call([system, *asked] if shared_words and not turn else asked))
        sessions.append(Session(calls=tuple(calls), is_chat=True))
    return sessions


def _runs(pair: Mapping[str, Server], model: str, made: Conversations, *, clients: int) -> dict[str, Run]:
    def run_of(server: Server) -> Run:
        async def run(repeat: int) -> Summary:
            done = await run_sessions(server.endpoint(model), made(repeat), clients=clients)
            return summarise(done.load)

        return run

    return {system: run_of(server) for system, server in pair.items()}


def _figure(name: str, samples: Mapping[str, list[Summary]], target: Target) -> Figure:
    return compare(
        name,
        samples,
        pair=(OURS, PEER),
        pick=lambda summary: summary.tokens_per_s,
        unit="tok/s",
        target=target,
    )


def _call(messages: list[dict[str, str]]) -> Call:
    body = {
        "messages": messages,
        "max_tokens": ANSWER_TOKENS,
        "temperature": 0,
        "ignore_eos": True,
        "stream": True,
        "stream_options": {"include_usage": True},
    }
    return Call(path="/chat/completions", body=body, tokens=ANSWER_TOKENS)


def _message(role: str, content: str) -> dict[str, str]:
    return {"role": role, "content": content.strip()}


def _short(model: str) -> str:
    return "350M" if model == RANDOM else model
