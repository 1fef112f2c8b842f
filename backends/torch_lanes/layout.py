"""How the rows of a plan lie in one forward: token after token, each with its position, its lane and its output.

packed   [ row A: 1 ][ row B: 1 ][ row C: 7 ........ ]     input_ids and position_ids, [1, 9]
lanes      3: 41..42   0: 12..13    5: 0..7                what of each lane the row computes
outputs        *           *         . . . . . . *         where logits are wanted
"""

from collections.abc import Sequence
from typing import Any

import msgspec
import torch

from backends.contract import PlanRow

Tensor = Any


class Placed(msgspec.Struct, frozen=True):
    """Where a row's logits are among all outputs: `first` to `first + prompt` for the log-probabilities of its
    prompt, and `sampled`, the one to draw from (-1: none). Those of the row's drafts follow."""

    row: PlanRow
    first: int
    prompt: int
    sampled: int


class Piece(msgspec.Struct, frozen=True):
    """Tokens `start` to `stop` of one sequence, packed from `at` on. `lane` None: nothing before, nothing kept."""

    lane: int | None
    start: int
    stop: int
    at: int

    @property
    def count(self) -> int:
        return self.stop - self.start


class Layout:
    """The pieces of one forward. The masks that its layers need are made once for all of them."""

    def __init__(self, pieces: Sequence[Piece], *, device: Any) -> None:
        self.pieces = tuple(pieces)
        self.singles = tuple(piece for piece in pieces if piece.count == 1)
        self.chunks = tuple(piece for piece in pieces if piece.count > 1)
        self.num_tokens = sum(piece.count for piece in pieces)
        self._device = device
        self._masks: dict[tuple[int, int, int], Tensor] = {}

    def mask(self, piece: Piece, first: int, window: int, dtype: Any) -> Tensor:
        """What each of the piece's tokens may see of the positions from `first` on, [token, position]: 0 or -inf to
        be added. `window`: so many positions back, itself included; 0 for all."""
        known = self._masks.get((piece.at, first, window))
        if known is None:
            own = torch.arange(piece.start, piece.stop, device=self._device)[:, None]
            seen = torch.arange(first, piece.stop, device=self._device)[None, :]
            hidden = seen > own
            if window:
                hidden |= seen <= own - window
            known = torch.zeros(hidden.shape, dtype=dtype, device=self._device)
            known.masked_fill_(hidden, -torch.inf)
            self._masks[piece.at, first, window] = known
        return known


def place(rows: Sequence[PlanRow]) -> tuple[list[Placed], list[int]]:
    """Where each row's logits will be, and which packed tokens give them."""
    placed: list[Placed] = []
    outputs: list[int] = []
    at = 0
    for row in rows:
        count = len(row.tokens)
        # The prompt's last token has log-probabilities to give only if it has a successor.
        prompt = 0 if row.prompt_logprobs is None else count - (row.next_token is None)
        first = len(outputs)
        outputs += range(at, at + prompt)
        if row.sample and prompt < count:
            outputs += range(at + count - 1 - row.drafts, at + count)
        placed.append(Placed(row, first, prompt, len(outputs) - 1 - row.drafts if row.sample else -1))
        at += count
    return placed, outputs


def pieces_of(rows: Sequence[PlanRow]) -> list[Piece]:
    """The rows one after the other."""
    pieces: list[Piece] = []
    at = 0
    for row in rows:
        count = len(row.tokens)
        pieces.append(Piece(row.lane, row.start, row.start + count, at))
        at += count
    return pieces
