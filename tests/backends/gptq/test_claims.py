"""What the GPTQ plugin says of itself, without PyTorch."""

from typing import Any

import jsonschema
import msgspec
import pytest

from backends.gptq import SPEC


class Facts(msgspec.Struct, frozen=True):
    format: str = "safetensors"
    architecture: str | None = "LlamaForCausalLM"
    quantisation: str | None = "gptq"


@pytest.mark.parametrize(
    ("facts", "config", "score"),
    [
        (Facts(), {}, 90),
        (Facts(), {"backend": "transformers"}, 90),
        (Facts(quantisation=None), {"backend": "autogptq"}, 90),
        (Facts(quantisation="F16"), {"backend": "gptq"}, 90),
        (Facts(quantisation=None), {}, 0),
        (Facts(quantisation="awq"), {"backend": "gptq"}, 0),
        (Facts(format="gguf"), {"backend": "gptq"}, 0),
    ],
)
def test_it_claims_what_is_quantised_by_gptq_or_said_to_be(
    facts: Facts, config: dict[str, Any], score: int
) -> None:
    assert SPEC.claims(facts, config) == score


@pytest.mark.parametrize(
    ("options", "is_good"),
    [
        ({"model_base_name": "orca-4bit-128g", "use_triton": True, "device": "cuda:0"}, True),
        ({"autogptq": {"model_base_name": "orca-4bit-128g", "triton": True}}, True),
        ({"autogptq": {"bits": 4}}, False),
        ({"model_base_name": ""}, False),
        ({"use_triton": "yes"}, False),
    ],
)
def test_options_are_those_of_autogptq(options: dict[str, Any], is_good: bool) -> None:
    assert jsonschema.Draft202012Validator(SPEC.options).is_valid(options) == is_good


def test_a_model_of_the_transformers_family_may_be_taken() -> None:
    assert "transformers" in SPEC.families
    assert "autogptq" in SPEC.aliases
