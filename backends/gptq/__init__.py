"""The GPTQ plugin: checkpoints that AutoGPTQ and its successor GPT-QModel wrote, on GPT-QModel's kernels.

This file introduces it and needs no PyTorch to be installed; `engine.py` is imported inside a worker only.
"""

from collections.abc import Mapping
from typing import Any

from backends.contract import BackendSpec, Facts
from backends.gptq.options import OPTIONS

NAMES = ("gptq", "autogptq")


def claims(facts: Facts, config: Mapping[str, Any]) -> int:
    """GPTQ checkpoints. Old ones say so in a file of their own, which the user's word stands for."""
    if facts.format not in ("safetensors", "pytorch"):
        return 0
    quantisation = (facts.quantisation or "").lower()
    if quantisation == "gptq":
        return 90
    return 90 if config.get("backend") in NAMES and quantisation in ("", "f16", "bf16", "f32") else 0


SPEC = BackendSpec(
    name="gptq",
    aliases=("autogptq",),
    families=("transformers",),
    engine="backends.gptq.engine:GptqEngine",
    options=OPTIONS,
    claims=claims,
    overhead_bytes=450 * 2**20,
    probe="backends.gptq.probe:probe",
    summary="GPTQ checkpoints on GPT-QModel, with continuous batching; CPUs and CUDA GPUs.",
)
