"""The other kind of lanes: each holds a cache of the model's own make, and rows are computed one after the other.

For models with recurrent states, or attention and caches of their own. Nothing is gained by a batch, and what a lane
holds can only be taken whole.
"""

import copy
import inspect
import pickle
from collections.abc import Sequence
from typing import Any

import torch

from backends.contract import EngineError, PlanRow
from backends.torch_lanes.lanes import Lanes

Tensor = Any

CACHE_NAMES = ("past_key_values", "cache_params", "state")


class SingleLanes(Lanes):
    """One cache a lane, made by the model in its first forward."""

    prefix = "tip"

    def __init__(self, model: Any, *, count: int, kv_tokens: int, device: Any) -> None:
        super().__init__(count=count, kv_tokens=kv_tokens)
        self._model = model
        self._device = device
        self._caches: list[Any] = [None] * count
        accepted = inspect.signature(model.forward).parameters
        self._cache_name = next((name for name in CACHE_NAMES if name in accepted), CACHE_NAMES[0])
        # A recurrent state goes on by one token at a time only; a whole text is computed at once.
        self._is_recurrent = bool(getattr(model, "_is_stateful", False))

    def close(self) -> None:
        self._caches = [None] * len(self._caches)

    def save(self, lane: int, start: int, stop: int) -> memoryview | None:
        if start != 0 or stop != self.held(lane) or stop == 0:
            return None
        return memoryview(pickle.dumps((stop, self._caches[lane]), pickle.HIGHEST_PROTOCOL))

    def restore(self, lane: int, start: int, state: memoryview) -> bool:
        if start or self.held(lane):
            raise EngineError(f"lane {lane} holds {self._held[lane]} tokens; a state needs an empty one")
        held, cache = pickle.loads(state)  # what `save` made in this very process
        if held > self.free_tokens:
            return False
        self._held[lane], self._caches[lane] = held, cache
        return True

    def _compute(self, rows: Sequence[PlanRow], outputs: Sequence[int]) -> Tensor:
        wanted = set(outputs)
        found: list[Tensor] = []
        at = 0
        for row in rows:
            own = [place - at for place in range(at, at + len(row.tokens)) if place in wanted]
            logits = self._logits(row)
            if own:
                found.append(logits[own])
            at += len(row.tokens)
        return torch.cat(found) if found else torch.zeros((0, 0))

    def _logits(self, row: PlanRow) -> Tensor:
        """Logits of all tokens of a row, [token, vocabulary]."""
        size = 1 if self._is_recurrent and row.start else len(row.tokens)
        parts = []
        for first in range(0, len(row.tokens), size):
            tokens = torch.tensor([row.tokens[first : first + size]], device=self._device)
            cache = self._caches[row.lane]
            given = {} if cache is None else {self._cache_name: cache}
            answer = self._model(input_ids=tokens, use_cache=True, **given)
            self._caches[row.lane] = getattr(answer, self._cache_name)
            parts.append(answer.logits[0])
        return torch.cat(parts)

    def _cut(self, lane: int, keep: int) -> None:
        self._caches[lane] = None

    def _copy(self, source: int, target: int, keep: int) -> None:
        self._caches[target] = copy.deepcopy(self._caches[source])
