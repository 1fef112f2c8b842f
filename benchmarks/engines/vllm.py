"""vLLM through Modelyard beside vLLM's own OpenAI server, with the same settings, at 8 and at 32 clients."""

from collections.abc import Callable

from benchmarks import servers
from benchmarks.bench import Run, in_turns
from benchmarks.client import run_load
from benchmarks.engines import random_folder
from benchmarks.engines.bench import DEMO_FOLDER, EngineBench
from benchmarks.figures import Figure, Target, compare
from benchmarks.measure import Summary, summarise
from benchmarks.servers import Server
from benchmarks.workload import Load, distinct

OURS, PEER = "Modelyard", "vLLM's server"
CLIENTS = (8, 32)
LANES = 32
TOKENS = 64
PROMPT_WORDS = 32
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
    middle = bench.state / "made" / "random-79m"
    if not middle.is_dir():
        middle.parent.mkdir(parents=True, exist_ok=True)
        random_folder.write(middle, random_folder.SHAPE_79M)
    folders = {"demo": DEMO_FOLDER, "random-79m": middle}
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
    def load(repeat: int) -> Load:
        requests = distinct(
            clients * bench.scale,
            prompt_words=PROMPT_WORDS,
            max_tokens=TOKENS,
            seed=7000 + 100 * repeat + clients,  # both keep the prefixes that they have seen
            vocabulary=random_folder.SHAPE_79M.vocabulary,
        )
        return Load(clients=clients, requests=requests)

    def run_of(server: Server) -> Run:
        async def run(repeat: int) -> Summary:
            return summarise(await run_load(server.endpoint(name), load(repeat)))

        return run

    runs = {system: run_of(server) for system, server in running.items()}
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
