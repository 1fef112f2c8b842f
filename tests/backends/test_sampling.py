"""The numpy sampler: each part of the chain on its own, then what `Sampler` promises."""

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from backends.contract import EngineError, Sampling, TokenLogprobs
from backends.sampling import (
    Sampler,
    descending,
    log_softmax,
    near_best,
    nucleus,
    pack_mask,
    token_logprobs,
    top_p_count,
    typical_indices,
    unpack_mask,
)

LOGITS = np.array([2.0, 1.0, 0.5, 0.0, -1.0, -3.0])
rows = st.lists(st.floats(-30, 30), min_size=1, max_size=40).map(np.array)
shares = st.floats(0.01, 1.0)


def sampler(*, history: tuple[int, ...] = (), vocabulary: int = LOGITS.size, **fields: Any) -> Sampler:
    return Sampler(Sampling(**fields), history, vocabulary=vocabulary)


def drawn(count: int, logits: NDArray[np.float64] = LOGITS, **fields: Any) -> list[int]:
    one = sampler(**fields)
    return [one.draw(logits) for _ in range(count)]


@given(rows)
def test_log_softmax_sums_to_one_and_keeps_the_order(logits: NDArray[np.float64]) -> None:
    values = log_softmax(logits)
    assert np.exp(values).sum() == pytest.approx(1)
    assert values.max() <= 0
    assert np.allclose(values - values[0], logits - logits[0])


@given(rows, st.integers(1, 50))
def test_descending_gives_the_largest_with_ties_by_index(logits: NDArray[np.float64], count: int) -> None:
    logits = logits.round()
    expected = sorted(range(logits.size), key=lambda index: (-logits[index], index))
    assert descending(logits).tolist() == expected
    assert descending(logits, count).tolist() == expected[:count]


@given(rows, shares)
def test_top_p_keeps_the_smallest_set_that_reaches_p(logits: NDArray[np.float64], top_p: float) -> None:
    values = log_softmax(np.sort(logits)[::-1])
    count = top_p_count(values, top_p)
    kept = np.cumsum(np.exp(values))
    assert 1 <= count <= values.size
    assert kept[count - 1] >= top_p - 1e-9
    assert count == 1 or kept[count - 2] < top_p


@given(rows, shares)
def test_min_p_keeps_exactly_those_near_the_best(logits: NDArray[np.float64], min_p: float) -> None:
    kept = near_best(logits, min_p).tolist()
    relative = np.exp(logits - logits.max())
    assert sorted(kept) == np.flatnonzero(relative >= min_p).tolist()
    assert kept == [index for index in descending(logits).tolist() if index in kept]


@pytest.mark.parametrize("size", [7, 511, 512, 513, 5000])
@pytest.mark.parametrize("spread", [0.01, 1.0, 8.0])
@pytest.mark.parametrize("top_p", [0.01, 0.5, 0.9, 0.999999])
def test_a_nucleus_is_what_sorting_everything_finds(size: int, spread: float, top_p: float) -> None:
    logits = (np.random.default_rng(size).normal(size=size) * spread).round(2)
    sorted_all = descending(logits)
    count = top_p_count(log_softmax(logits)[sorted_all], top_p)
    assert nucleus(logits, top_p).tolist() == sorted_all[:count].tolist()


@given(rows, shares)
def test_typical_p_keeps_the_least_surprising_deviations(
    logits: NDArray[np.float64], typical_p: float
) -> None:
    values = log_softmax(np.sort(logits)[::-1])
    probabilities = np.exp(values)
    deviation = np.abs(values + (-(probabilities * values)).sum())
    kept = typical_indices(values, typical_p)
    left = np.setdiff1d(np.arange(values.size), kept)
    assert kept.tolist() == sorted(kept.tolist())
    assert probabilities[kept].sum() >= typical_p - 1e-9
    assert left.size == 0 or deviation[kept].max() <= deviation[left].min()


@given(st.lists(st.booleans(), min_size=1, max_size=100))
def test_masks_survive_packing_into_whole_words(allowed: list[bool]) -> None:
    packed = pack_mask(np.array(allowed))
    assert len(packed) % 4 == 0
    assert unpack_mask(packed, len(allowed)).tolist() == allowed


def test_mask_bits_are_little_endian() -> None:
    assert pack_mask(np.array([False, True, False, False])) == b"\x02\x00\x00\x00"


def test_tokens_past_the_end_of_a_mask_are_forbidden() -> None:
    assert unpack_mask(b"\xff", 12).tolist() == [True] * 8 + [False] * 4


def test_logprobs_name_the_token_and_the_best_in_order() -> None:
    values = log_softmax(LOGITS)
    given = token_logprobs(values, 4, top=2)
    assert given == TokenLogprobs(4, values[4], ((0, values[0]), (1, values[1])))
    assert token_logprobs(values, 4, top=0).top == ()


def test_temperature_zero_takes_the_likeliest() -> None:
    assert drawn(5, temperature=0.0) == [0] * 5


def test_a_temperature_near_zero_takes_the_likeliest() -> None:
    assert drawn(5, temperature=1e-300, seed=1) == [0] * 5


def test_draws_follow_the_distribution() -> None:
    counts = np.bincount(drawn(4000, seed=11), minlength=LOGITS.size) / 4000
    assert counts == pytest.approx(np.exp(log_softmax(LOGITS)), abs=0.03)


def test_temperature_flattens_the_distribution() -> None:
    counts = np.bincount(drawn(4000, seed=11, temperature=4.0), minlength=LOGITS.size) / 4000
    assert counts == pytest.approx(np.exp(log_softmax(LOGITS / 4)), abs=0.03)


def test_equal_seeds_draw_equally_and_others_do_not() -> None:
    assert drawn(30, seed=5) == drawn(30, seed=5)
    assert drawn(30, seed=5) != drawn(30, seed=6)
    assert drawn(30) != drawn(30)


def test_any_integer_is_a_seed() -> None:
    assert drawn(5, seed=-1) == drawn(5, seed=2**64 - 1)


@pytest.mark.parametrize(
    ("fields", "possible"),
    [
        ({"top_k": 2}, {0, 1}),
        ({"top_k": 99}, {0, 1, 2, 3, 4, 5}),
        ({"top_p": 0.7}, {0, 1}),
        ({"min_p": 0.2}, {0, 1, 2}),
        ({"top_k": 3, "top_p": 0.8}, {0, 1}),
        ({"top_k": 1, "temperature": 50.0}, {0}),
    ],
)
def test_filters_leave_what_they_say(fields: dict[str, Any], possible: set[int]) -> None:
    assert set(drawn(3000, **{"seed": 2, "temperature": 9.0, **fields})) == possible


def test_filters_look_at_the_distribution_before_temperature() -> None:
    # At temperature 9 the best two hold 0.4; top_p 0.7 would need four of them.
    assert set(drawn(500, seed=2, temperature=9.0, top_p=0.7)) == {0, 1}


@given(st.sets(st.integers(0, LOGITS.size - 1), min_size=1), st.integers(0, 3))
def test_a_mask_is_absolute(allowed: set[int], seed: int) -> None:
    mask = pack_mask(np.array([token in allowed for token in range(LOGITS.size)]))
    bias = {token: 50.0 for token in range(LOGITS.size) if token not in allowed}
    one = sampler(seed=seed, temperature=5.0, logit_bias=bias)
    assert {one.draw(LOGITS, mask=mask) for _ in range(20)} <= allowed


def test_a_bias_moves_and_bans_tokens() -> None:
    assert drawn(4, temperature=0.0, logit_bias={5: 9.0}) == [5] * 4
    assert drawn(1, temperature=0.0, logit_bias={0: -math.inf}) == [1]
    assert 0 not in drawn(200, seed=1, logit_bias={0: -math.inf})


def test_where_nothing_is_allowed_the_error_says_so() -> None:
    with pytest.raises(EngineError, match="forbid every token"):
        sampler(logit_bias=dict.fromkeys(range(LOGITS.size), -math.inf)).draw(LOGITS)
    with pytest.raises(EngineError, match="not a number"):
        sampler().draw(np.full(LOGITS.size, np.nan))


def test_a_bias_on_an_unknown_token_is_an_error() -> None:
    with pytest.raises(EngineError, match="token 99"):
        sampler(logit_bias={99: 1.0})


def test_the_repeat_penalty_counts_prompt_and_output() -> None:
    one = sampler(history=(0,), temperature=0.0, repeat_penalty=10.0)
    assert [one.draw(LOGITS) for _ in range(3)] == [1, 2, 0]


def test_the_repeat_penalty_pushes_negative_logits_down() -> None:
    one = sampler(history=(0,), temperature=0.0, repeat_penalty=2.0, vocabulary=2)
    assert one.draw(np.array([-1.0, -1.5])) == 1


def test_the_repeat_penalty_forgets_what_is_older_than_its_window() -> None:
    history = (0, 5, 5)
    assert sampler(history=history, temperature=0.0, repeat_penalty=9.0, repeat_last_n=2).draw(LOGITS) == 0
    assert sampler(history=history, temperature=0.0, repeat_penalty=9.0, repeat_last_n=3).draw(LOGITS) == 1
    assert sampler(history=history, temperature=0.0, repeat_penalty=9.0, repeat_last_n=-1).draw(LOGITS) == 1
    assert sampler(history=history, temperature=0.0, repeat_penalty=9.0, repeat_last_n=0).draw(LOGITS) == 0


def test_frequency_and_presence_penalties_count_the_output_alone() -> None:
    one = sampler(history=(0, 0, 0), temperature=0.0, frequency_penalty=0.4)
    assert [one.draw(LOGITS) for _ in range(4)] == [0, 0, 0, 1]
    one = sampler(history=(0, 0, 0), temperature=0.0, presence_penalty=1.2, repeat_last_n=1)
    assert [one.draw(LOGITS) for _ in range(3)] == [0, 1, 0]


def test_drawing_leaves_the_logits_as_they_were() -> None:
    logits = LOGITS.copy()
    sampler(seed=1, temperature=2.0, logit_bias={0: -1.0}, repeat_penalty=2.0, history=(1,)).draw(logits)
    assert (logits == LOGITS).all()


def test_a_sampler_knows_when_the_likeliest_token_is_enough() -> None:
    assert sampler(temperature=0.0).takes_likeliest
    assert sampler(temperature=0.0, logit_bias={1: -math.inf}).takes_likeliest
    assert sampler(temperature=0.0, logit_bias={1: -math.inf}).banned == {1}
    assert not sampler(temperature=0.1).takes_likeliest
    assert not sampler(temperature=0.0, logit_bias={1: 1.0}).takes_likeliest
    assert not sampler(temperature=0.0, repeat_penalty=1.1).takes_likeliest
    assert not sampler(temperature=0.0, frequency_penalty=0.1).takes_likeliest
    assert not sampler(temperature=0.0, presence_penalty=0.1).takes_likeliest
