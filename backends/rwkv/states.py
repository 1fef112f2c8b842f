"""The recurrent states of all lanes: for each kind and layer one tensor, [lane, ...].

A state says all about the tokens of its lane, however many there were, and cannot be cut. Lanes beyond those that
run get their memory when they are first used.
"""

import mmap
from collections.abc import Sequence
from typing import Any

import torch

Tensor = Any

HEADER_BYTES = 8
PRIVATE = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS


class States:
    """`blank` are the parts of one fresh state, as a lane without tokens has it. `held`: how many tokens each lane's
    state has seen."""

    def __init__(self, blank: Sequence[Tensor], *, lanes: int, running: int) -> None:
        self._blank = blank
        self.parts = [_repeated(one, min(running, lanes)) for one in blank]
        self.held = [0] * lanes
        self.size_bytes = sum(one.numel() * one.element_size() for one in blank)

    def reserve(self, lane: int) -> None:
        """See that the lane has memory. Parts that were picked out before are stale then."""
        missing = lane + 1 - len(self.parts[0])
        if missing > 0:
            pairs = zip(self.parts, self._blank, strict=True)
            self.parts = [torch.cat((part, _repeated(one, missing))) for part, one in pairs]

    def clear(self, lane: int) -> None:
        """Forget the lane's tokens."""
        if self.held[lane]:
            self.write(lane, self._blank, held=0)

    def read(self, lane: int) -> list[Tensor]:
        """A copy of the lane's state."""
        return [part[lane].clone() for part in self.parts]

    def write(self, lane: int, state: Sequence[Tensor], *, held: int) -> None:
        """Put a state of `held` tokens into the lane."""
        self.reserve(lane)
        for part, one in zip(self.parts, state, strict=True):
            part[lane].copy_(one)
        self.held[lane] = held

    def copy(self, source: int, target: int) -> None:
        self.write(target, self.read(source), held=self.held[source])

    def save(self, lane: int) -> memoryview:
        """The lane's state as bytes, with pages of its own: once forgotten they go back to the system."""
        saved = memoryview(mmap.mmap(-1, HEADER_BYTES + self.size_bytes, PRIVATE))
        saved[:HEADER_BYTES] = self.held[lane].to_bytes(HEADER_BYTES, "little")
        target = torch.frombuffer(saved, dtype=torch.uint8)
        at = HEADER_BYTES
        for part in self.parts:
            data = part[lane].reshape(-1).view(torch.uint8)
            target[at : at + data.numel()].copy_(data)
            at += data.numel()
        return saved

    def restore(self, lane: int, saved: memoryview) -> None:
        """Put back what `save` gave."""
        self.reserve(lane)
        source = torch.frombuffer(saved, dtype=torch.uint8)
        at = HEADER_BYTES
        for part in self.parts:
            data = part[lane].reshape(-1).view(torch.uint8)
            data.copy_(source[at : at + data.numel()])
            at += data.numel()
        self.held[lane] = int.from_bytes(saved[:HEADER_BYTES], "little")


def _repeated(one: Tensor, times: int) -> Tensor:
    return one.repeat(times, *(1,) * one.dim())
