"""A `llama_batch` that lives in numpy arrays and is filled without a loop over tokens."""

import ctypes
from collections.abc import Sequence
from typing import Any

import msgspec
import numpy as np
from llama_cpp import llama_cpp as ll
from numpy.typing import NDArray

from backends.contract import PlanRow

# (lane, first position, tokens)
Piece = tuple[int, int, Sequence[int]]


class Placed(msgspec.Struct, frozen=True):
    """Where a row's results are: `drawn`, the batch index of the token to draw after, the output rows `first` to
    `first + prompt` for prompt log-probabilities, and `sampled`, the output row to draw from. Those of the row's
    drafts follow both."""

    row: PlanRow
    drawn: int
    first: int
    prompt: int
    sampled: int


class Batch:
    """Room for `capacity` tokens, each in exactly one lane."""

    def __init__(self, capacity: int) -> None:
        self._tokens: NDArray[np.int32] = np.zeros(capacity, np.int32)
        self._positions: NDArray[np.int32] = np.zeros(capacity, np.int32)
        self._lanes: NDArray[np.int32] = np.zeros(capacity, np.int32)
        self._outputs: NDArray[np.int8] = np.zeros(capacity, np.int8)
        self._ones: NDArray[np.int32] = np.ones(capacity, np.int32)
        # llama.cpp wants a pointer per token: each points at the token's own entry of `_lanes`, for good.
        self._pointers: NDArray[np.uint64] = self._lanes.ctypes.data + 4 * np.arange(
            capacity, dtype=np.uint64
        )
        self.capacity = capacity
        self.native: Any = ll.llama_batch(
            n_tokens=0,
            token=_pointer(self._tokens, ctypes.c_int32),
            embd=None,
            pos=_pointer(self._positions, ctypes.c_int32),
            n_seq_id=_pointer(self._ones, ctypes.c_int32),
            seq_id=_pointer(self._pointers, ctypes.POINTER(ctypes.c_int32)),
            logits=_pointer(self._outputs, ctypes.c_int8),
        )

    def fill(self, rows: Sequence[PlanRow], *, padding: Piece | None = None) -> list[Placed]:
        """Write the rows one after the other, asking for logits only where they are needed, and for none of
        `padding`, which comes last."""
        placed: list[Placed] = []
        flags: list[int] = []
        first = 0
        for row in rows:
            count = len(row.tokens)
            # The prompt's last token has log-probabilities to give only if it has a successor.
            prompt = 0 if row.prompt_logprobs is None else count - (row.next_token is None)
            own = [1] * prompt + [0] * (count - prompt)
            if row.sample:
                own[-1 - row.drafts :] = [1] * (1 + row.drafts)
            flags += own
            outputs = sum(own)
            placed.append(
                Placed(
                    row=row,
                    drawn=len(flags) - 1 - row.drafts,
                    first=first,
                    prompt=prompt,
                    sampled=first + outputs - 1 - row.drafts,
                )
            )
            first += outputs
        pieces: list[Piece] = [(row.lane, row.start, row.tokens) for row in rows]
        if padding is not None:
            pieces.append(padding)
            flags += [0] * len(padding[2])
        self._write(pieces, flags)
        return placed

    def fill_all(self, pieces: Sequence[Piece]) -> None:
        """Write the pieces with an output at every token, for embeddings."""
        self._write(pieces, 1)

    def _write(self, pieces: Sequence[Piece], flags: Sequence[int] | int) -> None:
        # Many short pieces are the common case: growing lists costs less than four numpy slices for each.
        tokens: list[int] = []
        positions: list[int] = []
        lanes: list[int] = []
        for lane, start, own in pieces:
            tokens += own
            positions += range(start, start + len(own))
            lanes += [lane] * len(own)
        end = len(tokens)
        self._tokens[:end] = tokens
        self._positions[:end] = positions
        self._lanes[:end] = lanes
        self._outputs[:end] = flags
        self.native.n_tokens = end


class FloatRows:
    """Numpy views of a result matrix inside llama.cpp, made again only when the matrix moves or grows."""

    def __init__(self, columns: int) -> None:
        self._columns = columns
        self._address = 0
        self._view: NDArray[np.float32] = np.empty((0, columns), np.float32)

    def view(self, pointer: Any, rows: int) -> NDArray[np.float32]:
        """The first `rows` rows at `pointer`, shape (rows, columns), valid until the next decode."""
        address = ctypes.addressof(pointer.contents)
        if address != self._address or rows > len(self._view):
            self._view = np.ctypeslib.as_array(pointer, shape=(rows, self._columns))
            self._address = address
        return self._view[:rows]


def _pointer(array: NDArray[Any], kind: Any) -> Any:
    return array.ctypes.data_as(ctypes.POINTER(kind))
