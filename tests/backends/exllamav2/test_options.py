"""What a model's config.yaml may say of exllamav2, and which models it claims."""

from typing import Any

import jsonschema
import msgspec
import pytest

from backends.contract import LoadError
from backends.exllamav2 import SPEC
from backends.exllamav2.options import OPTIONS, Options


class Facts(msgspec.Struct):
    format: str = "safetensors"
    architecture: str | None = "LlamaForCausalLM"
    quantisation: str | None = "F16"


@pytest.mark.parametrize(
    ("facts", "config", "score"),
    [
        (Facts(quantisation="exl2"), {}, 100),
        (Facts(quantisation="EXL2"), {"type": "AutoModelForCausalLM"}, 100),
        (Facts(), {}, 20),
        (Facts(quantisation="BF16"), {"backend": "exllama2"}, 20),
        (Facts(quantisation=None), {}, 20),
        (Facts(quantisation="gptq"), {}, 20),
        (Facts(), {"type": "OVModelForCausalLM"}, 0),
        (Facts(quantisation="awq"), {}, 0),
        (Facts(quantisation="bitsandbytes"), {"backend": "exllama"}, 0),
        (Facts(architecture="BertModel"), {}, 0),
        (Facts(architecture="FalconForCausalLM", quantisation="exl2"), {}, 0),
        (Facts(architecture=None), {}, 0),
        (Facts(format="gguf"), {"backend": "exllamav2"}, 0),
        (Facts(format="pytorch"), {}, 0),
    ],
)
def test_it_claims_what_it_reads_and_exl2_above_all(facts: Facts, config: dict[str, Any], score: int) -> None:
    assert SPEC.claims(facts, config) == score


@pytest.mark.parametrize(
    "given",
    [
        {"cache_type": "Q4"},
        {"cache_type": "fp16", "rope_alpha": 2.5, "rope_scale": 2},
        {"gpu_split": "20.5, 24"},
        {"gpu_split": [20, 24]},
        {"gpu_split": "auto", "autosplit_reserve": [96, 0]},
        {"autosplit_reserve": 512},
    ],
)
def test_its_keys_are_valid(given: dict[str, Any]) -> None:
    jsonschema.validate(given, OPTIONS)
    Options.read(given)


@pytest.mark.parametrize(
    "given",
    [
        {"cache_type": "Q5"},
        {"gpu_split": "20;24"},
        {"gpu_split": []},
        {"gpu_split": [-1]},
        {"autosplit_reserve": -1},
        {"rope_scale": 0},
    ],
)
def test_values_out_of_range_are_not(given: dict[str, Any]) -> None:
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(given, OPTIONS)


def test_options_are_read_however_they_are_written() -> None:
    read = Options.read({"cache_type": "q8", "gpu_split": "20.5, 24", "gpu_layers": -1})
    assert (read.cache_type, read.gpu_split, read.main_gpu) == ("Q8", (20.5, 24.0), None)
    assert Options.read({"gpu_split": "auto"}).gpu_split is None
    assert Options.read({"autosplit_reserve": 96}).autosplit_reserve == (96,)
    assert Options.read({"main_gpu": "cuda:1", "f16": True}).main_gpu == 1


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"f16": False}, "half precision only; remove `f16: false`"),
        ({"main_gpu": "cpu"}, "main_gpu is cpu, and exllamav2 computes on NVIDIA GPUs only"),
        ({"main_gpu": "AUTO:-CPU"}, "'AUTO:-CPU' names no device"),
        ({"main_gpu": 0, "gpu_split": [1]}, "remove one of the two"),
        ({"autosplit_reserve": 96, "gpu_split": [1]}, "autosplit_reserve is for the automatic split"),
    ],
)
def test_what_it_cannot_do_is_refused_by_name(given: dict[str, Any], words: str) -> None:
    with pytest.raises(LoadError, match=words):
        Options.read(given)


def test_every_layer_must_be_on_a_gpu() -> None:
    for fitting in ({}, {"gpu_layers": -1}, {"gpu_layers": 99}, {"gpu_layers": 4}):
        Options.read(fitting).check_layers(4)
    with pytest.raises(LoadError, match="gpu_layers is 3 and the model has 4 layers"):
        Options.read({"gpu_layers": 3}).check_layers(4)


def test_shares_are_for_gpus_that_are_there() -> None:
    Options.read({"gpu_split": [20, 24]}).check_gpus(3)
    Options.read({"autosplit_reserve": 96}).check_gpus(3)
    with pytest.raises(LoadError, match="gpu_split names 2 GPUs; 1 can be used here"):
        Options.read({"gpu_split": [20, 24]}).check_gpus(1)
    with pytest.raises(LoadError, match="autosplit_reserve names 2 GPUs; 3 can be used here"):
        Options.read({"autosplit_reserve": [96, 0]}).check_gpus(3)
