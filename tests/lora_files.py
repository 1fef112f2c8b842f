"""LoRA adapters as small GGUF files, and the weights that they amount to."""

import shutil
from pathlib import Path

import gguf
import numpy as np
from numpy.typing import NDArray

RANK, ALPHA = 4, 8.0
TARGETS = ("attn_v", "ffn_down")

Matrices = dict[str, tuple[NDArray[np.float32], NDArray[np.float32]]]


def make_matrices(model: Path, *, seed: int, gain: float = 2.0) -> Matrices:
    """Random A and B, of shapes (rank, in) and (out, rank), for some matrices of every layer."""
    rng = np.random.default_rng(seed)
    found: Matrices = {}
    for tensor in gguf.GGUFReader(model).tensors:
        if tensor.name.split(".")[-2] in TARGETS:
            out, width = tensor.data.shape
            a, b = rng.standard_normal((RANK, width)), rng.standard_normal((out, RANK))
            found[tensor.name] = ((a * gain / np.sqrt(width)).astype(np.float32), b.astype(np.float32))
    return found


def write_adapter(path: Path, matrices: Matrices) -> Path:
    """A LoRA adapter for a Llama."""
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_type("adapter")
    writer.add_string("adapter.type", "lora")
    writer.add_float32("adapter.lora.alpha", ALPHA)
    for name, (a, b) in matrices.items():
        writer.add_tensor(f"{name}.lora_a", a)
        writer.add_tensor(f"{name}.lora_b", b)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def write_merged(model: Path, path: Path, matrices: Matrices, *, scale: float = 1.0) -> Path:
    """The F32 weights of `model` with an adapter added to them."""
    shutil.copyfile(model, path)
    for tensor in gguf.GGUFReader(path, "r+").tensors:
        if tensor.name in matrices:
            a, b = matrices[tensor.name]
            tensor.data[:] += scale * ALPHA / RANK * (b @ a)
    return path
