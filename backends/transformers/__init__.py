"""The transformers plugin: Hugging Face model folders on PyTorch, generating and embedding.

This file introduces it and needs no PyTorch to be installed; `engine.py` is imported inside a worker only.
"""

from collections.abc import Mapping
from typing import Any

from backends.contract import BackendSpec, Facts
from backends.transformers.options import OPTIONS

READS = ("safetensors", "pytorch")
QUANTISED_ELSEWHERE = ("gptq", "exl2", "exl3", "awq")


def claims(facts: Facts, config: Mapping[str, Any]) -> int:
    """Any Hugging Face folder, but not what other plugins are made for."""
    if facts.format not in READS or str(config.get("type") or "").startswith("OV"):
        return 0
    if (facts.quantisation or "").lower() in QUANTISED_ELSEWHERE:
        return 0
    return 50


SPEC = BackendSpec(
    name="transformers",
    engine="backends.transformers.engine:TransformersEngine",
    options=OPTIONS,
    claims=claims,
    overhead_bytes=450 * 2**20,
    probe="backends.transformers.probe:probe",
    summary="Hugging Face models on PyTorch, with continuous batching and bitsandbytes; CPUs and GPUs.",
)
