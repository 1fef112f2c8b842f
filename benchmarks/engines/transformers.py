"""transformers through Modelyard: 8 clients beside one, and both beside `generate()` without a server."""

from pathlib import Path

from benchmarks import servers
from benchmarks.bench import Run, in_turns
from benchmarks.client import run_load
from benchmarks.engines import random_folder
from benchmarks.engines.bench import DEMO_FOLDER, EngineBench, run_bare
from benchmarks.figures import Figure, Target, compare
from benchmarks.measure import Summary, summarise
from benchmarks.servers import Server
from benchmarks.workload import Load, distinct

SCRIPT = Path(__file__).with_name("bare_transformers.py")
TOKENS = 64
PROMPT_WORDS = 16
BATCHED = Target(3.0)
BESIDE_BARE = Target(0.9)
CONFIG = {"backend": "transformers", "scheduler": {"max_lanes": 16, "prefix_cache": False}}


async def measure(bench: EngineBench) -> list[Figure]:
    """Tokens/s of the demo model and of a random one of 79 million parameters."""
    middle = bench.state / "made" / "random-79m"
    if not middle.is_dir():
        middle.parent.mkdir(parents=True, exist_ok=True)
        random_folder.write(middle, random_folder.SHAPE_79M)
    folders = {"demo": DEMO_FOLDER, "random-79m": middle}
    repository = bench.repository(
        "transformers", {name: (folder, CONFIG) for name, folder in folders.items()}
    )
    figures: list[Figure] = []
    with servers.modelyard(repository, [], logs=bench.logs, state_dir=bench.state) as server:
        for name, folder in folders.items():
            servers.load(server, name)
            figures += await _measure_model(bench, server, name, folder)
            servers.unload(server, name)
    return figures


async def _measure_model(bench: EngineBench, server: Server, name: str, folder: Path) -> list[Figure]:
    python = bench.python("transformers")

    def load(repeat: int, clients: int) -> Load:
        requests = distinct(
            8 * bench.scale,
            prompt_words=PROMPT_WORDS,
            max_tokens=TOKENS,
            seed=5000 + repeat,
            spread=0.0,
            vocabulary=random_folder.SHAPE_79M.vocabulary,
        )
        return Load(clients=clients, requests=requests)

    def served(clients: int) -> Run:
        async def run(repeat: int) -> Summary:
            return summarise(await run_load(server.endpoint(name), load(repeat, clients)))

        return run

    def bare(together: int) -> Run:
        async def run(repeat: int) -> Summary:
            prompts = [request.prompt for request in load(repeat, together).requests]
            job = {"folder": str(folder), "prompts": prompts, "max_tokens": TOKENS}
            return await run_bare(python, SCRIPT, {**job, "together": together, "threads": bench.threads})

        return run

    runs = {"8 clients": served(8), "1 client": served(1), "generate(), 8": bare(8), "generate(), 1": bare(1)}
    await runs["8 clients"](99)  # warm
    samples = await in_turns(runs, bench.repeats)
    pairs = [
        ("8 clients", "1 client", BATCHED),
        ("8 clients", "generate(), 8", BESIDE_BARE),
        ("1 client", "generate(), 1", BESIDE_BARE),
    ]
    return [
        compare(
            f"transformers, {name}, {ours} over {other}",
            samples,
            pair=(ours, other),
            pick=lambda summary: summary.tokens_per_s,
            unit="tok/s",
            target=target,
        )
        for ours, other, target in pairs
    ]
