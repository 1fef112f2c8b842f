"""The exllamav2 plugin: EXL2, GPTQ and FP16 weights on NVIDIA GPUs, with that engine's own continuous batching.

This file introduces it and needs no exllamav2 to be installed; `engine.py` is imported inside a worker only.
"""

from collections.abc import Mapping
from typing import Any

from backends.contract import BackendSpec, Facts
from backends.exllamav2.options import OPTIONS

ARCHITECTURES = frozenset(
    f"{name}ForCausalLM"
    for name in (
        *("Cohere", "Cohere2", "Dbrx", "GPTBigCode", "Gemma", "Gemma2", "Gemmoe", "Glm4", "Granite"),
        *("Index", "InternLM2", "Llama", "MiniCPM", "Mistral", "Mixtral", "Orion", "Phi3", "Qwen2"),
        *("Qwen3", "Qwen3Moe", "Starcoder2", "Yi"),
    )
) | {"GPT2LMHeadModel", "Gemma3ForConditionalGeneration", "Mistral3ForConditionalGeneration"}
"""Those whose layers exllamav2 0.3.2 has. Any other it would take for a Llama, with a warning on stdout."""

FLOATS = ("", "f16", "bf16", "f32")


def claims(facts: Facts, config: Mapping[str, Any]) -> int:
    """EXL2 is this plugin's own format. What others read too it serves where it is named."""
    if facts.format != "safetensors" or facts.architecture not in ARCHITECTURES:
        return 0
    quantisation = (facts.quantisation or "").lower()
    if quantisation == "exl2":
        return 100
    if str(config.get("type") or "").startswith("OV"):
        return 0
    return 20 if quantisation in ("gptq", *FLOATS) else 0


SPEC = BackendSpec(
    name="exllamav2",
    aliases=("exllama", "exllama2"),
    engine="backends.exllamav2.engine:ExLlamaV2Engine",
    shape="stream",
    options=OPTIONS,
    claims=claims,
    overhead_bytes=600 * 2**20,
    probe="backends.exllamav2.probe:probe",
    summary="EXL2, GPTQ and FP16 models on exllamav2, on NVIDIA GPUs.",
)
