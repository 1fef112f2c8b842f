"""Whole states in main memory, found by their tokens: the prefix store of engines whose states cannot be cut.

    [ system prompt: 250 ]              a snapshot
    [ system prompt: 250 ][ A: 40 ]     another, which holds nothing of the first: each is a whole state

A snapshot serves a prompt that begins with all of its tokens, however long they are. The least recently used goes
first.
"""

from collections import OrderedDict
from collections.abc import Sequence

from runner.worker.prefix_index import Key, PrefixIndex
from runner.worker.prefix_store import Block, Save, Stored


class SnapshotStore:
    """At most `most_bytes` of states, used as a PrefixStore whose blocks are as long as their texts."""

    block_tokens = 2**62

    def __init__(self, most_bytes: int) -> None:
        self.most_bytes = most_bytes
        self.used_bytes = 0
        self._index = PrefixIndex()
        self._used: OrderedDict[int, Block] = OrderedDict()  # by identity, least recently used first

    def __len__(self) -> int:
        return len(self._used)

    def match(self, key: Key, tokens: Sequence[int]) -> Stored:
        """The longest snapshot that `tokens` begin with."""
        for depth, found in self._index.match(key, tokens):
            for snapshot in map(self._used.__getitem__, found):
                if len(snapshot.tokens) == depth:
                    return Stored((snapshot,), depth)
        return Stored((), 0)

    def shared(self, key: Key, tokens: Sequence[int]) -> int:
        """How many leading tokens of `tokens` some snapshot has too, whatever comes behind them in it."""
        return max((match.depth for match in self._index.match(key, tokens)), default=0)

    def add(self, key: Key, tokens: Sequence[int], save: Save) -> None:
        """Store the state of `tokens`, asking `save` for it unless it is here."""
        known = self.match(key, tokens)
        if known.length == len(tokens):
            self.touch(known.blocks)
            return
        state = save(0, len(tokens))
        if state is None:
            return
        snapshot = Block(None, list(tokens), state)
        self._used[id(snapshot)] = snapshot
        self._index.add(id(snapshot), key, list(tokens))
        self.used_bytes += snapshot.size_bytes
        self.trim()

    def trim(self) -> None:
        """Drop what is too much, least recently used first."""
        while self.used_bytes > self.most_bytes:
            self._drop(next(iter(self._used.values())))

    def remove(self, snapshot: Block) -> None:
        """Forget a snapshot."""
        if id(snapshot) in self._used:
            self._drop(snapshot)

    def touch(self, blocks: Sequence[Block]) -> None:
        """Mark snapshots as used."""
        for snapshot in blocks:
            if id(snapshot) in self._used:
                self._used.move_to_end(id(snapshot))

    def clear(self) -> None:
        """Forget everything."""
        while self._used:
            self._drop(next(iter(self._used.values())))

    def check_integrity(self) -> None:
        """Raise AssertionError unless index, order of use and bytes agree."""
        self._index.check_integrity()
        texts = {(self._index.key_of(each), *snapshot.tokens) for each, snapshot in self._used.items()}
        assert len(texts) == len(self._used), "a text was stored twice"
        assert sum(snapshot.size_bytes for snapshot in self._used.values()) == self.used_bytes, (
            "bytes are miscounted"
        )
        assert self.used_bytes <= self.most_bytes, "the store is overfull"

    def _drop(self, snapshot: Block) -> None:
        del self._used[id(snapshot)]
        self._index.remove(id(snapshot))
        snapshot.discard()
        self.used_bytes -= snapshot.size_bytes
