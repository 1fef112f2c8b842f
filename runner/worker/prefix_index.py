"""A radix tree over the token lists of all lanes: who begins with the longest part of a new prompt?

Edges hold runs of tokens; a lane's list always ends at the end of a node, and `node.lanes` are the lanes that
pass through the whole edge. Lists that grow while their sequence runs are caught up with at the next match,
so a decode step costs the index nothing. It knows tokens only: which of them are computed is the lanes' matter.
"""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

Key = tuple[str | None, str | None]
"""What must be equal besides the tokens: adapter and cache salt."""


class Match(NamedTuple):
    """The first `depth` tokens of the prompt are those of every lane in `lanes`."""

    depth: int
    lanes: frozenset[int] | set[int]


class _Node:
    __slots__ = ("children", "lanes", "parent", "tokens")

    def __init__(self, parent: "_Node | None", tokens: list[int], lanes: set[int]) -> None:
        self.parent = parent
        self.tokens = tokens
        self.lanes = lanes
        self.children: dict[int, _Node] = {}


class _Entry:
    __slots__ = ("end", "indexed", "key", "tokens")

    def __init__(self, key: Key, tokens: list[int], end: _Node) -> None:
        self.key = key
        self.tokens = tokens  # the lane's own list: it may grow, never change
        self.indexed = 0
        self.end = end


class PrefixIndex:
    """Lanes by their tokens. `add` keeps a reference to the list; it may grow, but what is in it stays."""

    def __init__(self) -> None:
        self._roots: dict[Key, _Node] = {}
        self._entries: dict[int, _Entry] = {}

    def __contains__(self, lane: int) -> bool:
        return lane in self._entries

    def add(self, lane: int, key: Key, tokens: list[int]) -> None:
        """Register `lane`, which must not be registered."""
        if lane in self._entries:
            raise ValueError(f"lane {lane} is in the index already")
        root = self._roots.get(key)
        if root is None:
            root = self._roots[key] = _Node(None, [], set())
        root.lanes.add(lane)
        self._entries[lane] = _Entry(key, tokens, root)

    def remove(self, lane: int) -> None:
        """Forget `lane`; nothing happens if it is not registered."""
        entry = self._entries.pop(lane, None)
        if entry is None:
            return
        node: _Node | None = entry.end
        while node is not None:
            node.lanes.discard(lane)
            parent = node.parent
            if not node.lanes:
                if parent is None:
                    del self._roots[entry.key]
                else:
                    del parent.children[node.tokens[0]]
            else:
                self._merge_only_child(node)
            node = parent

    def key_of(self, lane: int) -> Key:
        """The key under which `lane` was added."""
        return self._entries[lane].key

    def match(self, key: Key, tokens: Sequence[int]) -> list[Match]:
        """Every depth at which the set of lanes sharing the prompt's beginning changes, deepest first.

        A lane appears in each shallower match too. Empty when nothing is shared.
        """
        self._catch_up()
        node = self._roots.get(key)
        found: list[Match] = []
        depth = 0
        while node is not None and depth < len(tokens):
            child = node.children.get(tokens[depth])
            if child is None:
                break
            shared = common_length(child.tokens, tokens, depth)
            depth += shared
            found.append(Match(depth, child.lanes))
            if shared < len(child.tokens):
                break
            node = child
        found.reverse()
        return found

    def check_integrity(self) -> None:
        """Raise AssertionError unless the tree says exactly what the lanes' lists say."""
        self._catch_up()
        walked: dict[int, list[int]] = {}
        for key, root in self._roots.items():
            assert root.lanes, "an empty root was kept"
            for lane, tokens, end in _paths(root, []):
                entry = self._entries[lane]
                assert entry.key == key and entry.end is end, f"lane {lane} ends somewhere else"
                walked[lane] = tokens
        assert walked.keys() == self._entries.keys(), "the tree and the entries hold different lanes"
        for lane, entry in self._entries.items():
            assert walked[lane] == entry.tokens, f"lane {lane} has other tokens than its path"

    def _catch_up(self) -> None:
        for lane, entry in self._entries.items():
            if entry.indexed < len(entry.tokens):
                self._extend(lane, entry)

    def _extend(self, lane: int, entry: _Entry) -> None:
        tokens, node = entry.tokens, entry.end
        at, end = entry.indexed, len(entry.tokens)
        while at < end:
            if node.parent is not None and not node.children and len(node.lanes) == 1:
                node.tokens.extend(tokens[at:end])
                at = end
                break
            child = node.children.get(tokens[at])
            if child is None:
                child = node.children[tokens[at]] = _Node(node, tokens[at:end], {lane})
                node, at = child, end
                break
            shared = common_length(child.tokens, tokens, at)
            if shared < len(child.tokens):
                child = self._split(child, shared)
            child.lanes.add(lane)
            node, at = child, at + shared
        entry.end, entry.indexed = node, at

    def _split(self, node: _Node, at: int) -> _Node:
        """Cut `node` after `at` tokens; returns the new upper half."""
        assert node.parent is not None
        upper = _Node(node.parent, node.tokens[:at], set(node.lanes))
        node.parent.children[upper.tokens[0]] = upper
        node.tokens = node.tokens[at:]
        node.parent = upper
        upper.children[node.tokens[0]] = node
        return upper

    def _merge_only_child(self, node: _Node) -> None:
        if node.parent is None or len(node.children) != 1:
            return
        (child,) = node.children.values()
        if len(child.lanes) != len(node.lanes):
            return  # some lane ends here
        node.tokens = node.tokens + child.tokens
        node.children = child.children
        for grandchild in node.children.values():
            grandchild.parent = node
        for lane in node.lanes:
            if self._entries[lane].end is child:
                self._entries[lane].end = node


def common_length(edge: Sequence[int], tokens: Sequence[int], start: int) -> int:
    """How many leading tokens of `edge` equal those of `tokens` from `start` on."""
    limit = max(0, min(len(edge), len(tokens) - start))
    if edge[:limit] == tokens[start : start + limit]:
        return limit
    low, high = 0, limit  # edge[:low] is equal, edge[:high] is not
    while high - low > 1:
        middle = (low + high) // 2
        if edge[low:middle] == tokens[start + low : start + middle]:
            low = middle
        else:
            high = middle
    return low


def _paths(node: _Node, above: list[int]) -> Iterator[tuple[int, list[int], _Node]]:
    tokens = above + node.tokens
    deeper: set[int] = set()
    for first, child in node.children.items():
        assert child.tokens and child.tokens[0] == first, "a child hangs under the wrong token"
        assert child.parent is node, "a child has another parent"
        assert child.lanes <= node.lanes, "a lane skips its parent"
        assert not child.lanes & deeper, "a lane goes two ways"
        deeper |= child.lanes
        yield from _paths(child, tokens)
    for lane in node.lanes - deeper:
        yield lane, tokens, node
