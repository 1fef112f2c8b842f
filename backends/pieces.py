"""From a tokenizer's pieces to the bytes they stand for, one piece at a time.

A streamed answer needs the bytes of each token as it comes; the `tokenizers` library decodes whole texts only. What
its decoders do to one piece is told from their settings.
"""

import json
from collections.abc import Callable, Iterator
from typing import Any

from tokenizers import Tokenizer

PieceReader = Callable[[str], bytes]


def piece_reader(tokenizer: Tokenizer) -> PieceReader:
    """A function from a piece of `tokenizer`'s vocabulary to its bytes."""
    steps = list(_decoders(tokenizer))
    kinds = {step["type"] for step in steps}
    if "ByteLevel" in kinds:
        return _byte_level
    if "WordPiece" in kinds:
        return _word_piece
    changes = [change for step in steps if (change := _replacement(step)) is not None]
    has_bytes = "ByteFallback" in kinds

    def read(piece: str) -> bytes:
        if has_bytes and len(piece) == 6 and piece.startswith("<0x") and piece.endswith(">"):
            return bytes.fromhex(piece[3:5])
        for old, new in changes:
            piece = piece.replace(old, new)
        return piece.encode()

    return read


def byte_letters() -> dict[str, int]:
    """The letter that stands for each byte in a byte-level vocabulary: printable Latin-1 for itself, and every
    other byte, in order, for a letter from U+0100 on."""
    printable = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = (byte for byte in range(256) if byte not in printable)
    return {chr(byte): byte for byte in printable} | {chr(256 + at): byte for at, byte in enumerate(others)}


_LETTERS = byte_letters()


def _byte_level(piece: str) -> bytes:
    try:
        return bytes(_LETTERS[letter] for letter in piece)
    except KeyError:  # a piece that was added as it is
        return piece.encode()


def _word_piece(piece: str) -> bytes:
    return piece[2:].encode() if piece.startswith("##") else b" " + piece.encode()


def _decoders(tokenizer: Tokenizer) -> Iterator[dict[str, Any]]:
    """The settings of the tokenizer's decoders, those of a sequence one by one."""
    if tokenizer.decoder is None:
        return
    state: dict[str, Any] = json.loads(tokenizer.decoder.__getstate__())
    yield from state["decoders"] if state["type"] == "Sequence" else (state,)


def _replacement(step: dict[str, Any]) -> tuple[str, str] | None:
    match step:
        case {"type": "Replace", "pattern": {"String": old}, "content": new}:
            return old, new
        case {"type": "Metaspace", "replacement": mark}:
            return mark, " "
        case {"type": "BPEDecoder", "suffix": suffix}:
            return suffix, " "
    return None
