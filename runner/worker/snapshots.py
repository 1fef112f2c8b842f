"""Where the state of a sequence is kept while it is computed, on an engine whose states cannot be cut.

    [ messages: 300 ][ asks for an answer: 3 ]      kept behind the messages: the next turn repeats them
    [ messages: 300 ][ answer: 80 ]                 kept at the end, by the scheduler
    [ system: 250 ][ another question: 20 ]         parts from the first after 250 tokens: kept there too

A prefill chunk ends where a state is to be kept. Prompts that go on differently behind a long beginning show where
that ends, so the second of them keeps what the third begins with.
"""

from collections.abc import Mapping

from runner.worker.lanes import Lanes
from runner.worker.sequence import Sequence
from runner.worker.snapshot_store import SnapshotStore

WORTH_TOKENS = 16
"""A state that saves fewer tokens than this is not worth its bytes."""


class Snapshots:
    """Decides the `marks` of sequences on `lanes`, whose store is `store`."""

    def __init__(self, lanes: Lanes, store: SnapshotStore) -> None:
        self._lanes = lanes
        self._store = store

    def mark(self, seq: Sequence) -> None:
        """Of a newcomer the end of its last turn is kept, and that of its prompt unless it is near."""
        for point in (seq.turn_tokens, seq.num_prompt - 1):
            _mark(seq, point)

    def awaited(self, seq: Sequence, running: Mapping[int, Sequence]) -> int:
        """How many leading tokens of `seq` one of the `running` that precede it will have kept soon; it keeps them for
        this one if it would not have. Where `seq` must compute by itself what others had before, it is marked."""
        tokens = seq.tokens[: seq.num_tokens - 1]
        kept = self._store.match(seq.key, tokens).length
        parting = self._store.shared(seq.key, tokens)
        for depth, lanes in self._lanes.prefixes.match(seq.key, tokens):
            if depth < kept + WORTH_TOKENS:
                break
            parting = max(parting, depth)
            for lane in map(self._lanes.__getitem__, lanes):
                owner = running.get(lane.owner) if lane.owner is not None else None
                if owner is not None and lane.length < depth and owner.rank < seq.rank:
                    return _mark(owner, depth)
        if parting >= kept + WORTH_TOKENS:
            _mark(seq, parting)
        return 0

    def keep_mark(self, seq: Sequence) -> None:
        """Keep the state of `seq` if it has just come to a mark."""
        if seq.lane is not None and seq.num_computed in seq.marks:
            self._lanes.keep(seq.lane, on_disk=seq.cache_salt is None)

    def keep_end(self, seq: Sequence) -> None:
        """Keep the state of `seq`, which is about to leave its lane."""
        if seq.lane is not None and seq.num_computed >= WORTH_TOKENS:
            prompts = self._lanes.prompts
            keeps_answer = prompts is not None and prompts.whole_texts and seq.cache_salt is None
            self._lanes.keep(seq.lane, on_disk=keeps_answer)


def _mark(seq: Sequence, point: int) -> int:
    """Have the state of `seq` kept after `point` tokens, or little before; returns where, 0 if not at all."""
    near = max((mark for mark in seq.marks if seq.num_computed < mark <= point), default=0)
    if point - near < WORTH_TOKENS:
        return near
    seq.marks.add(point)
    return point
