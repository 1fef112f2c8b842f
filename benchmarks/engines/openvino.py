"""OpenVINO through Modelyard beside openvino-genai's own pipeline without a server, at one and at 8 clients."""

import asyncio
import json
from functools import partial
from pathlib import Path

from benchmarks.bench import Run, in_turns
from benchmarks.engines.bench import (
    DEMO_FOLDER,
    ROOT,
    EngineBench,
    Work,
    bare,
    measure_in_turn,
    served,
    speeds,
)
from benchmarks.figures import Figure, Target
from benchmarks.servers import Server

SCRIPT = Path(__file__).with_name("bare_openvino.py")
EXPORTER = ROOT / "backends" / "openvino" / "exporting.py"
WORK = Work(tokens=48, prompt_words=32)
KV_TOKENS = 8192
CLIENTS = (8, 1)
# A step of the demo model takes half a millisecond: what is measured there is all that is around it.
BESIDE_BARE = {"demo": Target(0.3), "random-79m": Target(0.9)}
CONFIG = {"backend": "openvino", "scheduler": {"max_lanes": 16, "kv_tokens": KV_TOKENS}}


async def measure(bench: EngineBench) -> list[Figure]:
    """Tokens/s of the demo model and of a random one of 79 million parameters."""
    folders = {
        name: await _converted(bench, folder, bench.state / "made" / f"{name}-openvino")
        for name, folder in {"demo": DEMO_FOLDER, "random-79m": bench.random_79m()}.items()
    }
    return await measure_in_turn(bench, "openvino", folders, CONFIG, measure=partial(_measure_model, bench))


async def _measure_model(bench: EngineBench, server: Server, name: str, folder: Path) -> list[Figure]:
    python = bench.python("openvino")
    runs: dict[str, Run] = {}
    for clients in CLIENTS:
        load = partial(WORK.load, clients=clients, requests=8 * bench.scale)
        job = {"folder": str(folder), "threads": bench.threads, "kv_tokens": KV_TOKENS}
        runs[f"{clients} clients"] = served(server, name, load)
        runs[f"the pipeline alone, {clients}"] = bare(python, SCRIPT, load, together=clients, **job)
    await runs["8 clients"](99)  # warm
    samples = await in_turns(runs, bench.repeats)
    pairs = [
        (f"{clients} clients", f"the pipeline alone, {clients}", BESIDE_BARE[name]) for clients in CLIENTS
    ]
    return speeds("openvino", name, samples, pairs)


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
