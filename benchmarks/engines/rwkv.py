"""RWKV-7 through Modelyard: 8 clients and one, beside the rwkv package without a server, which knows no batches."""

import asyncio
import json
from pathlib import Path

from benchmarks import servers
from benchmarks.bench import Run, in_turns
from benchmarks.client import run_load
from benchmarks.engines.bench import EngineBench, run_bare
from benchmarks.engines.random_folder import SHAPE_79M, tokenizer_json
from benchmarks.figures import Figure, Target, compare
from benchmarks.measure import Summary, summarise
from benchmarks.servers import Server
from benchmarks.workload import Load, distinct

ENVIRONMENT = "transformers"
SCRIPT = Path(__file__).with_name("bare_rwkv.py")
MAKER = Path(__file__).with_name("random_rwkv.py")
SIZES = {"random-90m": (10, 768), "random-2m": (3, 128)}
TOKENS = 48
PROMPT_WORDS = 32
BATCHED = Target(2.5)
BESIDE_BARE = Target(0.9)
CONFIG = {"backend": "rwkv", "scheduler": {"max_lanes": 16}}


async def measure(bench: EngineBench) -> list[Figure]:
    """Tokens/s of random models of 90 and of 2 million parameters, in float32."""
    folders = {name: await _made(bench, name) for name in SIZES}
    repository = bench.repository("rwkv", {name: (folder, CONFIG) for name, folder in folders.items()})
    figures: list[Figure] = []
    with servers.modelyard(repository, [], logs=bench.logs, state_dir=bench.state) as server:
        for name, folder in folders.items():
            servers.load(server, name)
            figures += await _measure_model(bench, server, name, folder)
            servers.unload(server, name)
    return figures


async def _measure_model(bench: EngineBench, server: Server, name: str, folder: Path) -> list[Figure]:
    def load(repeat: int, clients: int) -> Load:
        requests = distinct(
            8 * bench.scale,
            prompt_words=PROMPT_WORDS,
            max_tokens=TOKENS,
            seed=5000 + 10 * repeat + clients,  # the server keeps the prefixes that it has seen
            spread=0.0,
            vocabulary=SHAPE_79M.vocabulary,
        )
        return Load(clients=clients, requests=requests)

    def served(clients: int) -> Run:
        async def run(repeat: int) -> Summary:
            return summarise(await run_load(server.endpoint(name), load(repeat, clients)))

        return run

    async def bare(repeat: int) -> Summary:
        prompts = [request.prompt for request in load(repeat, 1).requests]
        job = {"folder": str(folder), "prompts": prompts, "max_tokens": TOKENS, "threads": bench.threads}
        return await run_bare(bench.python(ENVIRONMENT), SCRIPT, job)

    runs = {"8 clients": served(8), "1 client": served(1), "the package, one by one": bare}
    await runs["8 clients"](99)  # warm
    samples = await in_turns(runs, bench.repeats)
    pairs = [
        ("8 clients", "the package, one by one", BATCHED),
        ("8 clients", "1 client", BATCHED),
        ("1 client", "the package, one by one", BESIDE_BARE),
    ]
    return [
        compare(
            f"rwkv, {name}, {ours} over {other}",
            samples,
            pair=(ours, other),
            pick=lambda summary: summary.tokens_per_s,
            unit="tok/s",
            target=target,
        )
        for ours, other, target in pairs
    ]


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
