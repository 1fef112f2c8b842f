"""What the transformers plugin says of itself, without PyTorch."""

import subprocess
import sys
from pathlib import Path
from typing import Any

import jsonschema
import msgspec
import pytest

from backends.transformers import SPEC


class Facts(msgspec.Struct, frozen=True):
    format: str = "safetensors"
    architecture: str | None = "LlamaForCausalLM"
    quantisation: str | None = "F16"


@pytest.mark.parametrize(
    ("facts", "config", "score"),
    [
        (Facts(), {}, 50),
        (Facts(format="pytorch"), {"backend": "transformers"}, 50),
        (Facts(architecture="BertModel", quantisation=None), {"type": "AutoModel"}, 50),
        (Facts(quantisation="bitsandbytes"), {}, 50),
        (Facts(format="gguf"), {}, 0),
        (Facts(format="rwkv"), {}, 0),
        (Facts(format="openvino"), {}, 0),
        (Facts(format="none"), {"backend": "transformers"}, 0),
        (Facts(), {"type": "OVModelForCausalLM"}, 0),
        (Facts(quantisation="gptq"), {"backend": "transformers"}, 0),
        (Facts(quantisation="exl2"), {}, 0),
    ],
)
def test_it_claims_hugging_face_folders_that_no_other_plugin_is_made_for(
    facts: Facts, config: dict[str, Any], score: int
) -> None:
    assert SPEC.claims(facts, config) == score


@pytest.mark.parametrize(
    ("options", "problem"),
    [
        ({"type": "AutoModelForCausalLM", "quantization": "bnb_4bit"}, ""),
        ({"type": "AutoModel", "pooling": "cls", "cuda": True}, ""),
        ({"type": "SentenceTransformer"}, ""),
        ({"quantization": "bnb_3bit"}, "bnb_3bit"),
        ({"type": "AutoModelForSeq2SeqLM"}, "AutoModelForSeq2SeqLM"),
        ({"pooling": "max"}, "max"),
    ],
)
def test_options_are_checked_by_value(options: dict[str, Any], problem: str) -> None:
    errors = list(jsonschema.Draft202012Validator(SPEC.options).iter_errors(options))
    assert bool(errors) == bool(problem)
    assert all(problem in error.message for error in errors)


def test_its_introduction_imports_no_engine() -> None:
    code = "import sys, backends.transformers, backends.gptq; print('torch' in sys.modules)"
    root = Path(__file__).parents[3]
    said = subprocess.run([sys.executable, "-c", code], cwd=root, capture_output=True, text=True, check=True)
    assert said.stdout.strip() == "False"
