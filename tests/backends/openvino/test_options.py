"""What the keys of a model's config.yaml mean to OpenVINO."""

from typing import Any

import jsonschema
import pytest

from backends.contract import LoadError
from backends.openvino.options import OPTIONS, Options

COMMON = {"f16", "main_gpu", "gpu_layers", "trust_remote_code"}


def test_the_schema_and_the_options_are_the_same_keys() -> None:
    jsonschema.Draft202012Validator.check_schema(OPTIONS)
    assert set(OPTIONS["properties"]) == set(Options.__struct_fields__) - COMMON


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({}, {"INFERENCE_NUM_THREADS": 3}),
        ({"f16": True}, {"INFERENCE_NUM_THREADS": 3}),
        (
            {"f16": False},
            {"INFERENCE_NUM_THREADS": 3, "INFERENCE_PRECISION_HINT": "f32", "KV_CACHE_PRECISION": "f32"},
        ),
        (
            {"precision": "f32", "kv_cache_precision": "u8"},
            {"INFERENCE_NUM_THREADS": 3, "INFERENCE_PRECISION_HINT": "f32", "KV_CACHE_PRECISION": "u8"},
        ),
        ({"precision": "bf16"}, {"INFERENCE_NUM_THREADS": 3, "INFERENCE_PRECISION_HINT": "bf16"}),
        (
            {"ov_config": {"PERFORMANCE_HINT": "LATENCY", "INFERENCE_NUM_THREADS": 1}},
            {"INFERENCE_NUM_THREADS": 1, "PERFORMANCE_HINT": "LATENCY"},
        ),
    ],
)
def test_precisions_and_threads_become_properties(given: dict[str, Any], expected: dict[str, Any]) -> None:
    options = Options.read(given)
    assert {**options.cache_properties(), **options.properties("CPU", threads=3)} == expected


def test_threads_are_the_processors_affair() -> None:
    assert Options.read({}).properties("GPU.0", threads=3) == {}


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"type": "OVModelForSeq2SeqLM"}, "OVModelForSeq2SeqLM"),
        ({"quantization": "bnb_8bit"}, "bnb_8bit"),
        ({"enforce_eager": True}, "enforce_eager"),
    ],
)
def test_what_does_not_fit_is_named(given: dict[str, Any], words: str) -> None:
    with pytest.raises(LoadError, match=words):
        Options.read(given)
