"""The llama.cpp plugin, Modelyard's embedded default: GGUF weights on llama-cpp-python's low-level API.

This file introduces it and needs no llama.cpp to be installed; `engine.py` is imported inside a worker only.
"""

from collections.abc import Mapping
from typing import Any

from backends.contract import BackendSpec, Facts
from backends.llamacpp.options import OPTIONS


def claims(facts: Facts, config: Mapping[str, Any]) -> int:
    """GGUF is this plugin's own format; it reads nothing else."""
    return 100 if facts.format == "gguf" else 0


SPEC = BackendSpec(
    name="llamacpp",
    aliases=("llama", "llama-cpp", "llama.cpp", "go-llama"),
    engine="backends.llamacpp.engine:LlamaCppEngine",
    probe="backends.llamacpp.probe:probe",
    options=OPTIONS,
    claims=claims,
    summary="GGUF models on llama.cpp, on CPUs and, where llama-cpp-python was built for one, GPUs.",
)
