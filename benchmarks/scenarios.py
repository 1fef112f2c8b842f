"""The measured situations. Each starts the servers it needs and gives figures; systems take turns in it.

Every repeat has prompts of its own, the same for all systems, so no prompt was ever seen by a server before.
"""

import asyncio
from collections.abc import Awaitable, Callable, Mapping

from benchmarks import servers
from benchmarks.bare_loop import BareSettings, run_bare_loop
from benchmarks.bench import BARE, OURS, PEER, Bench, Run, http_runs, in_turns, warm_up
from benchmarks.cancel import cancel
from benchmarks.client import run_load
from benchmarks.figures import Figure, Target, compare
from benchmarks.measure import LoadResult, Stall, Summary, percentile, stall, summarise
from benchmarks.models import DEMO, RANDOM, TWIN
from benchmarks.multi_turn import multi_turn
from benchmarks.workload import Load, distinct, shared_prefix

Scenario = Callable[[Bench], Awaitable[list[Figure]]]


async def throughput(bench: Bench) -> list[Figure]:
    """Tokens/s on distinct prompts at 1, 8 and 16 clients, beside the bare loop and llama.cpp's server."""
    figures = []
    with bench.pair(RANDOM) as pair:
        await warm_up(pair, RANDOM)
        for clients, bare_limit, peer_limit in ((1, 0.95, 1.0), (8, 0.93, 1.15), (16, 0.85, 1.25)):
            load = _distinct_load(clients, max(clients, 2) * bench.scale, seed=1000)
            runs = http_runs(pair, RANDOM, load) | {BARE: _bare_run(bench, load)}
            samples = await in_turns(runs, bench.repeats)
            for other, limit in ((BARE, bare_limit), (PEER, peer_limit)):
                figures.append(_speed(f"350M, {_clients(clients)}", samples, other, Target(limit)))
    return figures


async def demo(bench: Bench) -> list[Figure]:
    """The same beside llama.cpp's server on the demo model, where overhead is most of the time."""
    figures = []
    with bench.pair(DEMO) as pair:
        await warm_up(pair, DEMO)
        for clients, limit in ((1, 1.0), (8, 1.15), (16, 1.25)):
            load = _distinct_load(clients, clients * bench.scale * 8, seed=2000, prompt_words=16)
            samples = await in_turns(http_runs(pair, DEMO, load), bench.repeats)
            figures.append(_speed(f"demo, {_clients(clients)}", samples, PEER, Target(limit)))
    return figures


async def prefix(bench: Bench) -> list[Figure]:
    """Time to first token of 16 clients at once whose prompts share 250 tokens that nobody sent before."""

    def load(repeat: int) -> Load:
        requests = shared_prefix(16, prefix_words=250, own_words=8, max_tokens=16, seed=3000 + repeat)
        return Load(clients=16, requests=requests)

    with bench.pair(RANDOM) as pair:
        await warm_up(pair, RANDOM)
        samples = await in_turns(http_runs(pair, RANDOM, load), bench.repeats)
    figure = compare(
        "16 cold clients share 250 tokens, median TTFT",
        samples,
        pair=(OURS, PEER),
        pick=lambda summary: summary.ttft_median_s,
        unit="s",
        target=Target(7.0),
        less_is_better=True,
    )
    return [figure]


async def neighbour(bench: Bench) -> list[Figure]:
    """Tokens/s at 8 clients while one other process keeps a core busy."""
    load = _distinct_load(8, 8 * bench.scale, seed=4000)
    with bench.pair(RANDOM) as pair, servers.busy_neighbour():
        await warm_up(pair, RANDOM)
        samples = await in_turns(http_runs(pair, RANDOM, load), bench.repeats)
    return [_speed(f"350M, {_clients(8)} beside a busy process", samples, PEER, Target(1.5))]


async def long_prompt(bench: Bench) -> list[Figure]:
    """The longest gap in 8 running streams while a prompt of 2,000 tokens arrives, in median steps."""

    def load(repeat: int) -> Load:
        streams = distinct(8, prompt_words=16, max_tokens=192, spread=0, seed=5000 + repeat)
        (intruder,) = distinct(1, prompt_words=2000, max_tokens=4, spread=0, seed=5500 + repeat)
        return Load(clients=8, requests=streams, intruder=intruder, intruder_after_tokens=8 * 24)

    stalls: dict[str, list[Stall]] = {OURS: [], PEER: []}
    notes: list[str] = []
    with bench.pair(RANDOM) as pair:
        await warm_up(pair, RANDOM)

        def runs_of(system: str) -> Run:
            async def run(repeat: int) -> Summary:
                result = await run_load(pair[system].endpoint(RANDOM), load(repeat))
                if found := stall(result):
                    stalls[system].append(found)
                else:
                    notes.append(f"{system}, repeat {repeat + 1}: {_why_no_stall(result)}")
                return summarise(result)

            return run

        samples = await in_turns({system: runs_of(system) for system in stalls}, bench.repeats)
    ours, peer = (percentile((found.ratio for found in stalls[system]), 50) for system in stalls)
    figure = Figure(
        name="2,000-token prompt meets 8 streams, longest gap / median step",
        target=Target(3.0, is_at_most=True),
        ours=_describe_stalls(stalls[OURS]),
        other=f"{_describe_stalls(stalls[PEER])} = {peer:.3g} (llama.cpp)" if peer else "-",
        ratio=ours,
        notes=notes,
        samples=samples,
    )
    return [figure]


async def two_models(bench: Bench) -> list[Figure]:
    """Two models of one size busy at once: what each keeps of the throughput it has alone in the server."""

    load = _distinct_load(8, 8 * bench.scale, seed=6000)
    samples: dict[str, list[Summary]] = {}
    with servers.modelyard(bench.models.repository, [RANDOM], logs=bench.logs) as server:
        for model in (RANDOM, TWIN):
            servers.load(server, model)
            await warm_up({OURS: server}, model)
            alone = http_runs({f"{model} alone": server}, model, load)
            samples |= await in_turns(alone, bench.repeats)
            servers.unload(server, model)  # which empties its prefix cache too
        for model in (RANDOM, TWIN):
            servers.load(server, model)
            await warm_up({OURS: server}, model)
        for repeat in range(bench.repeats):
            both = (run_load(server.endpoint(model), load(repeat)) for model in (RANDOM, TWIN))
            for model, result in zip((RANDOM, TWIN), await asyncio.gather(*both), strict=True):
                samples.setdefault(f"{model} beside the other", []).append(summarise(result))
    return [
        compare(
            f"two models busy at once, {model}",
            samples,
            pair=(f"{model} beside the other", f"{model} alone"),
            pick=lambda summary: summary.tokens_per_s,
            unit="tok/s",
            target=Target(0.4),
        )
        for model in (RANDOM, TWIN)
    ]


SCENARIOS: Mapping[str, Scenario] = {
    "throughput": throughput,
    "demo": demo,
    "prefix": prefix,
    "neighbour": neighbour,
    "long-prompt": long_prompt,
    "two-models": two_models,
    "cancel": cancel,
    "multi-turn": multi_turn,
}


def _distinct_load(clients: int, count: int, *, seed: int, prompt_words: int = 64) -> Callable[[int], Load]:
    """A load for each repeat; clients and repeat are part of the seed, so no two have a prompt in common."""

    def load(repeat: int) -> Load:
        requests = distinct(
            count, prompt_words=prompt_words, max_tokens=64, seed=seed + 10 * clients + repeat
        )
        return Load(clients=clients, requests=requests)

    return load


def _bare_run(bench: Bench, load: Callable[[int], Load]) -> Run:
    settings = BareSettings(
        model=str(bench.weights(RANDOM)), threads=bench.settings.threads, kv_tokens=bench.settings.kv_tokens
    )

    async def run(repeat: int) -> Summary:
        return (await run_bare_loop(settings, load(repeat))).summary

    return run


def _clients(count: int) -> str:
    return f"{count} client{'' if count == 1 else 's'}"


def _speed(name: str, samples: Mapping[str, list[Summary]], other: str, target: Target) -> Figure:
    return compare(
        name,
        samples,
        pair=(OURS, other),
        pick=lambda summary: summary.tokens_per_s,
        unit="tok/s",
        target=target,
    )


def _describe_stalls(stalls: list[Stall]) -> str:
    gap = percentile((found.longest_gap_s for found in stalls), 50)
    step = percentile((found.median_step_s for found in stalls), 50)
    return f"{gap * 1000:.0f} / {step * 1000:.0f} ms" if gap and step else "-"


def _why_no_stall(result: LoadResult) -> str:
    records = [*result.records, *([result.intruder] if result.intruder else [])]
    errors = [record.error for record in records if record.error]
    return errors[0] if errors else "the streams ended before the prompt arrived"
