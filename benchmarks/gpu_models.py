"""What `gpu_check` serves: the demo model in every form that an engine on a GPU reads, each under its own name."""

import os
import subprocess
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import msgspec
import yaml

from benchmarks import gptq_model

ROOT = Path(__file__).parents[1]
FOLDER = ROOT / "examples" / "demo_model" / "hf"
GGUF = ROOT / "models" / "demo" / "1" / "model.gguf"
LANES = 8
COMMON = {"context_size": 1024, "scheduler": {"max_lanes": LANES, "kv_tokens": 8 * 1024}}


CONVERT = """
import runpy
from backends.exllamav2.machine import compiling
with compiling():
    import exllamav2
runpy.run_module("exllamav2.conversion.convert_exl2", run_name="__main__")
"""
"""In the engine's environment, with its extension compiled once for the plugin and the converter."""


class CannotMake(Exception):
    """Weights could not be made; the message says why."""


class Model(msgspec.Struct, frozen=True, kw_only=True):
    """One entry of the repository. `at_least` of the answers must be those of the reference; `weights` names what the
    version folder holds. With `refused`, loading it must fail with these words; a failure with those of `left_out` is
    none."""

    name: str
    label: str
    config: dict[str, Any]
    weights: str = "hf"
    at_least: int = 15
    refused: str = ""
    left_out: str = ""


class Check(msgspec.Struct, frozen=True, kw_only=True):
    """One engine: the environment that its workers run in (empty: the server's own), and the models to serve."""

    name: str
    models: tuple[Model, ...]
    environment: str = ""


def checks(gpus: int) -> tuple[Check, ...]:
    """All of them, for a machine with so many GPUs."""
    shared = {"count": 2, "gpus": list(range(min(gpus, 2)))}
    return (
        Check(
            name="llamacpp",
            models=(
                Model(
                    name="llamacpp",
                    label="llama.cpp, F16",
                    config={
                        "backend": "llamacpp",
                        "gpu_layers": -1,
                        "cache_type_k": "f16",
                        "instance_group": {"kind": "gpu"},
                    },
                    weights="gguf",
                    left_out="llama.cpp sees none here",
                ),
            ),
        ),
        Check(
            name="transformers",
            environment="transformers",
            models=(
                Model(
                    name="transformers",
                    label="transformers",
                    config={"backend": "transformers", "main_gpu": "cuda:0", "f16": True},
                ),
                Model(
                    name="two-instances",
                    label=f"transformers, 2 instances, GPUs {shared['gpus']}",
                    config={"backend": "transformers", "instance_group": shared},
                ),
                Model(
                    name="no-such-gpu",
                    label="instance_group.gpus beyond the last",
                    config={"backend": "transformers", "instance_group": {"gpus": [gpus]}},
                    refused=f"there is no GPU {gpus}",
                ),
                Model(
                    name="no-such-main-gpu",
                    label="main_gpu beyond the last",
                    config={"backend": "transformers", "main_gpu": f"cuda:{gpus}"},
                    refused=f"no GPU {gpus}",
                ),
            ),
        ),
        Check(
            name="vllm",
            environment="vllm",
            models=(
                Model(
                    name="vllm",
                    label="vLLM",
                    config={"backend": "vllm", "gpu_memory_utilization": 0.3, "enforce_eager": True},
                ),
            ),
        ),
        Check(
            name="exllamav2",
            environment="exllamav2",
            models=(
                Model(name="exllamav2", label="exllamav2, FP16", config={"backend": "exllamav2"}),
                Model(
                    name="exllamav2-q8",
                    label="exllamav2, FP16, cache Q8",
                    config={"backend": "exllamav2", "cache_type": "Q8"},
                    at_least=10,
                ),
                Model(
                    name="exllamav2-gptq",
                    label="exllamav2, GPTQ 4 bit",
                    config={"backend": "exllamav2"},
                    weights="gptq",
                    at_least=3,
                ),
                Model(
                    name="exllamav2-exl2",
                    label="exllamav2, EXL2 6 bit",
                    config={"backend": "exllamav2"},
                    weights="exl2",
                    at_least=3,
                ),
            ),
        ),
    )


def make_weights(kind: str, folder: Path, *, python: Path) -> Path:
    """The weights of a `kind`, made in `folder` where they do not lie in the tree. `python` has exllamav2, whose own
    converter writes EXL2. Raises CannotMake."""
    makers: Mapping[str, Callable[[], Path]] = {
        "hf": lambda: FOLDER,
        "gguf": lambda: GGUF,
        "gptq": lambda: _gptq(folder / "gptq"),
        "exl2": lambda: _exl2(folder / "exl2", python=python),
    }
    return makers[kind]()


def write_model(root: Path, model: Model, weights: Path, *, environment: str) -> None:
    """A model of the repository at `root`; its weights are linked."""
    version = root / model.name / "1"
    version.mkdir(parents=True)
    for file in weights.iterdir() if weights.is_dir() else [weights]:
        if file.is_file():
            (version / file.name).symlink_to(file.resolve())
    own = {"environment": environment} if environment else {}
    config = {**COMMON, **own, **model.config}
    (root / model.name / "config.yaml").write_text(yaml.safe_dump(config))


def _gptq(folder: Path) -> Path:
    if not (folder / "config.json").exists():
        gptq_model.write(FOLDER, folder)
    return folder


def _exl2(folder: Path, *, python: Path) -> Path:
    if (folder / "config.json").exists():
        return folder
    work = folder.with_name("exl2-work")
    work.mkdir(parents=True, exist_ok=True)
    folder.mkdir(parents=True, exist_ok=True)
    options = {"-i": FOLDER, "-o": work, "-cf": folder, "-b": 6.0, "-l": 512, "-ml": 512, "-r": 16, "-mr": 4}
    words = [str(word) for pair in options.items() for word in pair]
    done = subprocess.run(
        [python, "-c", CONVERT, "-nr", *words],
        capture_output=True,
        text=True,
        env={**os.environ, "EXLLAMA_NO_SDPA": "1"},  # for the same reason as in the plugin
        check=False,
    )
    if done.returncode or not (folder / "config.json").exists():
        last = (done.stderr or done.stdout).strip().splitlines()[-1:] or ["it says nothing"]
        raise CannotMake(f"exllamav2's converter failed: {last[0]}")
    return folder
