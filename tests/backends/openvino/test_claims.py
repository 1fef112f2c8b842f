"""Which models the openvino plugin takes on."""

from typing import Any, NamedTuple

import pytest

from backends.openvino import SPEC


class Facts(NamedTuple):
    format: str
    architecture: str | None = "LlamaForCausalLM"
    quantisation: str | None = None


@pytest.mark.parametrize(
    ("format_name", "config", "score"),
    [
        ("openvino", {}, 100),
        ("openvino", {"backend": "transformers"}, 100),
        ("safetensors", {}, 0),
        ("safetensors", {"backend": "transformers"}, 0),
        ("safetensors", {"backend": "transformers", "type": "AutoModelForCausalLM"}, 0),
        ("safetensors", {"backend": "transformers", "type": "OVModelForCausalLM"}, 100),
        ("pytorch", {"type": "OVModelForFeatureExtraction"}, 100),
        ("safetensors", {"backend": "openvino"}, 100),
        ("safetensors", {"backend": "optimum-intel"}, 100),
        ("gguf", {"backend": "openvino"}, 0),
        ("gguf", {"type": "OVModelForCausalLM"}, 0),
        ("none", {"backend": "openvino"}, 0),
    ],
)
def test_its_own_format_and_what_asks_for_openvino(
    format_name: str, config: dict[str, Any], score: int
) -> None:
    assert SPEC.claims(Facts(format_name), config) == score
