"""Prompt look-up in the scheduler: fewer steps, the same tokens."""

import pytest

from backends.contract import Sampling
from tests.support import echo_engine, make_scheduler, make_sequence, run_to_end, step

COPY = "say it again and again: " * 3


def steps_of(
    prompt: str, *, looks_up: bool, copies: int = 1, **given: object
) -> tuple[dict[int, list[int]], int]:
    scheduler = make_scheduler(lanes=8, max_lanes=4)
    for number in range(copies):
        scheduler.add(make_sequence(number, prompt, looks_up=looks_up, max_tokens=60, **given))
    tokens = run_to_end(scheduler)
    return tokens, scheduler.totals.steps


@pytest.mark.parametrize(
    "sampling",
    [Sampling(temperature=0), Sampling(temperature=1.2, seed=5), Sampling(temperature=0, repeat_penalty=1.2)],
)
def test_a_text_that_is_copied_comes_in_fewer_steps_and_is_the_same(sampling: Sampling) -> None:
    plain, many = steps_of(COPY, looks_up=False, sampling=sampling)
    guessed, few = steps_of(COPY, looks_up=True, sampling=sampling)
    assert guessed == plain
    assert few <= many
    if sampling.temperature == 0 and sampling.repeat_penalty == 1:
        assert few < many / 3


def test_streams_side_by_side_each_have_their_own_guesses() -> None:
    plain, many = steps_of(COPY, looks_up=False, copies=3)
    guessed, few = steps_of(COPY, looks_up=True, copies=3)
    assert guessed == plain
    assert few < many


def test_an_answer_ends_where_it_would_have_ended() -> None:
    for limit in (1, 2, 3, 7, 30, 31, 32, 33):
        scheduler = make_scheduler()
        scheduler.add(make_sequence(1, COPY, looks_up=True, max_tokens=limit))
        assert len(run_to_end(scheduler)[1]) == limit
    plain, _ = steps_of(COPY, looks_up=False, stop_token_ids=frozenset(b"n"))
    guessed, _ = steps_of(COPY, looks_up=True, stop_token_ids=frozenset(b"n"))
    assert guessed == plain and guessed[0].count(ord("n")) == 1


def test_what_was_guessed_wrong_leaves_the_lane() -> None:
    engine = echo_engine(lanes=4, running_lanes=4, kv_tokens=4096, context_tokens=4096, max_batch_tokens=64)
    scheduler = make_scheduler(engine)
    # Said twice with different ends: the newer end is guessed, and the penalty makes it wrong.
    seq = make_sequence(
        1, "abcd1 abcd2 abcd", looks_up=True, max_tokens=40, sampling=Sampling(temperature=1.5, seed=3)
    )
    scheduler.add(seq)
    while scheduler.has_work:
        step(scheduler)  # which checks that scheduler and engine agree
    assert scheduler.totals.right_guesses <= scheduler.totals.guessed_tokens


def test_guesses_need_room_and_preempt_nobody() -> None:
    tight = len(COPY) + 60 + len("other") + 12
    scheduler = make_scheduler(lanes=4, kv_tokens=tight)
    scheduler.add(make_sequence(1, COPY, looks_up=True, max_tokens=60))
    scheduler.add(make_sequence(2, "other", looks_up=True, max_tokens=8))
    tokens = run_to_end(scheduler)
    assert (len(tokens[1]), len(tokens[2])) == (60, 8)
    assert scheduler.totals.preemptions == 0
