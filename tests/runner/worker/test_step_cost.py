"""How much prefill goes beside running streams: learnt from steps of a machine whose times are made up."""

import pytest

from runner.worker.step_cost import SMALLEST_TOKENS, TILE_TOKENS, StepCost

FIXED_S, TOKEN_S = 0.010, 0.004
"""What a step takes, and each token in it, on a machine of its own."""

DECODES = 16


def taken_s(tokens: int, *, slowness: float = 1.0) -> float:
    return slowness * (FIXED_S + TOKEN_S * tokens)


def work(cost: StepCost, *, steps: int, pure_every: int | None = None, slowness: float = 1.0) -> int:
    """Steps with as much prefill as there may be, every so many of them without; the last amount of prefill."""
    prefill = 0
    for step in range(steps):
        if pure_every and step % pure_every == 0:
            cost.record(decodes=DECODES, prefill_tokens=0, elapsed_s=taken_s(DECODES, slowness=slowness))
            continue
        prefill = cost.prefill_tokens(DECODES)
        cost.record(
            decodes=DECODES,
            prefill_tokens=prefill,
            elapsed_s=taken_s(DECODES + prefill, slowness=slowness),
        )
    return prefill


def learnt() -> StepCost:
    cost = StepCost(unnoticed_s=0.0)
    cost.record(decodes=DECODES, prefill_tokens=0, elapsed_s=taken_s(DECODES))
    return cost


def test_a_step_with_prefill_takes_twice_as_long_as_one_without() -> None:
    cost = learnt()

    prefill = work(cost, steps=100, pure_every=3)

    most = taken_s(DECODES) / TOKEN_S
    assert most - TILE_TOKENS <= prefill <= most


def test_what_was_learnt_wrong_is_mended_while_steps_without_prefill_are_seen_too() -> None:
    cost = learnt()
    cost.record(
        decodes=DECODES, prefill_tokens=16, elapsed_s=10 * taken_s(DECODES + 16)
    )  # the machine paused

    assert work(cost, steps=2) == SMALLEST_TOKENS
    assert work(cost, steps=200, pure_every=3) == work(learnt(), steps=200, pure_every=3) > SMALLEST_TOKENS


@pytest.mark.parametrize("slowness", [0.3, 3.0])
def test_a_machine_that_becomes_quicker_or_slower_changes_nothing_about_the_shares(slowness: float) -> None:
    cost = learnt()
    before = work(cost, steps=100, pure_every=3)

    # There is always a prompt: nobody sees a step without prefill meanwhile.
    after = work(cost, steps=100, slowness=slowness)

    assert after == before


def test_one_long_step_costs_little_prefill() -> None:
    cost = learnt()
    before = work(cost, steps=100, pure_every=3)

    cost.record(decodes=DECODES, prefill_tokens=before, elapsed_s=100 * taken_s(DECODES + before))

    assert cost.prefill_tokens(DECODES) >= before - TILE_TOKENS


def test_more_newcomers_than_streams_get_as_many_times_more() -> None:
    cost = learnt()
    work(cost, steps=100, pure_every=3)

    alone = cost.prefill_tokens(DECODES)

    assert cost.prefill_tokens(DECODES, newcomers=2 * DECODES) >= 2 * alone - TILE_TOKENS
