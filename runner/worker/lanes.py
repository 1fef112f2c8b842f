"""Lanes: where the engine keeps the state of sequences, who holds them, and how much of the KV pool they fill.

    lane 0   [ seg A: 250 ][ seg B: 31 ]          running
    lane 1   [ seg A: 250 ][ seg C: 12 ]          forked from lane 0 after 250 tokens
    lane 2   [ seg D: 90 ]                        idle: a finished sequence, kept for its prefix

A segment is a run of KV entries shared by the lanes that hold it; it is freed when the last of them lets go.
It begins at the same position in each of them, and neighbours held by the same lanes are joined. The pool's
use is the sum of all segments, each counted once. Every change of the engine's lanes goes through here.
"""

import itertools
import time
from typing import Protocol

from runner.worker.prefix_index import Key, PrefixIndex
from runner.worker.prefix_store import PrefixStore, Stored
from runner.worker.prompt_cache import PromptCache
from runner.worker.snapshot_store import SnapshotStore

RESTORE_TOKENS = 8
"""What the store has more of than the lane must be at least so much to be worth fetching."""


class LaneEngine(Protocol):
    """The part of a step engine that lanes need."""

    def truncate(self, lane: int, keep: int) -> int: ...
    def fork(self, source: int, target: int, keep: int) -> bool: ...
    def save(self, lane: int, start: int, stop: int) -> memoryview | None: ...
    def restore(self, lane: int, start: int, state: memoryview) -> bool: ...


class Segment:
    """`size` tokens of KV, held by the lanes in `holders`."""

    __slots__ = ("holders", "size")

    def __init__(self, size: int, holders: set[int]) -> None:
        self.size = size
        self.holders = holders


class Lane:
    """`tokens[:length]` is what the engine holds; tokens beyond are still to be computed.

    `owner` is the id of the running sequence, None when the lane is idle or free. `offloaded`: so many tokens of an
    idle lane are in the store already. The first `to_disk` are to be kept on disk, and `on_disk` of them are.
    """

    __slots__ = (
        "index",
        "last_used",
        "length",
        "offloaded",
        "on_disk",
        "owner",
        "segments",
        "to_disk",
        "tokens",
    )

    def __init__(self, index: int) -> None:
        self.index = index
        self.tokens: list[int] = []
        self.length = 0
        self.offloaded = 0
        self.to_disk = 0
        self.on_disk = 0
        self.owner: int | None = None
        self.segments: list[Segment] = []
        self.last_used = 0

    @property
    def is_idle(self) -> bool:
        """Kept for its prefix only."""
        return self.owner is None and self.length > 0


class Lanes:
    """All lanes of one engine and the pool of `kv_tokens` that they share."""

    def __init__(
        self,
        engine: LaneEngine,
        count: int,
        kv_tokens: int,
        *,
        most_idle: int | None = None,
        shares_kv: bool = True,
        store: PrefixStore | SnapshotStore | None = None,
        prompts: PromptCache | None = None,
    ) -> None:
        """`count` lanes, of which at most `most_idle` (None: all) are kept for their prefix only. What an idle lane
        held goes to `store` when the lane is evicted; prompts go to `prompts` on disk, if there is such a thing."""
        self._most_idle = count if most_idle is None else most_idle
        self.kv_tokens = kv_tokens
        self.used_tokens = 0
        self.prefixes = PrefixIndex()
        self.store = PrefixStore(0) if store is None else store
        self.prompts = prompts
        self._engine = engine
        self.shares_kv = shares_kv
        self._lanes = [Lane(i) for i in range(count)]
        self._free = list(reversed(self._lanes))
        self._uses = 0

    def __getitem__(self, index: int) -> Lane:
        return self._lanes[index]

    def __len__(self) -> int:
        return len(self._lanes)

    @property
    def free_tokens(self) -> int:
        return self.kv_tokens - self.used_tokens

    @property
    def num_idle(self) -> int:
        return sum(lane.is_idle for lane in self._lanes)

    @property
    def idle(self) -> list[Lane]:
        """Idle lanes, least recently used first."""
        return sorted((lane for lane in self._lanes if lane.is_idle), key=lambda lane: lane.last_used)

    def evictable_tokens(self, keep: Lane | None = None) -> int:
        """What evicting every idle lane but `keep` would free."""
        staying = {lane.index for lane in self._lanes if lane.owner is not None or lane is keep}
        seen: dict[int, Segment] = {}
        for lane in self._lanes:
            if lane.index not in staying:
                seen.update((id(segment), segment) for segment in lane.segments)
        return sum(segment.size for segment in seen.values() if not segment.holders & staying)

    def acquire(self, owner: int, key: Key, tokens: list[int], keep: Lane | None = None) -> Lane | None:
        """An empty lane for `owner`, whose list `tokens` it shares from now on. Evicts the least recently used
        idle lane (never `keep`) if no lane is free; None if there is none to evict."""
        if not self._free:
            victim = next((lane for lane in self.idle if lane is not keep), None)
            if victim is None:
                return None
            self.evict(victim)
        lane = self._free.pop()
        self._give(lane, owner, key, tokens)
        return lane

    def take_over(self, lane: Lane, owner: int, key: Key, tokens: list[int], *, keep: int) -> int:
        """Give an idle lane, cut to `keep` tokens, to a sequence that goes on from there; returns how many
        tokens were really kept."""
        if keep < lane.to_disk:
            self._write(lane, lane.to_disk)
        self.prefixes.remove(lane.index)
        kept = self._truncate(lane, keep)
        self._give(lane, owner, key, tokens)
        lane.length = kept
        return kept

    def fork(self, source: Lane, target: Lane, keep: int) -> int:
        """Copy the first `keep` tokens of `source` into the empty lane `target`; returns how many it got."""
        self._touch(source)
        if keep <= 0 or not self._engine.fork(source.index, target.index, keep):
            return 0
        if self.shares_kv:
            self._share(source, target, keep)
        else:
            self._append(target, keep)
        target.length = keep
        return keep

    def stored(self, key: Key, tokens: list[int]) -> Stored:
        """The longest beginning of `tokens` that is kept outside of the lanes."""
        stored = self.store.match(key, tokens)
        if self.prompts is not None:
            on_disk = self.prompts.match(key, tokens)
            if on_disk.length > stored.length:
                return on_disk
        return stored

    def restore(self, lane: Lane, stored: Stored, most_tokens: int) -> int:
        """Bring back what is stored beyond the tokens that `lane` holds, about `most_tokens` of it; returns how many
        were moved, 0 where all is there or the rest has no room."""
        moved = 0
        self._touch_stored(stored)
        while moved < most_tokens and lane.length + RESTORE_TOKENS <= stored.length:
            number = lane.length // self.store.block_tokens
            start, block = number * self.store.block_tokens, stored.blocks[number]
            if len(block.tokens) > self.free_tokens:
                break
            state = block.read()
            if state is None:
                if self.prompts is not None:
                    self.prompts.remove(block)
                break
            lane.length = self._truncate(lane, start)
            if lane.length < start or not self._engine.restore(lane.index, start, state):
                break
            self.advance(lane, len(block.tokens))
            moved += len(block.tokens)
        if moved:  # the last block may hold more than the prompt has of it
            lane.length = self._truncate(lane, stored.length)
        return moved

    def offload(self, most_tokens: int) -> None:
        """Move about `most_tokens` of the least recently used idle lane to the store, and empty it after the last."""
        if not self.store.most_bytes or not (idle := self.idle):
            return
        lane = idle[0]
        lane.offloaded += max(1, most_tokens // self.store.block_tokens) * self.store.block_tokens
        if lane.offloaded < lane.length:
            self._store(lane, lane.offloaded)
        else:
            self.evict(lane)

    def keep(self, lane: Lane, *, on_disk: bool = False) -> None:
        """Copy what the lane holds now to the store, and to the disk if asked to."""
        self._store(lane, lane.length)
        if on_disk:
            self._write(lane, lane.length)

    def write_back(self, most_tokens: int) -> bool:
        """Keep about `most_tokens` more of an idle lane's prompt on disk; False where there is nothing to do now."""
        if self.prompts is None or not self.prompts.takes_more:
            return False
        lane = next((lane for lane in self._lanes if lane.to_disk and lane.is_idle), None)
        if lane is None:
            return False
        lane.on_disk += max(1, most_tokens // self.store.block_tokens) * self.store.block_tokens
        self._write(lane, min(lane.on_disk, lane.to_disk))
        if lane.on_disk >= lane.to_disk and self.prompts.takes_more:
            lane.to_disk = 0
        return True

    def advance(self, lane: Lane, count: int, *, beyond: int = 0) -> None:
        """The engine has computed `count` more tokens of `lane`, and after them `beyond` that do not count."""
        lane.length += count
        self._append(lane, count)
        if beyond:
            self._engine.truncate(lane.index, lane.length)

    def release(self, lane: Lane, *, cache: bool, to_disk: int = 0) -> None:
        """The owner is done. With `cache` the lane stays, idle, for its prefix, of which the first `to_disk` tokens
        are to be kept on disk."""
        lane.owner = None
        if not cache or lane.length == 0:
            self._empty(lane)
            return
        if len(lane.tokens) != lane.length:
            # The list may have been indexed beyond what was computed: index the computed part anew.
            for_key = self.prefixes.key_of(lane.index)
            self.prefixes.remove(lane.index)
            lane.tokens = lane.tokens[: lane.length]
            self.prefixes.add(lane.index, for_key, lane.tokens)
        self._touch(lane)
        lane.to_disk = min(to_disk, lane.length)
        if self.num_idle > self._most_idle:
            self.evict(self.idle[0])

    def evict(self, lane: Lane) -> None:
        """Empty an idle lane, whose prefix goes to the store, and put it among the free ones."""
        self._store(lane, lane.length)
        self._write(lane, lane.to_disk)
        self._empty(lane)

    def make_room(self, tokens: int, keep: Lane | None = None) -> bool:
        """Evict idle lanes, least recently used first, until `tokens` are free; False if that is not enough.
        Nothing is evicted in vain."""
        if self.free_tokens >= tokens:
            return True
        if self.free_tokens + self.evictable_tokens(keep) < tokens:
            return False
        for lane in self.idle:
            if lane is not keep:
                self.evict(lane)
                if self.free_tokens >= tokens:
                    return True
        return self.free_tokens >= tokens

    def evict_all(self) -> int:
        """Evict every idle lane; returns how many there were."""
        idle = self.idle
        for lane in idle:
            self.evict(lane)
        return len(idle)

    def forget_prefixes(self) -> None:
        """Empty every idle lane and what is stored."""
        for lane in self.idle:
            self._empty(lane)
        self.store.clear()
        if self.prompts is not None:
            self.prompts.clear()

    def close(self, timeout_s: float) -> None:
        """Nothing more is computed: finish what the disk is to have, as far as there is time."""
        if self.prompts is None:
            return
        deadline = time.monotonic() + timeout_s
        size = self.store.block_tokens
        left = [(lane, start + size) for lane in self.idle for start in range(0, lane.to_disk, size)]
        for lane, stop in left:
            if not self.prompts.wait_for_room(deadline - time.monotonic()):
                break
            self._write(lane, min(stop, lane.to_disk))
        self.prompts.close(max(0.0, deadline - time.monotonic()))

    def check_integrity(self) -> None:
        """Raise AssertionError unless lanes, segments, pool and index agree."""
        segments: dict[int, Segment] = {}
        free = set(map(id, self._free))
        for lane in self._lanes:
            assert sum(s.size for s in lane.segments) == lane.length, (
                f"lane {lane.index}: segments and length"
            )
            assert lane.length <= len(lane.tokens), f"lane {lane.index} holds more than its tokens"
            assert (id(lane) in free) == (lane.owner is None and lane.length == 0), (
                f"lane {lane.index}: free list"
            )
            assert (id(lane) in free) != (lane.index in self.prefixes), f"lane {lane.index}: index"
            for segment in lane.segments:
                segments[id(segment)] = segment
                assert lane.index in segment.holders, f"lane {lane.index} is not among its segment's holders"
                assert segment.size > 0, "an empty segment was kept"
            for segment, after in itertools.pairwise(lane.segments):
                assert segment.holders != after.holders, f"lane {lane.index}: neighbours were not joined"
        for segment in segments.values():
            for holder in segment.holders:
                assert segment in self._lanes[holder].segments, "a holder does not hold its segment"
        assert sum(s.size for s in segments.values()) == self.used_tokens, "the pool's use is miscounted"
        assert 0 <= self.used_tokens <= self.kv_tokens, "the pool is overfull"
        self.prefixes.check_integrity()
        self.store.check_integrity()
        if self.prompts is not None:
            self.prompts.check_integrity()

    def _store(self, lane: Lane, count: int) -> None:
        if self.store.most_bytes:
            key = self.prefixes.key_of(lane.index)
            self.store.add(
                key, lane.tokens[:count], lambda start, stop: self._engine.save(lane.index, start, stop)
            )

    def _write(self, lane: Lane, count: int) -> None:
        """Keep the first `count` tokens of a lane on disk; not what comes too fast for it."""
        if self.prompts is not None and count and self.prompts.takes_more:
            key = self.prefixes.key_of(lane.index)
            self.prompts.add(
                key, lane.tokens[:count], lambda start, stop: self._engine.save(lane.index, start, stop)
            )

    def _touch_stored(self, stored: Stored) -> None:
        self.store.touch(stored.blocks)
        if self.prompts is not None:
            self.prompts.touch(stored.blocks)

    def _empty(self, lane: Lane) -> None:
        self.prefixes.remove(lane.index)
        if not lane.segments:
            self._engine.truncate(lane.index, 0)  # a failed first step may have left something behind
        self._truncate(lane, 0)
        lane.tokens = []
        lane.length = 0
        lane.owner = None
        lane.to_disk = 0
        self._free.append(lane)

    def _give(self, lane: Lane, owner: int, key: Key, tokens: list[int]) -> None:
        lane.owner = owner
        lane.offloaded = lane.to_disk = lane.on_disk = 0
        lane.tokens = tokens
        self.prefixes.add(lane.index, key, tokens)
        self._touch(lane)

    def _touch(self, lane: Lane) -> None:
        self._uses += 1
        lane.last_used = self._uses

    def _append(self, lane: Lane, count: int) -> None:
        if count <= 0:
            return
        self.used_tokens += count
        if lane.segments and len(lane.segments[-1].holders) == 1:
            lane.segments[-1].size += count
        else:
            lane.segments.append(Segment(count, {lane.index}))

    def _share(self, source: Lane, target: Lane, keep: int) -> None:
        self._cut_at(source, keep)
        left = keep
        for segment in source.segments:
            if left == 0:
                break
            segment.holders.add(target.index)
            target.segments.append(segment)
            left -= segment.size

    def _truncate(self, lane: Lane, keep: int) -> int:
        left = sum(segment.size for segment in lane.segments)
        if keep >= left:
            return left
        kept = self._engine.truncate(lane.index, keep)
        self._cut_at(lane, kept)
        while left > kept:
            segment = lane.segments.pop()
            left -= segment.size
            segment.holders.discard(lane.index)
            if segment.holders:
                self._join_next(segment)
            else:
                self.used_tokens -= segment.size
        return kept

    def _join_next(self, segment: Segment) -> None:
        """Join `segment` with the one after it where the same lanes hold both. Whoever holds a segment holds all
        before it, so a segment with the same holders is the next one in each of their lanes."""
        segments = self._lanes[next(iter(segment.holders))].segments
        at = segments.index(segment) + 1
        if at == len(segments) or segments[at].holders != segment.holders:
            return
        after = segments[at]
        segment.size += after.size
        for holder in after.holders:
            self._lanes[holder].segments.remove(after)

    def _cut_at(self, lane: Lane, position: int) -> None:
        """Split the segment that `position` lies within, in every lane that holds it."""
        start = 0
        for segment in lane.segments:
            if start < position < start + segment.size:
                tail = Segment(start + segment.size - position, set(segment.holders))
                segment.size = position - start
                for holder in segment.holders:
                    at = self._lanes[holder].segments.index(segment)
                    self._lanes[holder].segments.insert(at + 1, tail)
                return
            start += segment.size
