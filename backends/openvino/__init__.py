"""The OpenVINO plugin: generation on openvino-genai's own continuous batching, vectors on plain OpenVINO.

Weights of Hugging Face are converted once, in an environment of their own (`conversion.py`). This file introduces the
plugin and needs no OpenVINO to be installed; `engine.py` is imported inside a worker only.
"""

from collections.abc import Mapping
from typing import Any

from backends.contract import BackendSpec, Facts
from backends.openvino.options import OPTIONS

NAME = "openvino"
ALIASES = ("openvino-genai", "optimum-intel", "ov")
CONVERTIBLE = ("safetensors", "pytorch")


def claims(facts: Facts, config: Mapping[str, Any]) -> int:
    """OpenVINO's own format; Hugging Face weights only where the configuration asks for OpenVINO."""
    if facts.format == "openvino":
        return 100
    is_wanted = str(config.get("type", "")).startswith("OV") or config.get("backend") in (NAME, *ALIASES)
    return 100 if is_wanted and facts.format in CONVERTIBLE else 0


SPEC = BackendSpec(
    name=NAME,
    aliases=ALIASES,
    families=("transformers",),
    engine="backends.openvino.engine:OpenVinoEngine",
    overhead_bytes=300 * 2**20,
    probe="backends.openvino.probe:probe",
    claims=claims,
    shape="stream",
    options=OPTIONS,
    summary="OpenVINO models, and Hugging Face models converted to it, on Intel and other CPUs and on Intel GPUs",
)
