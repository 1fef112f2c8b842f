"""The demo model as a GPTQ checkpoint made by rounding."""

import json
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file

from benchmarks.gptq_model import dequantise, quantise, write
from benchmarks.gpu_models import FOLDER


def test_a_weight_comes_back_within_half_a_step() -> None:
    weight = np.random.default_rng(1).normal(size=(16, 128)).astype(np.float32)
    parts = quantise(weight, group_size=64)
    assert {name: part.shape for name, part in parts.items()} == {
        "qweight": (16, 16),
        "qzeros": (2, 2),
        "scales": (2, 16),
        "g_idx": (128,),
    }
    steps = parts["scales"].astype(np.float32)[parts["g_idx"]].T
    assert np.all(np.abs(dequantise(parts) - weight) <= 0.51 * steps)


def test_words_are_packed_with_the_first_value_lowest() -> None:
    weight = np.zeros((8, 64), np.float32)
    weight[0, :8] = np.arange(-4, 4) / 4
    weight[:, 8] = 1.0
    parts = quantise(weight, group_size=64)
    assert int(parts["qweight"][0, 0]) & 0xF == 1  # -1 is 7 steps below the middle, which is 8
    assert int(parts["qzeros"].view(np.uint32)[0, 0]) == 0x77777777


def test_uneven_weights_are_refused() -> None:
    with pytest.raises(ValueError, match="16 x 100 has no whole groups of 64"):
        quantise(np.zeros((16, 100), np.float32), group_size=64)


def test_the_demo_model_becomes_a_checkpoint(tmp_path: Path) -> None:
    write(FOLDER, tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    assert config["quantization_config"]["quant_method"] == "gptq"
    assert (tmp_path / "tokenizer.json").exists()
    original, tensors = load_file(FOLDER / "model.safetensors"), load_file(tmp_path / "model.safetensors")
    name = "model.layers.0.mlp.down_proj"
    parts = {part: tensors[f"{name}.{part}"] for part in ("qweight", "qzeros", "scales", "g_idx")}
    wanted = original[f"{name}.weight"].astype(np.float32)
    assert np.abs(dequantise(parts) - wanted).mean() < 0.2 * np.abs(wanted).mean()
    assert np.array_equal(tensors["lm_head.weight"], original["lm_head.weight"])
