"""Guesses from what was said before, and how many are worth it."""

import pytest

from runner.worker.drafting import NONE, WIDTHS, Drafting
from runner.worker.prompt_lookup import Chances, PromptLookup


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


def said(lookup: PromptLookup, tokens: list[int], more: list[int]) -> None:
    """The sequence says `more`, a token a step."""
    for token in more:
        tokens.append(token)
        lookup.guess(1)


def test_a_text_that_was_followed_for_long_is_the_likelier_to_be_followed_on() -> None:
    tokens = [*range(100, 140)]
    lookup = PromptLookup(tokens)
    chances = []
    for count in (2, 1, 3, 14):
        said(lookup, tokens, [*range(len(tokens) + 60, len(tokens) + 60 + count)])
        chances.append(lookup.chance)
    assert lookup.guess(2) == [120, 121]
    assert chances == sorted(set(chances))


def test_the_chance_follows_what_came_though_nothing_was_verified() -> None:
    tokens = [1, 2] * 8
    lookup = PromptLookup(tokens)
    lookup.guess(1)
    before = lookup.chance
    said(lookup, tokens, [1, 2] * 8)
    assert lookup.chance > before
    for token in range(100, 200):
        # As in the prompt, and then something else.
        said(lookup, tokens, [1, 2, token])
    said(lookup, tokens, [1, 2])
    assert lookup.guess(1) and lookup.chance < 0.1


def test_a_word_put_for_another_does_not_end_the_copy() -> None:
    tokens = [*range(1, 31)]
    lookup = PromptLookup(tokens)
    said(lookup, tokens, [*range(1, 13), 99])
    assert lookup.guess(3) == [14, 15, 16]
    said(lookup, tokens, [98])
    assert lookup.guess(3) == []


def test_what_one_sequence_taught_the_next_begins_with() -> None:
    chances = Chances()
    for _ in range(20):
        tokens = [*range(1, 31)]
        said(PromptLookup(tokens, chances), tokens, [*range(1, 13), 99, *range(14, 26), 98, *range(27, 31)])
    tokens = [*range(1, 31)]
    taught = PromptLookup(tokens, chances)
    said(taught, tokens, [*range(1, 13), 99])
    others = tokens[:30]
    untaught = PromptLookup(others)
    said(untaught, others, [*range(1, 13), 99])
    assert taught.chance > untaught.chance


def drafting(**seconds: float) -> Drafting:
    made = Drafting()
    for tokens, elapsed_s in seconds.items():
        for _ in range(2):
            made.record(tokens=int(tokens[1:]), elapsed_s=elapsed_s)
    return made


def test_where_more_tokens_cost_nothing_sure_guesses_are_many_and_poor_ones_are_few() -> None:
    flat = drafting(t1=1.0, t64=1.0)
    assert flat.choose([0.99], streams=1, most=64).width == WIDTHS[-1]
    costly = drafting(t1=1.0, t4=1.5, t8=2.0, t16=3.0, t32=5.0, t64=9.0)
    assert costly.choose([0.1], streams=1, most=64) == NONE
    assert 0 < costly.choose([0.9], streams=1, most=64).width < WIDTHS[-1]


def test_where_each_token_costs_as_much_nothing_is_guessed() -> None:
    linear = drafting(t1=1.0, t4=4.0, t8=8.0, t16=16.0, t32=32.0, t64=64.0)
    assert linear.choose([0.95], streams=1, most=64) == NONE


def test_streams_whose_guesses_are_poor_are_left_out() -> None:
    costly = drafting(t2=1.0, t9=1.6, t16=2.0, t17=2.5, t32=4.5, t64=9.0)
    width, chance = costly.choose([0.05, 0.98], streams=2, most=100)
    assert width > 0 and chance == 0.98


def test_a_size_that_was_never_seen_is_tried() -> None:
    assert drafting(t1=1.0).choose([0.9], streams=1, most=64).width > 0


def test_a_size_that_was_held_up_once_is_tried_again() -> None:
    made = drafting(t1=1.0, t4=1.0, t8=2.0, t16=4.0, t32=8.0)
    made.record(tokens=64, elapsed_s=500.0)
    for _ in range(10_000):
        width = made.choose([0.99], streams=1, most=64).width
        made.record(tokens=1 + width, elapsed_s=1.0 + width / 8)
        if width == 63:
            return
    raise AssertionError("63 guesses were never tried again")


def test_all_guesses_of_a_step_together_stay_within_the_most() -> None:
    flat = drafting(t4=1.0, t32=1.0, t128=1.0)
    assert flat.choose([0.99] * 4, streams=4, most=30).width == 15
    assert flat.choose([0.9] * 4, streams=4, most=12).width == 3
    assert flat.choose([0.99] * 4, streams=4, most=2) == NONE
    assert flat.choose([], streams=4, most=30) == NONE


def test_a_size_that_was_not_seen_for_weeks_can_still_be_chosen_from() -> None:
    made = Drafting()
    made.record(tokens=1, elapsed_s=0.01)
    made.record(tokens=8, elapsed_s=0.02)
    for _ in range(2):
        made._now_s += 2_000_000  # weeks of steps of other sizes
        made.record(tokens=4, elapsed_s=0.015)
    assert made.choose([0.9], streams=1, most=7).width in (0, *WIDTHS)


def test_a_long_prompt_is_read_in_several_steps() -> None:
    tokens = [*range(10_000), *range(100)]
    lookup = PromptLookup(tokens)
    guessed = [lookup.guess(2) for _ in range(3)]
    assert guessed == [[], [], [100, 101]]
