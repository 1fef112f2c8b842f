"""Which weights the plugin says it can serve."""

from typing import Any

import pytest
from msgspec import Struct

from backends.registry import Registry
from backends.vllm import SPEC


class Facts(Struct, frozen=True):
    format: str
    architecture: str | None = None
    quantisation: str | None = None


LLAMA = "LlamaForCausalLM"


@pytest.mark.parametrize(
    ("facts", "config", "score"),
    [
        (Facts("safetensors", LLAMA, "F16"), {}, 40),
        (Facts("pytorch", LLAMA, None), {}, 40),
        (Facts("safetensors", LLAMA, "awq"), {"backend": "vllm"}, 40),
        (Facts("safetensors", LLAMA, "exl2"), {"backend": "vllm"}, 0),
        (Facts("safetensors", LLAMA, "F16"), {"type": "OVModelForCausalLM"}, 0),
        (Facts("safetensors"), {}, 0),
        (Facts("gguf", "llama", "Q8_0"), {}, 0),
        (Facts("rwkv", "rwkv"), {}, 0),
        (Facts("openvino", LLAMA), {}, 0),
        (Facts("none"), {"backend": "vllm"}, 0),
    ],
)
def test_the_score_follows_from_format_and_configuration(
    facts: Facts, config: dict[str, Any], score: int
) -> None:
    assert SPEC.claims(facts, config) == score


def test_the_plugin_is_found_by_name_without_its_engine() -> None:
    assert Registry(()).get("vllm") is SPEC
