"""The vLLM plugin: Hugging Face folders on vLLM's own scheduler, paged KV cache and kernels, on CPUs and GPUs.

This file introduces it and needs no vLLM to be installed; `engine.py` is imported inside a worker only.
"""

from collections.abc import Mapping
from typing import Any

from backends.contract import BackendSpec, Facts
from backends.vllm.options import OPTIONS

_NOT_READ = ("exl2", "exl3")


def claims(facts: Facts, config: Mapping[str, Any]) -> int:
    """Folders with a `config.json` that says what generates text; transformers is asked first where nobody named
    vLLM, for it runs anywhere."""
    if facts.format not in ("safetensors", "pytorch") or not facts.architecture:
        return 0
    if (facts.quantisation or "").lower() in _NOT_READ or str(config.get("type") or "").startswith("OV"):
        return 0
    return 40


SPEC = BackendSpec(
    name="vllm",
    engine="backends.vllm.engine:VllmEngine",
    shape="stream",
    options=OPTIONS,
    claims=claims,
    overhead_bytes=800 * 2**20,
    probe="backends.vllm.probe:probe",
    summary="Hugging Face models on vLLM, with its own continuous batching, on GPUs and CPUs.",
)
