"""Writes tiny GGUF files and model folders for tests."""

import struct
from collections.abc import Sequence
from pathlib import Path
from typing import Any

LLAMA = {
    "general.architecture": "llama",
    "general.file_type": 7,
    "llama.block_count": 2,
    "llama.embedding_length": 64,
    "llama.context_length": 128,
    "llama.attention.head_count": 4,
    "llama.attention.head_count_kv": 2,
}
TENSORS = (("token_embd.weight", (64, 32), 8), ("output_norm.weight", (64,), 0))
BLOCKS = {0: (1, 4), 8: (32, 34)}


def write_gguf(
    path: Path,
    metadata: dict[str, Any] = LLAMA,
    tensors: Sequence[tuple[str, Sequence[int], int]] = TENSORS,
    *,
    version: int = 3,
) -> Path:
    """A whole GGUF file: F32 (0) and Q8_0 (8) tensors of zeros."""
    header = b"GGUF" + struct.pack("<IQQ", version, len(tensors), len(metadata))
    for key, value in metadata.items():
        header += _text(key) + _value(value)
    data = b""
    for name, shape, kind in tensors:
        elements = 1
        for length in shape:
            elements *= length
        block, size = BLOCKS[kind]
        header += _text(name) + struct.pack("<I", len(shape)) + struct.pack(f"<{len(shape)}Q", *shape)
        header += struct.pack("<IQ", kind, len(data))
        data += _padded(bytes(elements // block * size))
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(_padded(header) + data)
    return path


def _padded(data: bytes) -> bytes:
    return data + bytes(-len(data) % 32)


def _text(text: str) -> bytes:
    return struct.pack("<Q", len(text.encode())) + text.encode()


def _value(value: Any) -> bytes:
    match value:
        case bool():
            return struct.pack("<I?", 7, value)
        case int():
            return struct.pack("<II", 4, value)
        case float():
            return struct.pack("<If", 6, value)
        case str():
            return struct.pack("<I", 8) + _text(value)
        case [str(), *_]:
            return struct.pack("<IIQ", 9, 8, len(value)) + b"".join(map(_text, value))
        case list():
            return struct.pack("<IIQ", 9, 4, len(value)) + struct.pack(f"<{len(value)}I", *value)
        case _:
            raise TypeError(type(value))
