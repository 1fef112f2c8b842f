"""The quick kind of lanes: all rows of a plan, decodes and pieces of prompts, are one forward of all their tokens.

Linear layers see one long text; `LaneAttention` keeps the rows apart. For models that compute attention through
transformers' interface and keep nothing else; `check.py` finds out whether one does.
"""

import itertools
from collections.abc import Sequence
from typing import Any

import torch
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

from backends.contract import EngineError, PlanRow
from backends.torch_lanes.attention import LaneAttention
from backends.torch_lanes.lanes import Lanes
from backends.torch_lanes.layout import Layout, Piece, pieces_of
from backends.torch_lanes.storage import BlockStorage, MappedStorage, Storage

Tensor = Any


class PackedLanes(Lanes):
    """Owns the lanes' storage, and the model's attention until `close`."""

    prefix = "tokens"

    def __init__(self, model: Any, *, count: int, lane_tokens: int, kv_tokens: int, device: Any) -> None:
        super().__init__(count=count, kv_tokens=kv_tokens)
        self._model = model
        self._device = device
        self._storage = _storage(count=count, lane_tokens=lane_tokens, kv_tokens=kv_tokens, device=device)
        self.attention = LaneAttention(self._storage)
        self._before = model.config._attn_implementation
        name = next(
            name
            for number in itertools.count()
            if (name := f"modelyard-lanes-{number}") not in ALL_ATTENTION_FUNCTIONS
        )
        self._name = name
        ALL_ATTENTION_FUNCTIONS[name] = self.attention
        model.set_attn_implementation(name)

    @property
    def token_bytes(self) -> int:
        """What a token takes; known once something was computed."""
        return self._storage.token_bytes

    def close(self) -> None:
        """Give the model its own attention back."""
        self._model.set_attn_implementation(self._before)
        del ALL_ATTENTION_FUNCTIONS[self._name]

    def hidden(self, texts: Sequence[Sequence[int]]) -> list[Tensor]:
        """The last layer's vectors of whole texts, [token, width] each; no lane is touched."""
        pieces = []
        at = 0
        for text in texts:
            pieces.append(Piece(None, 0, len(text), at))
            at += len(text)
        self.attention.begin(Layout(pieces, device=self._device), kept=False)
        tokens = list(itertools.chain.from_iterable(texts))
        positions = list(itertools.chain.from_iterable(range(len(text)) for text in texts))
        answer = self._model.base_model(
            input_ids=self._tensor(tokens), position_ids=self._tensor(positions), use_cache=False
        )
        hidden = answer.last_hidden_state[0]
        return [hidden[piece.at : piece.at + piece.count] for piece in pieces]

    def save(self, lane: int, start: int, stop: int) -> memoryview | None:
        return self._storage.save(lane, start, stop) if 0 <= start < stop <= self.held(lane) else None

    def restore(self, lane: int, start: int, state: memoryview) -> bool:
        if self.held(lane) != start:
            raise EngineError(f"lane {lane} holds {self._held[lane]} tokens; this state goes on from {start}")
        state = memoryview(state)
        tokens = self._storage.saved_tokens(state)
        if tokens > self.free_tokens:
            return False
        self._held[lane] = start + tokens
        self._storage.reserve(lane, start + tokens)
        self._storage.restore(lane, start, state)
        return True

    def _compute(self, rows: Sequence[PlanRow], outputs: Sequence[int]) -> Tensor:
        tokens: list[int] = []
        positions: list[int] = []
        for row in rows:
            tokens += row.tokens
            positions += range(row.start, row.start + len(row.tokens))
            self._storage.reserve(row.lane, row.start + len(row.tokens))
        self.attention.begin(Layout(pieces_of(rows), device=self._device), kept=True)
        # Where nothing is wanted one output is the least that a model gives.
        wanted = torch.tensor(list(outputs) or [0], device=self._device)
        answer = self._model(
            input_ids=self._tensor(tokens),
            position_ids=self._tensor(positions),
            use_cache=False,
            logits_to_keep=wanted,
        )
        return answer.logits[0]

    def _cut(self, lane: int, keep: int) -> None:
        self._storage.release(lane, keep)

    def _copy(self, source: int, target: int, keep: int) -> None:
        self._storage.reserve(target, keep)
        self._storage.copy(source, target, keep)

    def _tensor(self, numbers: Sequence[int]) -> Tensor:
        return torch.tensor([numbers], device=self._device)


def _storage(*, count: int, lane_tokens: int, kv_tokens: int, device: Any) -> Storage:
    if device.type == "cpu":
        return MappedStorage(lanes=count, lane_tokens=lane_tokens, kv_tokens=kv_tokens)
    return BlockStorage(lanes=count, lane_tokens=lane_tokens, kv_tokens=kv_tokens, device=device)
