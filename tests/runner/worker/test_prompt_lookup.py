"""Guesses from what was said before, and how many are worth it."""

import pytest

from runner.worker.drafting import WIDTHS, Drafting
from runner.worker.prompt_lookup import FIRST_GUESS, PromptLookup


def guess(tokens: list[int], count: int) -> list[int]:
    return PromptLookup(tokens).guess(count)


def test_what_followed_before_is_guessed_to_follow_again() -> None:
    assert guess([1, 2, 3, 4, 5, 6, 9, 1, 2, 3, 4], 3) == [5, 6, 9]


def test_the_longer_run_is_the_better_sign() -> None:
    # After 3 4 alone came 8 the last time, after 1 2 3 4 it was 5.
    assert guess([1, 2, 3, 4, 5, 0, 3, 4, 8, 0, 1, 2, 3, 4], 1) == [5]


def test_of_two_places_the_newer_one_counts() -> None:
    assert guess([1, 2, 7, 0, 1, 2, 8, 0, 1, 2], 1) == [8]


def test_a_text_that_goes_round_is_guessed_to_go_on() -> None:
    assert guess([5, 1, 2, 3, 1, 2, 3, 1, 2], 7) == [3, 1, 2, 3, 1, 2, 3]


@pytest.mark.parametrize("tokens", [[], [1], [1, 2], [1, 2, 3, 4, 5]])
def test_nothing_is_guessed_of_what_is_new(tokens: list[int]) -> None:
    assert guess(tokens, 4) == []


def test_tokens_that_come_later_are_found_too() -> None:
    tokens = [1, 2, 3]
    lookup = PromptLookup(tokens)
    assert lookup.guess(2) == []
    for token in (4, 9, 2, 3):
        tokens.append(token)
        lookup.guess(1)
    assert lookup.guess(2) == [4, 9]


def test_the_chance_follows_what_was_right_and_recovers_where_nothing_is_tried() -> None:
    lookup = PromptLookup([])
    lookup.learn(4, 4)
    assert lookup.acceptance > FIRST_GUESS
    for _ in range(40):
        lookup.learn(4, 0)
    low = lookup.acceptance
    assert low < 0.05
    for _ in range(200):
        lookup.learn(0, 0)
    assert low < lookup.acceptance <= FIRST_GUESS


def drafting(**seconds: float) -> Drafting:
    made = Drafting()
    for tokens, elapsed_s in seconds.items():
        made.record(tokens=int(tokens[1:]), elapsed_s=elapsed_s)
    return made


def test_where_more_tokens_cost_nothing_sure_guesses_are_many_and_poor_ones_are_few() -> None:
    flat = drafting(t1=1.0, t4=1.0, t8=1.0, t16=1.0, t32=1.0)
    assert flat.width([0.99], streams=1, most=64) == WIDTHS[-1]
    costly = drafting(t1=1.0, t4=1.5, t8=2.0, t16=3.0, t32=5.0)
    assert costly.width([0.1], streams=1, most=64) == 0
    assert 0 < costly.width([0.9], streams=1, most=64) < WIDTHS[-1]


def test_where_each_token_costs_as_much_nothing_is_guessed() -> None:
    linear = drafting(t1=1.0, t4=4.0, t8=8.0, t16=16.0, t32=32.0)
    assert linear.width([0.95], streams=1, most=64) == 0


def test_a_size_that_was_never_seen_is_tried() -> None:
    assert drafting(t1=1.0).width([0.9], streams=1, most=64) > 0


def test_all_guesses_of_a_step_together_stay_within_the_most() -> None:
    flat = drafting(t4=1.0, t32=1.0, t128=1.0)
    assert flat.width([0.99] * 4, streams=4, most=30) == 7
    assert flat.width([0.99] * 4, streams=4, most=2) == 0
    assert flat.width([], streams=4, most=30) == 0
