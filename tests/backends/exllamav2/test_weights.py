"""What of a model folder is found out before anything is loaded."""

import json
from pathlib import Path
from typing import Any

import pytest

from backends.contract import LoadError
from backends.exllamav2.weights import read_weights, rope_attributes

LLAMA = {"architectures": ["LlamaForCausalLM"], "num_hidden_layers": 1}


def folder(path: Path, config: object = LLAMA, *, files: tuple[str, ...] = ("model.safetensors",)) -> Path:
    (path / "config.json").write_text(config if isinstance(config, str) else json.dumps(config))
    for name in files:
        (path / name).write_bytes(b"x" * 10)
    return path


def test_a_folder_is_read(tmp_path: Path) -> None:
    found = read_weights(folder(tmp_path, files=("a.safetensors", "b.safetensors")))
    assert (found.architecture, found.quantisation, found.size_bytes) == ("LlamaForCausalLM", "", 20)


@pytest.mark.parametrize(
    ("quantisation", "name"),
    [({"quant_method": "exl2", "bits": 4.25}, "exl2"), ({"quant_method": "gptq", "bits": 4}, "gptq")],
)
def test_its_quantisations_are_known(tmp_path: Path, quantisation: dict[str, Any], name: str) -> None:
    assert read_weights(folder(tmp_path, {**LLAMA, "quantization_config": quantisation})).quantisation == name


@pytest.mark.parametrize(("bits", "words"), [(4, ""), (8, "GPTQ with 8 bits")])
def test_old_checkpoints_say_beside_the_config_how_they_were_made(
    tmp_path: Path, bits: int, words: str
) -> None:
    (tmp_path / "quantize_config.json").write_text(json.dumps({"bits": bits, "group_size": 128}))
    path = folder(tmp_path, files=("llama-4bit-128g.safetensors",))
    if words:
        with pytest.raises(LoadError, match=words):
            read_weights(path)
    else:
        assert read_weights(path).quantisation == "gptq"


@pytest.mark.parametrize(
    ("config", "files", "words"),
    [
        (LLAMA, ("pytorch_model.bin",), "holds no .safetensors file"),
        ({"architectures": ["FalconForCausalLM"]}, ("a.safetensors",), "does not know FalconForCausalLM"),
        ({}, ("a.safetensors",), "does not know None"),
        (
            {**LLAMA, "quantization_config": {"quant_method": "awq"}},
            ("a.safetensors",),
            "is quantised by awq",
        ),
        (
            {**LLAMA, "quantization_config": {"quant_method": "gptq", "bits": 8}},
            ("a.safetensors",),
            "GPTQ with 8 bits",
        ),
        ("{", ("a.safetensors",), "not readable as JSON"),
        ([], ("a.safetensors",), "does not hold a JSON object"),
    ],
)
def test_weights_that_do_not_fit_are_refused(
    tmp_path: Path, config: object, files: tuple[str, ...], words: str
) -> None:
    with pytest.raises(LoadError, match=words):
        read_weights(folder(tmp_path, config, files=files))


def test_a_file_or_a_folder_without_a_config_is_refused(tmp_path: Path) -> None:
    with pytest.raises(LoadError, match="is one file"):
        read_weights(folder(tmp_path) / "model.safetensors")
    (tmp_path / "config.json").unlink()
    with pytest.raises(LoadError, match="copy the whole model folder"):
        read_weights(tmp_path)


LLAMA3 = {"factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0, "rope_type": "llama3"}


@pytest.mark.parametrize(
    ("config", "attributes"),
    [
        ({}, {}),
        ({"rope_theta": 10000.0, "rope_scaling": None}, {}),
        (
            {"rope_parameters": {"rope_theta": 500000, "rope_type": "default"}},
            {"rotary_embedding_base": 500000.0},
        ),
        (
            {"text_config": {"rope_parameters": {"rope_theta": 1e4, "partial_rotary_factor": 0.5}}},
            {"rotary_embedding_base": 1e4, "partial_rotary_factor": 0.5},
        ),
        (
            {"rope_parameters": {"rope_theta": 1e6, "rope_type": "linear", "factor": 2}},
            {"rotary_embedding_base": 1e6, "scale_pos_emb": 2.0},
        ),
        (
            {"rope_scaling": {**LLAMA3, "original_max_position_embeddings": 8192}},
            {
                "alt_rope_method": "llama3",
                "l3_rope_factor": 8.0,
                "l3_rope_low_freq_factor": 1.0,
                "l3_rope_high_freq_factor": 4.0,
                "l3_rope_original_max_position_embeddings": 8192,
            },
        ),
        (
            {"rope_scaling": {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 32768}},
            {
                "alt_rope_method": "yarn",
                "yarn_rope_factor": 4.0,
                "yarn_rope_original_max_position_embeddings": 32768,
            },
        ),
        (
            {
                "rope_scaling": {"type": "longrope", "long_factor": [1.0], "short_factor": [2.0]},
                "original_max_position_embeddings": 4096,
            },
            {
                "alt_rope_method": "su",
                "scale_long_factor": [1.0],
                "scale_short_factor": [2.0],
                "original_max_seq_len": 4096,
            },
        ),
    ],
)
def test_ropes_by_their_new_names_are_not_passed_over(
    config: dict[str, Any], attributes: dict[str, Any]
) -> None:
    assert rope_attributes(config) == attributes


@pytest.mark.parametrize(
    ("rope", "words"),
    [
        ({"rope_type": "dynamic", "factor": 2.0}, "of type 'dynamic'"),
        ({"rope_type": "llama3"}, "of type llama3 lacks 'factor'"),
        (
            {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 9, "beta_fast": 16},
            "beta_fast of its own",
        ),
        ({"full_attention": {"rope_theta": 1e6}, "sliding_attention": {}}, "differs from layer to layer"),
    ],
)
def test_a_rope_that_it_cannot_compute_is_refused(rope: dict[str, Any], words: str) -> None:
    with pytest.raises(LoadError, match=words):
        rope_attributes({"rope_parameters": rope})
