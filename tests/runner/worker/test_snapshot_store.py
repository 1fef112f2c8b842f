"""Whole states are found by all of their tokens, and the least recently used goes first."""

import gc
import weakref
from collections.abc import Callable

from runner.worker.snapshot_store import SnapshotStore

KEY = (None, None)


def saved(size: int = 10) -> Callable[[int, int], memoryview]:
    """States of `size` bytes that begin with how many tokens they are of."""
    return lambda start, stop: memoryview(bytes((stop,)) + bytes(size - 1))


def stored(*texts: list[int], most_bytes: int = 1000) -> SnapshotStore:
    store = SnapshotStore(most_bytes)
    for text in texts:
        store.add(KEY, text, saved())
        store.check_integrity()
    return store


def found(store: SnapshotStore, tokens: list[int]) -> int:
    """The length of the matching snapshot."""
    blocks, length = store.match(KEY, tokens)
    assert all(block.state is not None and block.state[0] == len(block.tokens) == length for block in blocks)
    return length


def test_the_longest_state_that_a_text_begins_with_is_found() -> None:
    store = stored([*range(4)], [*range(8)], [*range(4), 99, 98])
    assert found(store, [*range(20)]) == 8
    assert found(store, [*range(8)]) == 8
    assert found(store, [*range(7)]) == 4
    assert found(store, [*range(4), 99, 97]) == 4


def test_a_part_of_a_state_serves_nobody_but_is_known() -> None:
    store = stored([*range(8)])
    assert found(store, [*range(7), 99]) == 0
    assert store.shared(KEY, [*range(7), 99]) == 7
    assert store.shared(KEY, [99]) == 0


def test_other_keys_share_nothing() -> None:
    store = stored([1, 2, 3])
    assert store.match((None, "salt"), [1, 2, 3, 4]).length == 0
    assert store.shared((None, "salt"), [1, 2, 3, 4]) == 0


def test_what_is_stored_already_is_not_asked_for() -> None:
    store = stored([1, 2, 3])
    store.add(KEY, [1, 2, 3], lambda start, stop: None)
    assert len(store) == 1 and found(store, [1, 2, 3]) == 3


def test_the_least_recently_used_state_goes_first() -> None:
    store = stored([1], [2], [3], most_bytes=30)
    store.touch(store.match(KEY, [1]).blocks)
    store.add(KEY, [2], saved())  # used again
    store.add(KEY, [4], saved())
    store.check_integrity()
    assert [found(store, [token]) for token in (1, 2, 3, 4)] == [1, 1, 0, 1]


def test_a_state_larger_than_the_store_leaves_nothing_behind() -> None:
    store = stored([1, 2], most_bytes=9)
    assert len(store) == 0 and store.used_bytes == 0


def test_an_engine_that_gives_nothing_leaves_nothing() -> None:
    store = SnapshotStore(100)
    store.add(KEY, [1, 2, 3], lambda _start, _stop: None)
    store.check_integrity()
    assert len(store) == 0


def test_what_is_forgotten_is_freed_at_once() -> None:
    class State(bytearray):
        pass

    kept: list[weakref.ref[State]] = []

    def save(start: int, stop: int) -> memoryview:
        state = State(10)
        kept.append(weakref.ref(state))
        return memoryview(state)

    gc.disable()
    try:
        store = SnapshotStore(20)
        for number in range(3):
            store.add(KEY, [number], save)
        assert [ref() is None for ref in kept] == [True, False, False]
        store.clear()
        assert all(ref() is None for ref in kept)
    finally:
        gc.enable()
    store.check_integrity()
