"""Lanes over an engine that does what it is told: segments are shared, counted once and joined again."""

from runner.worker.lanes import Lanes

KEY = (None, None)


class Obedient:
    def truncate(self, lane: int, keep: int) -> int:
        return keep

    def fork(self, source: int, target: int, keep: int) -> bool:
        return True


def hot_lanes(count: int, tokens: int) -> Lanes:
    """Lane 0 holds `tokens` tokens for sequence 1."""
    lanes = Lanes(Obedient(), count, 10_000)
    hot = lanes.acquire(1, KEY, list(range(tokens)))
    assert hot is not None and hot.index == 0
    lanes.advance(hot, tokens)
    return lanes


def test_a_lane_that_was_forked_often_is_one_segment_again() -> None:
    lanes = hot_lanes(4, 200)
    for keep in range(1, 200):
        fork = lanes.acquire(2, KEY, [*range(keep), 9999])
        assert fork is not None and lanes.fork(lanes[0], fork, keep) == keep
        lanes.check_integrity()
        lanes.release(fork, cache=False)
        lanes.check_integrity()
    assert len(lanes[0].segments) == 1 and lanes.used_tokens == 200


def test_segments_of_those_that_stay_are_joined_when_one_in_between_leaves() -> None:
    lanes = hot_lanes(4, 100)
    forks = []
    for owner, keep in ((2, 80), (3, 50), (4, 20)):
        fork = lanes.acquire(owner, KEY, [*range(keep), 9999 + owner])
        assert fork is not None
        lanes.fork(lanes[0], fork, keep)
        forks.append(fork)
    assert [segment.size for segment in lanes[0].segments] == [20, 30, 30, 20]
    lanes.release(forks[1], cache=False)
    lanes.check_integrity()
    assert [segment.size for segment in lanes[0].segments] == [20, 60, 20]
    assert [segment.size for segment in forks[0].segments] == [20, 60]
    lanes.release(forks[0], cache=False)
    lanes.check_integrity()
    assert [segment.size for segment in lanes[0].segments] == [20, 80]


def test_the_prefix_of_a_lane_that_left_stays_with_its_forks() -> None:
    lanes = hot_lanes(2, 100)
    fork = lanes.acquire(2, KEY, [*range(40), 9999])
    assert fork is not None
    lanes.fork(lanes[0], fork, 40)
    lanes.release(lanes[0], cache=False)
    lanes.check_integrity()
    assert lanes.used_tokens == 40 and [segment.size for segment in fork.segments] == [40]
