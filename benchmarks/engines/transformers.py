"""transformers through Modelyard: 8 clients beside one, and both beside `generate()` without a server."""

from functools import partial
from pathlib import Path

from benchmarks.bench import Run, in_turns
from benchmarks.engines.bench import DEMO_FOLDER, EngineBench, Work, bare, measure_in_turn, served, speeds
from benchmarks.figures import Figure, Target
from benchmarks.servers import Server

SCRIPT = Path(__file__).with_name("bare_transformers.py")
WORK = Work(tokens=64, prompt_words=16)
BATCHED = Target(3.0)
BESIDE_BARE = Target(0.9)
CONFIG = {"backend": "transformers", "scheduler": {"max_lanes": 16, "prefix_cache": False}}


async def measure(bench: EngineBench) -> list[Figure]:
    """Tokens/s of the demo model and of a random one of 79 million parameters."""
    folders = {"demo": DEMO_FOLDER, "random-79m": bench.random_79m()}
    return await measure_in_turn(
        bench, "transformers", folders, CONFIG, measure=partial(_measure_model, bench)
    )


async def _measure_model(bench: EngineBench, server: Server, name: str, folder: Path) -> list[Figure]:
    python = bench.python("transformers")

    def of(clients: int) -> tuple[Run, Run]:
        load = partial(WORK.load, clients=clients, requests=8 * bench.scale)
        job = {"folder": str(folder), "together": clients, "threads": bench.threads}
        return served(server, name, load), bare(python, SCRIPT, load, **job)

    (eight, bare_eight), (one, bare_one) = of(8), of(1)
    await eight(99)  # warm
    runs = {"8 clients": eight, "1 client": one, "generate(), 8": bare_eight, "generate(), 1": bare_one}
    samples = await in_turns(runs, bench.repeats)
    pairs = [
        ("8 clients", "1 client", BATCHED),
        ("8 clients", "generate(), 8", BESIDE_BARE),
        ("1 client", "generate(), 1", BESIDE_BARE),
    ]
    return speeds("transformers", name, samples, pairs)
