"""Reads the header of a GGUF file: its metadata and what its tensors promise. Never a tensor.

Every length is checked against the file's size before it is believed, so that garbage costs no memory. Long
arrays (the vocabulary) are stepped over and only counted.
"""

import math
import os
import struct
from collections.abc import Mapping
from pathlib import Path
from typing import Any, BinaryIO

from msgspec import Struct

# Sizes by ggml tensor type: elements in a block, bytes of a block.
TENSOR_TYPES: Mapping[int, tuple[str, int, int]] = {
    0: ("F32", 1, 4), 1: ("F16", 1, 2), 2: ("Q4_0", 32, 18), 3: ("Q4_1", 32, 20), 6: ("Q5_0", 32, 22),
    7: ("Q5_1", 32, 24), 8: ("Q8_0", 32, 34), 9: ("Q8_1", 32, 36), 10: ("Q2_K", 256, 84),
    11: ("Q3_K", 256, 110), 12: ("Q4_K", 256, 144), 13: ("Q5_K", 256, 176), 14: ("Q6_K", 256, 210),
    15: ("Q8_K", 256, 292), 16: ("IQ2_XXS", 256, 66), 17: ("IQ2_XS", 256, 74), 18: ("IQ3_XXS", 256, 98),
    19: ("IQ1_S", 256, 50), 20: ("IQ4_NL", 32, 18), 21: ("IQ3_S", 256, 110), 22: ("IQ2_S", 256, 82),
    23: ("IQ4_XS", 256, 136), 24: ("I8", 1, 1), 25: ("I16", 1, 2), 26: ("I32", 1, 4), 27: ("I64", 1, 8),
    28: ("F64", 1, 8), 29: ("IQ1_M", 256, 56), 30: ("BF16", 1, 2), 34: ("TQ1_0", 256, 54),
    35: ("TQ2_0", 256, 66), 39: ("MXFP4", 32, 17), 40: ("NVFP4", 64, 36),
}  # fmt: skip

FILE_TYPES: Mapping[int, str] = {
    0: "F32", 1: "F16", 2: "Q4_0", 3: "Q4_1", 7: "Q8_0", 8: "Q5_0", 9: "Q5_1", 10: "Q2_K", 11: "Q3_K_S",
    12: "Q3_K_M", 13: "Q3_K_L", 14: "Q4_K_S", 15: "Q4_K_M", 16: "Q5_K_S", 17: "Q5_K_M", 18: "Q6_K",
    19: "IQ2_XXS", 20: "IQ2_XS", 21: "Q2_K_S", 22: "IQ3_XS", 23: "IQ3_XXS", 24: "IQ1_S", 25: "IQ4_NL",
    26: "IQ3_S", 27: "IQ3_M", 28: "IQ2_S", 29: "IQ2_M", 30: "IQ4_XS", 31: "IQ1_M", 32: "BF16", 36: "TQ1_0",
    37: "TQ2_0", 38: "MXFP4_MOE",
}  # fmt: skip

# Metadata value types: struct format; 8 is a string, 9 an array.
_VALUES = {0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "?", 10: "Q", 11: "q", 12: "d"}
_STRING, _ARRAY = 8, 9
_KEPT_ITEMS = 1024  # head counts per layer and the like; longer arrays are vocabularies
_MAX_ITEMS = 1 << 24
_MAX_TEXT = 1 << 24


class BadGguf(Exception):
    """What is wrong with a GGUF file, as the end of a sentence."""


class GgufHeader(Struct, frozen=True):
    """`metadata` has scalars, texts and short lists, of other lists the length; `types` counts elements."""

    metadata: dict[str, Any]
    parameters: int
    types: dict[str, int]
    promised_bytes: int  # the size the file must have at least
    file_bytes: int


def read_header(path: Path) -> GgufHeader:
    """The header of one file. BadGguf: truncated, damaged, or of another version. OSError: unreadable."""
    with path.open("rb", buffering=1 << 18) as file:
        reader = _Reader(file)
        if reader.take(4) != b"GGUF":
            raise BadGguf("it does not begin as a GGUF file does")
        version = reader.number("I")
        if version not in (2, 3):
            swapped = int.from_bytes(version.to_bytes(4, "little"), "big")
            kind = "big-endian GGUF" if swapped in (2, 3) else f"GGUF version {version}"
            raise BadGguf(f"it is {kind}; versions 2 and 3, little-endian, can be read")
        tensors, pairs = reader.count(24), reader.count(13)
        metadata = {}
        for _ in range(pairs):
            key = reader.text()
            metadata[key] = reader.value(reader.number("I"))
        return _with_tensors(reader, metadata, tensors)


def _with_tensors(reader: "_Reader", metadata: dict[str, Any], tensors: int) -> GgufHeader:
    types: dict[str, int] = {}
    end = 0
    for _ in range(tensors):
        reader.text()
        dimensions = reader.number("I")
        if dimensions > 8:
            raise BadGguf(f"it is damaged: a tensor of {dimensions} dimensions")
        elements = math.prod(reader.number("Q") for _ in range(dimensions))
        number, offset = reader.number("I"), reader.number("Q")
        name, block, size = TENSOR_TYPES.get(number, (f"type {number}", 1, 0))
        types[name] = types.get(name, 0) + elements
        end = max(end, offset + -(-elements // block) * size)
    alignment = metadata.get("general.alignment", 32)
    if type(alignment) is not int or alignment < 1:
        raise BadGguf(f"it is damaged: an alignment of {alignment}")
    start = -(-reader.position // alignment) * alignment
    promised = start + end if tensors else reader.position
    return GgufHeader(metadata, sum(types.values()), types, promised, reader.size)


class _Reader:
    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self.position = 0
        self.size = os.fstat(file.fileno()).st_size

    def take(self, length: int) -> bytes:
        data = self._file.read(length) if length <= self.size - self.position else b""
        if len(data) < length:
            raise self._too_short()
        self.position += length
        return data

    def skip(self, length: int) -> None:
        if length > self.size - self.position:
            raise self._too_short()
        self._file.seek(length, os.SEEK_CUR)
        self.position += length

    def _too_short(self) -> BadGguf:
        return BadGguf(f"it is truncated: it ends after {self.size} bytes, inside its header")

    def number(self, code: str) -> Any:
        return struct.unpack("<" + code, self.take(struct.calcsize("<" + code)))[0]

    def count(self, least_bytes: int) -> int:
        """A number of things that take at least so many bytes each: no more of them than fit the file."""
        count: int = self.number("Q")
        if count * least_bytes > self.size - self.position:
            raise BadGguf(f"it is truncated or damaged: {count} entries cannot fit its {self.size} bytes")
        if count > _MAX_ITEMS:
            raise BadGguf(f"it is damaged: a list of {count} entries in its header")
        return count

    def text(self) -> str:
        length = self.number("Q")
        if length > _MAX_TEXT:
            raise BadGguf(f"it is truncated or damaged: a text of {length} bytes in its header")
        return self.take(length).decode("utf-8", "replace")

    def value(self, kind: int) -> Any:
        if kind == _STRING:
            return self.text()
        if kind == _ARRAY:
            return self._array()
        if kind not in _VALUES:
            raise BadGguf(f"it is damaged: a metadata value of type {kind}")
        return self.number(_VALUES[kind])

    def _array(self) -> list[Any] | int:
        kind = self.number("I")
        if kind == _STRING:
            count = self.count(8)
            for _ in range(count):
                self.skip(self.number("Q"))
            return count
        if kind not in _VALUES:
            raise BadGguf(f"it is damaged: an array of type {kind}")
        width = struct.calcsize("<" + _VALUES[kind])
        count = self.count(width)
        if count > _KEPT_ITEMS:
            self.skip(count * width)
            return count
        return list(struct.unpack(f"<{count}{_VALUES[kind]}", self.take(count * width)))
