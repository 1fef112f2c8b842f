"""vLLM through Modelyard beside vLLM's own OpenAI server, with the same settings, at 8 and at 32 clients."""

from collections.abc import Callable
from functools import partial

from benchmarks import servers
from benchmarks.bench import in_turns
from benchmarks.engines.bench import DEMO_FOLDER, EngineBench, Work, served
from benchmarks.figures import Figure, Target, compare
from benchmarks.measure import Summary
from benchmarks.servers import Server

OURS, PEER = "Modelyard", "vLLM's server"
CLIENTS = (8, 32)
LANES = 32
WORK = Work(tokens=64, prompt_words=32, spread=0.25)
CONTEXT_TOKENS = 1024
BLOCK_TOKENS = 128
KV_TOKENS = 128 * BLOCK_TOKENS
BESIDE_PEER = Target(0.95)
CONFIG = {
    "backend": "vllm",
    "context_size": CONTEXT_TOKENS,
    "scheduler": {"max_lanes": LANES, "kv_tokens": KV_TOKENS},
}


async def measure(bench: EngineBench) -> list[Figure]:
    """Tokens/s and time to first token of the demo model and of a random one of 79 million parameters."""
    folders = {"demo": DEMO_FOLDER, "random-79m": bench.random_79m()}
    repository = bench.repository("vllm", {name: (folder, CONFIG) for name, folder in folders.items()})
    figures: list[Figure] = []
    for name, folder in folders.items():
        with (
            servers.modelyard(repository, [name], logs=bench.logs / "vllm", state_dir=bench.state) as ours,
            servers.vllm(
                bench.python("vllm"),
                folder,
                name,
                lanes=LANES,
                kv_blocks=KV_TOKENS // BLOCK_TOKENS + 1,
                context_tokens=CONTEXT_TOKENS,
                threads=bench.threads,
                logs=bench.logs / "vllm",
            ) as peer,
        ):
            for clients in CLIENTS:
                figures += await _measure_load(bench, {OURS: ours, PEER: peer}, name, clients)
    return figures


async def _measure_load(
    bench: EngineBench, running: dict[str, Server], name: str, clients: int
) -> list[Figure]:
    load = partial(WORK.load, clients=clients, requests=clients * bench.scale)
    runs = {system: served(server, name, load) for system, server in running.items()}
    for run in runs.values():
        await run(99)  # warm
    samples = await in_turns(runs, bench.repeats)

    def figure(
        what: str, pick: Callable[[Summary], float | None], unit: str, *, less_is_better: bool
    ) -> Figure:
        return compare(
            f"vllm, {name}, {clients} clients, {what}",
            samples,
            pair=(OURS, PEER),
            pick=pick,
            unit=unit,
            target=BESIDE_PEER,
            less_is_better=less_is_better,
        )

    return [
        figure("tokens/s", lambda summary: summary.tokens_per_s, "tok/s", less_is_better=False),
        figure("TTFT", lambda summary: summary.ttft_median_s, "s", less_is_better=True),
    ]
