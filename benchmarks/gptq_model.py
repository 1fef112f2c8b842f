"""Writes a Llama folder in half precision again as a GPTQ checkpoint of 4 bits, by rounding to nearest.

Real checkpoints are calibrated and so lose less; this one takes a moment and needs nothing but numpy. It is for seeing
that an engine reads the format.
"""

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors.numpy import load_file, save_file

BITS = 4
LEVELS = 2**BITS
PER_WORD = 32 // BITS
GROUP_SIZE = 64
_SUFFIX = "_proj.weight"


def write(source: Path, target: Path, *, group_size: int = GROUP_SIZE) -> None:
    """`target` becomes a folder like `source` whose linear layers are quantised, in groups of `group_size` inputs."""
    target.mkdir(parents=True, exist_ok=True)
    tensors: dict[str, NDArray[Any]] = {}
    for name, tensor in load_file(source / "model.safetensors").items():
        if name.endswith(_SUFFIX):
            parts = quantise(tensor.astype(np.float32), group_size=group_size)
            tensors |= {name.removesuffix("weight") + part: value for part, value in parts.items()}
        else:
            tensors[name] = tensor
    save_file(tensors, target / "model.safetensors", metadata={"format": "pt"})
    for file in source.iterdir():
        if file.suffix in (".json", ".jinja") and file.name != "config.json":
            shutil.copy(file, target)
    config = json.loads((source / "config.json").read_text("utf-8"))
    config["quantization_config"] = {
        "quant_method": "gptq",
        "bits": BITS,
        "group_size": group_size,
        "desc_act": False,
        "sym": True,
        "checkpoint_format": "gptq",
    }
    (target / "config.json").write_text(json.dumps(config, indent=2), "utf-8")


def quantise(weight: NDArray[np.float32], *, group_size: int) -> dict[str, NDArray[Any]]:
    """The tensors that stand for a weight of shape (outputs, inputs): symmetric, so that every zero point is in the
    middle."""
    outputs, inputs = weight.shape
    if inputs % group_size or outputs % PER_WORD:
        raise ValueError(f"a weight of {outputs} x {inputs} has no whole groups of {group_size}")
    groups = weight.T.reshape(inputs // group_size, group_size, outputs)
    scales = np.maximum(np.abs(groups).max(axis=1) / (LEVELS / 2 - 1), 1e-8).astype(np.float16)
    steps = np.rint(groups / scales[:, None, :].astype(np.float32)) + LEVELS // 2
    values = steps.clip(0, LEVELS - 1).astype(np.uint32).reshape(inputs, outputs)
    # The format holds the zero points less one.
    zeros = np.full((inputs // group_size, outputs), LEVELS // 2 - 1, np.uint32)
    return {
        "qweight": _pack(values, axis=0),
        "qzeros": _pack(zeros, axis=1),
        "scales": np.ascontiguousarray(scales),  # safetensors writes memory as it lies
        "g_idx": (np.arange(inputs) // group_size).astype(np.int32),
    }


def dequantise(parts: dict[str, NDArray[Any]]) -> NDArray[np.float32]:
    """The weight, of shape (outputs, inputs), that an engine makes of such tensors."""
    values = _unpack(parts["qweight"], axis=0).astype(np.float32)
    zeros = _unpack(parts["qzeros"], axis=1).astype(np.float32) + 1
    group = parts["g_idx"]
    weight: NDArray[np.float32] = (values - zeros[group]) * parts["scales"].astype(np.float32)[group]
    return weight.T


def _pack(values: NDArray[np.uint32], *, axis: int) -> NDArray[np.int32]:
    """Eight neighbours along `axis` in a word, the first lowest."""
    moved = np.moveaxis(values, axis, -1)
    words = moved.reshape(*moved.shape[:-1], -1, PER_WORD)
    packed = (words << (np.arange(PER_WORD, dtype=np.uint32) * BITS)).sum(axis=-1, dtype=np.uint32)
    return np.ascontiguousarray(np.moveaxis(packed, -1, axis)).view(np.int32)


def _unpack(words: NDArray[np.int32], *, axis: int) -> NDArray[np.uint32]:
    moved = np.moveaxis(words.view(np.uint32), axis, -1)[..., None]
    values = (moved >> (np.arange(PER_WORD, dtype=np.uint32) * BITS)) & (LEVELS - 1)
    return np.moveaxis(values.reshape(*values.shape[:-2], -1), -1, axis)
