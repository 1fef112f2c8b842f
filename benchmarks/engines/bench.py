"""What the engines' benchmarks share: where environments are, a repository of its own, children of other Pythons."""

import asyncio
import json
import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import msgspec
import yaml

from benchmarks.child import ChildError
from benchmarks.measure import Summary

ROOT = Path(__file__).parents[2]
DEMO_FOLDER = ROOT / "examples" / "demo_model" / "hf"


WAITING = {"OMP_WAIT_POLICY": "active", "GOMP_SPINCOUNT": "1000"}
"""How threads wait for one another in a worker of the server's, and so in a script beside it."""


class EngineBench(msgspec.Struct, frozen=True, kw_only=True):
    """`state` is where environments and what was made for them lie; `scale` requests a client in each run."""

    state: Path
    logs: Path
    threads: int
    repeats: int = 3
    scale: int = 3

    def python(self, environment: str) -> Path:
        """The interpreter of an environment. Raises FileNotFoundError with what to do."""
        found = self.state / "environments" / environment / "bin" / "python"
        if not found.exists():
            raise FileNotFoundError(f"there is no {found}; run `make envs`")
        return found

    def repository(self, name: str, models: Mapping[str, tuple[Path, Mapping[str, Any]]]) -> Path:
        """A fresh repository below the state folder: for each model a folder of weights and its configuration."""
        root = self.state / "benchmarks" / name
        shutil.rmtree(root, ignore_errors=True)
        for model, (weights, config) in models.items():
            (root / model).mkdir(parents=True)
            shutil.copytree(weights, root / model / "1")
            settings = {"threads": self.threads, **config}
            (root / model / "config.yaml").write_text(yaml.safe_dump(settings, sort_keys=False))
        return root


async def run_bare(python: Path, script: Path, job: Mapping[str, Any]) -> Summary:
    """What a script of another Python measured: `wall_s`, `prompt_tokens` and `completion_tokens`."""
    # Isolated: the script's own folder has modules named like the engines.
    process = await asyncio.create_subprocess_exec(
        *(str(python), "-I", str(script)),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        env={**os.environ, **WAITING, "OMP_NUM_THREADS": str(job["threads"])},
    )
    try:
        output, _ = await process.communicate(json.dumps(job).encode())
    except asyncio.CancelledError:
        process.kill()
        await process.wait()
        raise
    if process.returncode:
        raise ChildError(f"{script.name} ended with code {process.returncode}; its output is above")
    found = json.loads(output)
    return Summary(tokens_per_s=found["completion_tokens"] / found["wall_s"], **found)
