"""RWKV-7 through Modelyard: 8 clients and one, beside the rwkv package without a server, which knows no batches."""

import asyncio
import json
from functools import partial
from pathlib import Path

from benchmarks.bench import in_turns
from benchmarks.engines.bench import EngineBench, Work, bare, measure_in_turn, served, speeds
from benchmarks.engines.random_folder import SHAPE_79M, tokenizer_json
from benchmarks.figures import Figure, Target
from benchmarks.servers import Server

ENVIRONMENT = "transformers"
SCRIPT = Path(__file__).with_name("bare_rwkv.py")
MAKER = Path(__file__).with_name("random_rwkv.py")
SIZES = {"random-90m": (10, 768), "random-2m": (3, 128)}
WORK = Work(tokens=48, prompt_words=32)
BATCHED = Target(2.5)
BESIDE_BARE = Target(0.9)
CONFIG = {"backend": "rwkv", "scheduler": {"max_lanes": 16}}


async def measure(bench: EngineBench) -> list[Figure]:
    """Tokens/s of random models of 90 and of 2 million parameters, in float32."""
    folders = {name: await _made(bench, name) for name in SIZES}
    return await measure_in_turn(bench, "rwkv", folders, CONFIG, measure=partial(_measure_model, bench))


async def _measure_model(bench: EngineBench, server: Server, name: str, folder: Path) -> list[Figure]:
    package = "the package, one by one"
    eight, one = (partial(WORK.load, clients=clients, requests=8 * bench.scale) for clients in (8, 1))
    job = {"folder": str(folder), "threads": bench.threads}
    runs = {
        "8 clients": served(server, name, eight),
        "1 client": served(server, name, one),
        package: bare(bench.python(ENVIRONMENT), SCRIPT, one, **job),
    }
    await runs["8 clients"](99)  # warm
    samples = await in_turns(runs, bench.repeats)
    pairs = [
        ("8 clients", package, BATCHED),
        ("8 clients", "1 client", BATCHED),
        ("1 client", package, BESIDE_BARE),
    ]
    return speeds("rwkv", name, samples, pairs)


async def _made(bench: EngineBench, name: str) -> Path:
    """The folder of random weights, made once. Raises RuntimeError where that fails."""
    target = bench.state / "made" / f"{name}-rwkv"
    if target.is_dir():
        return target
    partial = target.with_name(f"{target.name}.part")
    layers, width = SIZES[name]
    partial.mkdir(parents=True, exist_ok=True)
    (partial / "rwkv.tokenizer.json").write_text(json.dumps(tokenizer_json(SHAPE_79M)))
    words = [str(MAKER), str(partial / "rwkv.pth"), str(layers), str(width), str(SHAPE_79M.vocabulary)]
    process = await asyncio.create_subprocess_exec(str(bench.python(ENVIRONMENT)), *words)
    if await process.wait():
        raise RuntimeError(f"{name} could not be made; the output is above")
    return partial.rename(target)
