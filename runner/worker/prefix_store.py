"""Prefixes outside of the engine's KV cache: what idle lanes held, in main memory.

In the cache an idle prefix makes every step of the running sequences a little longer, as attention passes over
all of it; here it costs nothing but bytes, and comes back in a fraction of the time that computing it takes.

    root -- [system prompt, 128] -- [128] -- [question A, 61]
                                         \\-- [question B, 128] -- [17]

States cannot be cut, so they are kept in blocks; of a block that goes on differently the beginning can be used.
Only the last block of a text is shorter than the others. Least recently used blocks go first; none goes before
those that follow it.
"""

from collections import OrderedDict
from collections.abc import Callable, Sequence
from typing import NamedTuple, Protocol

from runner.worker.prefix_index import Key, common_length

BLOCK_TOKENS = 128


class Parked(Protocol):
    """A state that is not in memory."""

    @property
    def nbytes(self) -> int: ...

    def read(self) -> memoryview | None:
        """None where it is lost."""

    def discard(self) -> None:
        """It is not wanted any more."""


State = memoryview | Parked
Save = Callable[[int, int], State | None]
"""The state for the tokens from one position to another; None where there is none to give."""


class Block:
    """The state of `tokens`, which follow those of `parent`."""

    __slots__ = ("children", "parent", "state", "tokens")

    def __init__(self, parent: "Block | None", tokens: Sequence[int], state: State | None) -> None:
        self.parent = parent
        self.tokens = tokens
        self.state = state
        self.children: dict[int, list[Block]] = {}  # by their first token

    @property
    def size_bytes(self) -> int:
        return self.state.nbytes if self.state is not None else 0

    def read(self) -> memoryview | None:
        """The state, wherever it is; None where it is lost."""
        return self.state if self.state is None or isinstance(self.state, memoryview) else self.state.read()

    def discard(self) -> None:
        """Let go of the state."""
        if self.state is not None and not isinstance(self.state, memoryview):
            self.state.discard()


class Root(Block):
    """Where the texts of one key begin."""

    __slots__ = ("key",)

    def __init__(self, key: Key) -> None:
        super().__init__(None, (), None)
        self.key = key


class Stored(NamedTuple):
    """The first `length` tokens of a prompt are those of `blocks`; the last block may hold more."""

    blocks: Sequence[Block]
    length: int


class PrefixStore:
    """At most `most_bytes` of states, found by their tokens."""

    def __init__(self, most_bytes: int, *, block_tokens: int = BLOCK_TOKENS) -> None:
        self.most_bytes = most_bytes
        self.block_tokens = block_tokens
        self.used_bytes = 0
        self._roots: dict[Key, Root] = {}
        self._used: OrderedDict[int, Block] = OrderedDict()  # by identity, least recently used first

    def __len__(self) -> int:
        return len(self._used)

    def match(self, key: Key, tokens: Sequence[int]) -> Stored:
        """The longest stored beginning of `tokens`."""
        block: Block | None = self._roots.get(key)
        blocks: list[Block] = []
        length = 0
        while block is not None and length < len(tokens):
            block, shared = _longest(block, tokens, length)
            if block is None:
                break
            blocks.append(block)
            length += shared
            if shared < self.block_tokens:
                break
        return Stored(blocks, length)

    def add(self, key: Key, tokens: Sequence[int], save: Save) -> None:
        """Store all of `tokens`, asking `save` for what is not here yet."""
        root = self._roots.get(key)
        if root is None:
            root = self._roots[key] = Root(key)
        block: Block = root
        path: list[Block] = []
        for start in range(0, len(tokens), self.block_tokens):
            part = tokens[start : start + self.block_tokens]
            known, shared = _longest(block, part, 0)
            if known is None or shared < len(part):
                state = save(start, start + len(part))
                if state is None:
                    break
                earlier_end = known if known is not None and shared == len(known.tokens) else None
                known = Block(block, list(part), state)
                block.children.setdefault(part[0], []).append(known)
                self._used[id(known)] = known
                self.used_bytes += known.size_bytes
                if earlier_end is not None:  # the new block holds all of it
                    self._drop(earlier_end)
            block = known
            path.append(block)
        self.touch(path)
        self.trim()
        self._forget(root)

    def trim(self) -> None:
        """Drop what is too much, least recently used first."""
        while self.used_bytes > self.most_bytes:
            self._drop(next(iter(self._used.values())))

    def remove(self, block: Block) -> None:
        """Forget a block and all that follow it."""
        family = [block]
        for each in family:
            family += [child for children in each.children.values() for child in children]
        for each in reversed(family):
            if id(each) in self._used:
                self._drop(each)

    def touch(self, blocks: Sequence[Block]) -> None:
        """Mark a path as used: its beginning last, so that no block goes before those that follow it."""
        for block in reversed(blocks):
            if id(block) in self._used:
                self._used.move_to_end(id(block))

    def clear(self) -> None:
        """Forget everything."""
        for block in self._used.values():
            block.discard()
            # Parents and children hold each other, and the memory is to be free now, not when cycles are looked for.
            block.parent = None
            block.children.clear()
        self._roots.clear()
        self._used.clear()
        self.used_bytes = 0

    def check_integrity(self) -> None:
        """Raise AssertionError unless tree, order of use and bytes agree."""
        pending: list[Block] = list(self._roots.values())
        found = 0
        order = {key: place for place, key in enumerate(self._used)}
        while pending:
            block = pending.pop()
            for first, children in block.children.items():
                assert children, "an empty list of children was kept"
                for child in children:
                    found += 1
                    assert child.parent is block and child.tokens[0] == first, (
                        "a block hangs in a wrong place"
                    )
                    assert not child.children or len(child.tokens) == self.block_tokens, (
                        "a short block goes on"
                    )
                    assert block.parent is None or order[id(block)] > order[id(child)], "out of order"
                    pending.append(child)
        assert found == len(self._used), "blocks are lost"
        assert sum(block.size_bytes for block in self._used.values()) == self.used_bytes, (
            "bytes are miscounted"
        )
        assert self.used_bytes <= self.most_bytes, "the store is overfull"

    def _drop(self, block: Block) -> None:
        parent = block.parent
        assert parent is not None and not block.children
        siblings = parent.children[block.tokens[0]]
        siblings.remove(block)
        if not siblings:
            del parent.children[block.tokens[0]]
        del self._used[id(block)]
        block.parent = None
        block.discard()
        self.used_bytes -= block.size_bytes
        if isinstance(parent, Root):
            self._forget(parent)

    def _forget(self, root: Root) -> None:
        if not root.children:
            self._roots.pop(root.key, None)


def _longest(block: Block, tokens: Sequence[int], start: int) -> tuple[Block | None, int]:
    """The child that shares most with `tokens` from `start` on, and how many tokens that are."""
    best, most = None, 0
    for child in block.children.get(tokens[start], ()):
        shared = common_length(child.tokens, tokens, start)
        if shared > most:
            best, most = child, shared
    return best, most
