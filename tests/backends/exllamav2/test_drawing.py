"""Tokens drawn from logits as the generator hands them out."""

from typing import Any

import numpy as np
import pytest

from backends.contract import EngineError, EngineRequest, Sampling
from backends.exllamav2.drawing import Drawing

VOCABULARY, EOS = 8, 7
GREEDY = Sampling(temperature=0.0)


def drawing(**given: Any) -> Drawing:
    request = EngineRequest(
        **{"request_id": "1", "prompt": (1, 2), "sampling": GREEDY, "max_tokens": 9, **given}
    )
    return Drawing(request, vocabulary=VOCABULARY, eos_ids=(EOS,))


def logits(*best: int) -> Any:
    """The given tokens are the likeliest, in this order."""
    row = np.zeros(VOCABULARY, np.float32)
    for rank, token in enumerate(best):
        row[token] = 10.0 - rank
    return row


def test_tokens_wait_until_they_are_taken() -> None:
    one = drawing()
    assert [one.draw(logits(3)), one.draw(logits(5))] == [3, 5]
    first = one.take(cached_tokens=256, finish=None)
    assert (first.tokens, first.cached_tokens, first.finish) == ((3, 5), 256, None)
    one.draw(logits(EOS))
    last = one.take(cached_tokens=256, finish="stop")
    assert (last.tokens, last.cached_tokens, last.finish) == ((EOS,), None, "stop")


def test_the_end_of_text_is_a_stop_unless_it_is_to_be_ignored() -> None:
    assert drawing(stop_token_ids=(3,)).stops == (3, EOS)
    assert drawing(stop_token_ids=(3,), ignore_eos=True).stops == (3,)


def test_min_tokens_hold_the_end_back() -> None:
    one = drawing(min_tokens=2, stop_token_ids=(3,))
    row = logits(EOS, 3, 5)
    assert [one.draw(row), one.draw(row), one.draw(row)] == [5, 5, EOS]


def test_logprobs_are_of_the_raw_distribution() -> None:
    one = drawing(logprobs=2, sampling=Sampling(temperature=0.0, logit_bias={4: -np.inf}))
    assert one.draw(logits(4, 2)) == 2
    (given,) = one.take(cached_tokens=0, finish=None).logprobs
    assert given.token == 2
    assert [token for token, _ in given.top] == [4, 2]
    assert given.logprob == given.top[1][1] < given.top[0][1]


def test_frequency_penalties_count_the_output_alone() -> None:
    one = drawing(prompt=(3, 3, 3), sampling=Sampling(temperature=0.0, frequency_penalty=2.0))
    row = logits(3, 5)
    assert [one.draw(row), one.draw(row)] == [3, 5]


def test_a_seed_repeats_its_draws() -> None:
    flat = np.zeros(VOCABULARY, np.float32)
    runs = [
        [one.draw(flat) for _ in range(20)]
        for one in (drawing(sampling=Sampling(seed=seed)) for seed in (1, 2, 1))
    ]
    assert runs[0] == runs[2] != runs[1]


@pytest.mark.parametrize("row", [np.full(VOCABULARY, np.nan, np.float32), logits()])
def test_where_nothing_can_be_drawn_taking_fails(row: Any) -> None:
    one = drawing(sampling=Sampling(temperature=0.0, logit_bias=dict.fromkeys(range(VOCABULARY), -np.inf)))
    assert one.draw(row) is None
    with pytest.raises(EngineError, match="no token can be drawn"):
        one.take(cached_tokens=0, finish="length")


def test_a_token_outside_of_the_vocabulary_is_refused() -> None:
    with pytest.raises(EngineError, match="token 8 is outside the vocabulary"):
        drawing(prompt=(8,))
