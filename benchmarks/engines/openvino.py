"""OpenVINO through Modelyard beside openvino-genai's own pipeline without a server, at one and at 8 clients."""

import asyncio
import json
from pathlib import Path

from benchmarks import servers
from benchmarks.bench import Run, in_turns
from benchmarks.client import run_load
from benchmarks.engines import random_folder
from benchmarks.engines.bench import DEMO_FOLDER, ROOT, EngineBench, run_bare
from benchmarks.figures import Figure, Target, compare
from benchmarks.measure import Summary, summarise
from benchmarks.servers import Server
from benchmarks.workload import Load, distinct

SCRIPT = Path(__file__).with_name("bare_openvino.py")
EXPORTER = ROOT / "backends" / "openvino" / "exporting.py"
TOKENS = 48
PROMPT_WORDS = 32
KV_TOKENS = 8192
CLIENTS = (8, 1)
# A step of the demo model takes half a millisecond: what is measured there is all that is around it.
BESIDE_BARE = {"demo": Target(0.3), "random-79m": Target(0.9)}
CONFIG = {"backend": "openvino", "scheduler": {"max_lanes": 16, "kv_tokens": KV_TOKENS}}


async def measure(bench: EngineBench) -> list[Figure]:
    """Tokens/s of the demo model and of a random one of 79 million parameters."""
    middle = bench.state / "made" / "random-79m"
    if not middle.is_dir():
        middle.parent.mkdir(parents=True, exist_ok=True)
        random_folder.write(middle, random_folder.SHAPE_79M)
    folders = {
        name: await _converted(bench, folder, bench.state / "made" / f"{name}-openvino")
        for name, folder in {"demo": DEMO_FOLDER, "random-79m": middle}.items()
    }
    repository = bench.repository("openvino", {name: (folder, CONFIG) for name, folder in folders.items()})
    figures: list[Figure] = []
    with servers.modelyard(repository, [], logs=bench.logs, state_dir=bench.state) as server:
        for name, folder in folders.items():
            servers.load(server, name)
            figures += await _measure_model(bench, server, name, folder)
            servers.unload(server, name)
    return figures


async def _measure_model(bench: EngineBench, server: Server, name: str, folder: Path) -> list[Figure]:
    python = bench.python("openvino")

    def load(repeat: int, clients: int) -> Load:
        requests = distinct(
            8 * bench.scale,
            prompt_words=PROMPT_WORDS,
            max_tokens=TOKENS,
            seed=5000 + 10 * repeat + clients,  # the server keeps the prefixes that it has seen
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
            job = {"folder": str(folder), "prompts": prompts, "max_tokens": TOKENS, "together": together}
            return await run_bare(python, SCRIPT, {**job, "threads": bench.threads, "kv_tokens": KV_TOKENS})

        return run

    runs = {f"{clients} clients": served(clients) for clients in CLIENTS}
    runs |= {f"pipeline, {clients}": bare(clients) for clients in CLIENTS}
    await runs["8 clients"](99)  # warm
    samples = await in_turns(runs, bench.repeats)
    return [
        compare(
            f"openvino, {name}, {clients} clients over the pipeline alone",
            samples,
            pair=(f"{clients} clients", f"pipeline, {clients}"),
            pick=lambda summary: summary.tokens_per_s,
            unit="tok/s",
            target=BESIDE_BARE[name],
        )
        for clients in CLIENTS
    ]


async def _converted(bench: EngineBench, folder: Path, target: Path) -> Path:
    """`folder` in OpenVINO's format, made once. Raises RuntimeError where the exporter fails."""
    if target.is_dir():
        return target
    partial = target.with_name(f"{target.name}.part")
    partial.mkdir(parents=True, exist_ok=True)
    job = {
        "source": str(folder),
        "target": str(partial),
        "type": "OVModelForCausalLM",
        "quantization": "none",
        "trust_remote_code": False,
    }
    python = bench.python("openvino-export")
    process = await asyncio.create_subprocess_exec(str(python), "-I", str(EXPORTER), json.dumps(job))
    if await process.wait():
        raise RuntimeError(f"{folder} could not be converted; the exporter's output is above")
    return partial.rename(target)
