"""The radix tree says what a comparison with every lane's list would say."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from runner.worker.prefix_index import PrefixIndex, common_length

KEY = (None, None)


def longest(index: PrefixIndex, tokens: list[int]) -> tuple[int, set[int]]:
    matches = index.match(KEY, tokens)
    return (matches[0].depth, set(matches[0].lanes)) if matches else (0, set())


def test_a_prompt_matches_the_lane_that_shares_most_of_it() -> None:
    index = PrefixIndex()
    index.add(0, KEY, [1, 2, 3, 4])
    index.add(1, KEY, [1, 2, 9])
    assert longest(index, [1, 2, 3, 7]) == (3, {0})
    assert longest(index, [1, 2, 8]) == (2, {0, 1})
    assert longest(index, [5]) == (0, set())


def test_shallower_matches_hold_more_lanes() -> None:
    index = PrefixIndex()
    index.add(0, KEY, [1, 2, 3])
    index.add(1, KEY, [1, 2])
    assert [(m.depth, set(m.lanes)) for m in index.match(KEY, [1, 2, 3])] == [(3, {0}), (2, {0, 1})]


def test_a_list_that_grew_is_found_at_its_new_length() -> None:
    index = PrefixIndex()
    tokens = [1, 2]
    index.add(0, KEY, tokens)
    assert longest(index, [1, 2, 3]) == (2, {0})
    tokens.append(3)
    assert longest(index, [1, 2, 3]) == (3, {0})


def test_other_keys_share_nothing() -> None:
    index = PrefixIndex()
    index.add(0, ("lora", None), [1, 2])
    assert index.match(KEY, [1, 2]) == []


def test_a_removed_lane_is_gone_and_the_others_stay() -> None:
    index = PrefixIndex()
    index.add(0, KEY, [1, 2, 3])
    index.add(1, KEY, [1, 2, 4])
    index.match(KEY, [1])
    index.remove(0)
    index.check_integrity()
    assert longest(index, [1, 2, 3]) == (2, {1})


def test_adding_a_lane_twice_is_refused() -> None:
    index = PrefixIndex()
    index.add(0, KEY, [1])
    with pytest.raises(ValueError, match="already"):
        index.add(0, KEY, [2])


@given(st.lists(st.integers(0, 2)), st.lists(st.integers(0, 2)), st.integers(0, 5))
def test_common_length_is_what_counting_gives(edge: list[int], tokens: list[int], start: int) -> None:
    expected = 0
    for a, b in zip(edge, tokens[start:], strict=False):
        if a != b:
            break
        expected += 1
    assert common_length(edge, tokens, start) == expected


class AgainstComparing(RuleBasedStateMachine):
    """Lanes come, grow and go; the tree is compared with looking at every list."""

    def __init__(self) -> None:
        super().__init__()
        self.index = PrefixIndex()
        self.lists: dict[int, tuple[tuple[str | None, None], list[int]]] = {}

    @rule(
        lane=st.integers(0, 7),
        key=st.sampled_from([None, "lora"]),
        tokens=st.lists(st.integers(0, 2), max_size=9),
    )
    def add(self, lane: int, key: str | None, tokens: list[int]) -> None:
        if lane not in self.lists:
            self.lists[lane] = ((key, None), tokens)
            self.index.add(lane, (key, None), tokens)

    @rule(lane=st.integers(0, 7), more=st.lists(st.integers(0, 2), max_size=4))
    def grow(self, lane: int, more: list[int]) -> None:
        if lane in self.lists:
            self.lists[lane][1].extend(more)

    @rule(lane=st.integers(0, 7))
    def remove(self, lane: int) -> None:
        self.lists.pop(lane, None)
        self.index.remove(lane)

    @rule(key=st.sampled_from([None, "lora"]), prompt=st.lists(st.integers(0, 2), max_size=10))
    def match(self, key: str | None, prompt: list[int]) -> None:
        shared = {
            lane: common_length(tokens, prompt, 0)
            for lane, (own, tokens) in self.lists.items()
            if own == (key, None)
        }
        matches = self.index.match((key, None), prompt)
        deepest: dict[int, int] = {}
        for depth, lanes in matches:
            for lane in lanes:
                deepest[lane] = max(deepest.get(lane, 0), depth)
        best = max(shared.values(), default=0)
        assert (matches[0].depth if matches else 0) == best
        for lane, depth in shared.items():
            # Below the best, a lane may be credited only as far as its last whole edge on the way.
            assert deepest.get(lane, 0) <= depth
            if depth == best:
                assert deepest.get(lane, 0) == best

    @invariant()
    def is_whole(self) -> None:
        self.index.check_integrity()


TestAgainstComparing = AgainstComparing.TestCase
TestAgainstComparing.settings = settings(max_examples=60, stateful_step_count=30, deadline=None)
