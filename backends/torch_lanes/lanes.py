"""Lanes of a causal language model: computing rows on them, and cutting, copying, saving what they hold.

`packed.py` has the quick kind, `singly.py` the one for models that need a cache of their own make.
"""

import abc
from collections.abc import Sequence
from typing import Any, ClassVar, Literal

from backends.contract import EngineError, PlanRow

Tensor = Any


class Lanes(abc.ABC):
    """Counts the tokens that each lane holds, and never takes more than `kv_tokens` of them together."""

    prefix: ClassVar[Literal["tokens", "tip"]]

    def __init__(self, *, count: int, kv_tokens: int) -> None:
        self.kv_tokens = kv_tokens
        self._held = [0] * count

    @property
    def free_tokens(self) -> int:
        return self.kv_tokens - sum(self._held)

    def held(self, lane: int) -> int:
        """Raises EngineError for a lane that is not there."""
        if not 0 <= lane < len(self._held):
            raise EngineError(f"there is no lane {lane}; the engine has {len(self._held)}")
        return self._held[lane]

    def compute(self, rows: Sequence[PlanRow], outputs: Sequence[int]) -> Tensor:
        """Compute `rows`, for which there is room. Logits [output, vocabulary] at the tokens that `outputs` counts
        over all rows. Raises EngineError for a row that does not go on where its lane ends."""
        for row in rows:
            if row.start != self.held(row.lane):
                raise EngineError(
                    f"sequence {row.seq} starts at {row.start}, but lane {row.lane} holds {self._held[row.lane]}"
                )
        logits = self._compute(rows, outputs)
        for row in rows:
            self._held[row.lane] += len(row.tokens)
        return logits

    def truncate(self, lane: int, keep: int) -> int:
        """As `StepEngine.truncate`."""
        held = self.held(lane)
        if keep >= held:
            return held
        kept = max(keep, 0) if self.prefix == "tokens" else 0
        self._held[lane] = kept
        self._cut(lane, kept)
        return kept

    def fork(self, source: int, target: int, keep: int) -> bool:
        """As `StepEngine.fork`."""
        if self.held(target):
            raise EngineError(f"lane {target} is not empty; truncate it before forking into it")
        can_cut = self.prefix == "tokens" and 0 <= keep <= self.held(source)
        if not (can_cut or keep == self.held(source)) or keep > self.free_tokens:
            return False
        self._held[target] = keep
        self._copy(source, target, keep)
        return True

    @abc.abstractmethod
    def save(self, lane: int, start: int, stop: int) -> memoryview | None:
        """As `StepEngine.save`."""

    @abc.abstractmethod
    def restore(self, lane: int, start: int, state: memoryview) -> bool:
        """As `StepEngine.restore`."""

    @abc.abstractmethod
    def close(self) -> None:
        """Let go of the model and of what the lanes hold."""

    @abc.abstractmethod
    def _compute(self, rows: Sequence[PlanRow], outputs: Sequence[int]) -> Tensor: ...

    @abc.abstractmethod
    def _cut(self, lane: int, keep: int) -> None: ...

    @abc.abstractmethod
    def _copy(self, source: int, target: int, keep: int) -> None: ...
