"""Where lanes keep keys and values: a part of memory for each lane and layer, in one of two kinds.

In main memory a lane owns addresses for a whole context, of which the system backs only the pages that are written
to: a lane grows without moving, and its keys are one piece. A GPU has no such pages, so lanes there take blocks of a
pool as they grow. Which tokens a lane holds is the caller's business.
"""

import abc
import mmap
from collections.abc import Sequence
from typing import Any

import torch

from backends.contract import LoadError

Tensor = Any

BLOCK_TOKENS = 16
"""Tokens of a block in a GPU's pool: what a lane may take more than it needs."""

NO_RESERVE = getattr(mmap, "MAP_NORESERVE", 0x4000)
PRIVATE = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS


class Storage(abc.ABC):
    """Keys and values of every layer, by lane and position. A layer's shape is known once it is written to first:
    keys are [token, head, width], values too, perhaps of another width."""

    def __init__(self, *, lanes: int, lane_tokens: int, kv_tokens: int) -> None:
        self.lane_tokens = lane_tokens
        self.kv_tokens = kv_tokens
        self._lanes = lanes
        self._layers: list[tuple[Tensor, Tensor]] = []

    @property
    def token_bytes(self) -> int:
        """Bytes of one token over the layers known so far."""
        return sum(one[0].numel() * one.element_size() for layer in self._layers for one in layer)

    def write(self, layer: int, slots: Tensor, keys: Tensor, values: Tensor) -> None:
        """Put one layer's `keys` and `values` at `slots`. A layer that is new must be the next one."""
        if layer == len(self._layers):
            self._layers.append((self._allocate(keys), self._allocate(values)))
        own_keys, own_values = self._layers[layer]
        own_keys.index_copy_(0, slots, keys)
        own_values.index_copy_(0, slots, values)

    def save(self, lane: int, start: int, stop: int) -> memoryview:
        """A copy of what the lane holds from `start` to `stop`, layer by layer, keys first. Its pages are its own:
        once it is forgotten they go back to the system, which a heap would keep."""
        target = mmap.mmap(-1, (stop - start) * self.token_bytes, PRIVATE)
        slots = self._slots(lane, start, stop)
        for one, place in self._places(memoryview(target), stop - start):
            place.copy_(one[slots])
        return memoryview(target)

    def restore(self, lane: int, start: int, state: memoryview) -> int:
        """Put back what `save` gave, for the tokens from `start` on, whose room is there; returns how many tokens
        those are."""
        tokens = self.saved_tokens(state)
        slots = self._slots(lane, start, start + tokens)
        for one, place in self._places(state, tokens):
            one[slots] = place.to(one.device)
        return tokens

    def saved_tokens(self, state: memoryview) -> int:
        return state.nbytes // self.token_bytes

    def copy(self, source: int, target: int, count: int) -> None:
        """The first `count` tokens of `source` into `target`, whose room is there."""
        taken, given = self._slots(source, 0, count), self._slots(target, 0, count)
        for layer in self._layers:
            for one in layer:
                one[given] = one[taken]

    def _places(self, state: memoryview, tokens: int) -> list[tuple[Tensor, Tensor]]:
        """Every tensor of the layers with its part of `state`, of the tensor's type and shape."""
        places = []
        at = 0
        for layer in self._layers:
            for one in layer:
                shape = (tokens, *one.shape[1:])
                numbers = tokens * one[0].numel()
                place = torch.frombuffer(state, dtype=one.dtype, offset=at, count=numbers).view(shape)
                at += numbers * one.element_size()
                places.append((one, place))
        return places

    @abc.abstractmethod
    def reserve(self, lane: int, stop: int) -> None:
        """Make room for the lane's tokens up to `stop`; together the lanes never hold more than `kv_tokens`."""

    @abc.abstractmethod
    def release(self, lane: int, keep: int) -> None:
        """What the lane holds after its first `keep` tokens is not needed any more."""

    @abc.abstractmethod
    def slots(self, rows: Sequence[tuple[int, int, int]]) -> Tensor:
        """The places of (lane, start, stop) one after the other, as one index tensor."""

    @abc.abstractmethod
    def read(self, layer: int, lane: int, start: int, stop: int) -> tuple[Tensor, Tensor]:
        """Keys and values of a lane from `start` to `stop`, [token, head, width]."""

    @abc.abstractmethod
    def _allocate(self, like: Tensor) -> Tensor:
        """Memory for all lanes' tokens, [slot, head, width] as in `like`."""

    @abc.abstractmethod
    def _slots(self, lane: int, start: int, stop: int) -> Any:
        """What picks a lane's tokens out of a layer's tensors."""


class MappedStorage(Storage):
    """In main memory: slot = lane * lane_tokens + position."""

    def __init__(self, *, lanes: int, lane_tokens: int, kv_tokens: int) -> None:
        super().__init__(lanes=lanes, lane_tokens=lane_tokens, kv_tokens=kv_tokens)
        self._maps: list[tuple[mmap.mmap, int]] = []  # with the bytes of a token
        self._held = [0] * lanes
        self._touched = [0] * lanes  # so many tokens of a lane have pages

    def reserve(self, lane: int, stop: int) -> None:
        self._held[lane] = max(self._held[lane], stop)
        if stop > self._touched[lane]:
            self._touched[lane] = stop
            if sum(self._touched) > self.kv_tokens:
                self._give_back()

    def release(self, lane: int, keep: int) -> None:
        # The pages stay for whoever comes next, until they are missed.
        self._held[lane] = min(self._held[lane], keep)

    def slots(self, rows: Sequence[tuple[int, int, int]]) -> Tensor:
        places: list[int] = []
        for lane, start, stop in rows:
            first = lane * self.lane_tokens
            places += range(first + start, first + stop)
        return torch.tensor(places, dtype=torch.int64)

    def read(self, layer: int, lane: int, start: int, stop: int) -> tuple[Tensor, Tensor]:
        place = self._slots(lane, start, stop)
        keys, values = self._layers[layer]
        return keys[place], values[place]

    def _slots(self, lane: int, start: int, stop: int) -> slice:
        first = lane * self.lane_tokens
        return slice(first + start, first + stop)

    def _allocate(self, like: Tensor) -> Tensor:
        slots = self._lanes * self.lane_tokens
        size = like[0].numel() * like.element_size()
        try:
            pages = mmap.mmap(-1, slots * size, PRIVATE | NO_RESERVE)
        except OSError as error:
            raise LoadError(
                f"the system does not give addresses for {self._lanes} lanes of {self.lane_tokens} tokens "
                f"({error.strerror}); lower context_size, scheduler.max_lanes or scheduler.cached_lanes"
            ) from error
        if hasattr(mmap, "MADV_NOHUGEPAGE"):
            pages.madvise(mmap.MADV_NOHUGEPAGE)  # a large page would back much that nobody wrote to
        self._maps.append((pages, size))
        return torch.frombuffer(pages, dtype=like.dtype).view(slots, *like.shape[1:])

    def _give_back(self) -> None:
        """Pages that lanes had once and do not use now go back to the system."""
        for lane, (held, touched) in enumerate(zip(self._held, self._touched, strict=True)):
            if held == touched:
                continue
            first = lane * self.lane_tokens
            for pages, size in self._maps:
                begin = -(-(first + held) * size // mmap.PAGESIZE) * mmap.PAGESIZE
                end = (first + touched) * size // mmap.PAGESIZE * mmap.PAGESIZE
                if end > begin:
                    pages.madvise(mmap.MADV_DONTNEED, begin, end - begin)
            self._touched[lane] = held


class BlockStorage(Storage):
    """On a GPU: every lane has a table of blocks, in the order of its positions."""

    def __init__(self, *, lanes: int, lane_tokens: int, kv_tokens: int, device: Any) -> None:
        super().__init__(lanes=lanes, lane_tokens=lane_tokens, kv_tokens=kv_tokens)
        # Every lane's last block may be nearly empty.
        count = -(-kv_tokens // BLOCK_TOKENS) + lanes
        self._device = device
        self._size = count * BLOCK_TOKENS
        self._free = list(reversed(range(count)))
        self._blocks: list[list[int]] = [[] for _ in range(lanes)]
        self._tables = torch.zeros((lanes, -(-lane_tokens // BLOCK_TOKENS) * BLOCK_TOKENS), dtype=torch.int64)
        self._tables = self._tables.to(device)

    def reserve(self, lane: int, stop: int) -> None:
        blocks = self._blocks[lane]
        first = len(blocks)
        while len(blocks) * BLOCK_TOKENS < stop:
            blocks.append(self._free.pop())
        if len(blocks) > first:
            new = torch.tensor(blocks[first:], dtype=torch.int64)[:, None] * BLOCK_TOKENS
            slots = (new + torch.arange(BLOCK_TOKENS)).flatten()
            self._tables[lane, first * BLOCK_TOKENS : len(blocks) * BLOCK_TOKENS] = slots.to(self._device)

    def release(self, lane: int, keep: int) -> None:
        blocks = self._blocks[lane]
        while (len(blocks) - 1) * BLOCK_TOKENS >= keep and blocks:
            self._free.append(blocks.pop())

    def slots(self, rows: Sequence[tuple[int, int, int]]) -> Tensor:
        return torch.cat([self._tables[lane, start:stop] for lane, start, stop in rows])

    def read(self, layer: int, lane: int, start: int, stop: int) -> tuple[Tensor, Tensor]:
        place = self._slots(lane, start, stop)
        keys, values = self._layers[layer]
        return keys[place], values[place]

    def table(self, lanes: Sequence[int], length: int) -> Tensor:
        """The slots of the first `length` positions of several lanes, [lane, position]; past a lane's end they are
        anybody's."""
        return self._tables[torch.tensor(lanes, device=self._device), :length]

    def read_all(self, layer: int, table: Tensor) -> tuple[Tensor, Tensor]:
        """Keys and values at a `table`, [lane, position, head, width]."""
        keys, values = self._layers[layer]
        return keys[table], values[table]

    def _slots(self, lane: int, start: int, stop: int) -> Tensor:
        return self._tables[lane, start:stop]

    def _allocate(self, like: Tensor) -> Tensor:
        return torch.zeros((self._size, *like.shape[1:]), dtype=like.dtype, device=self._device)
