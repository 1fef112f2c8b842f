"""The samplers on logits written by hand into a real context."""

from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
from llama_cpp import llama_cpp as ll

from backends.contract import EngineError, LoadRequest, PlanRow, Sampling
from backends.llamacpp.batch import Batch, FloatRows
from backends.llamacpp.loading import load_model, new_context
from backends.llamacpp.parameters import generation_params
from backends.llamacpp.sampling import Distribution, Logits, Sampler, allow_only

VOCABULARY = 269
GREEDY = Sampling(temperature=0.0)


class Board:
    """A context with one output, whose logits are whatever a test writes."""

    def __init__(self, context: Any) -> None:
        self._context = context
        self.logits: Logits = FloatRows(VOCABULARY).view(ll.llama_get_logits(context), 1)[0]

    def write(self, values: dict[int, float], *, rest: float = -50.0) -> None:
        self.logits[:] = rest
        for token, value in values.items():
            self.logits[token] = value

    def draw(self, sampler: Sampler) -> int:
        return sampler.draw(self._context, 0, self.logits)

    def draws(self, sampling: Sampling, values: dict[int, float], *, count: int) -> list[int]:
        sampler = open_sampler(sampling)
        self.write(values)
        drawn = [self.draw(sampler) for _ in range(count)]
        sampler.close()
        return drawn


def open_sampler(sampling: Sampling, history: tuple[int, ...] = (), **changes: Any) -> Sampler:
    return Sampler(sampling, history, **{"vocabulary": VOCABULARY, "window": 1024, **changes})


@pytest.fixture(scope="module")
def board(tiny: Path) -> Iterator[Board]:
    model = load_model(tiny, {}, lambda _share: None)
    context, _ = new_context(
        model, generation_params(LoadRequest(model="", weights=""), kv_tokens=256), purpose="tests"
    )
    batch = Batch(8)
    batch.fill([PlanRow(seq=0, lane=0, start=0, tokens=(1,), sample=True)])
    assert ll.llama_decode(context, batch.native) == 0
    yield Board(context)
    ll.llama_free(context)
    ll.llama_model_free(model)


def test_temperature_zero_takes_the_likeliest_token(board: Board) -> None:
    assert board.draws(GREEDY, {3: 1.0, 9: 1.5}, count=5) == [9] * 5


def test_a_chain_and_the_short_cut_are_equally_greedy(board: Board) -> None:
    rng = np.random.default_rng(0)
    short, chain = open_sampler(GREEDY), open_sampler(Sampling(temperature=0.0, logit_bias={0: 0.0}))
    for _ in range(50):
        board.logits[:] = rng.standard_normal(VOCABULARY).astype(np.float32)
        assert board.draw(short) == board.draw(chain) == board.logits.argmax()
    chain.close()


def test_temperature_scales_the_logits(board: Board) -> None:
    drawn = Counter(board.draws(Sampling(temperature=2.0, seed=3), {3: 2.0, 9: 0.0}, count=4000))
    assert drawn[3] / 4000 == pytest.approx(np.e / (1 + np.e), abs=0.03)


@pytest.mark.parametrize(
    ("sampling", "expected"),
    [
        (Sampling(seed=1), {1, 2, 3, 4}),
        (Sampling(seed=1, top_k=2), {1, 2}),
        (Sampling(seed=1, top_p=0.6), {1, 2}),
        (Sampling(seed=1, min_p=0.3), {1, 2, 3}),
        # The entropy is 1.28: token 2 (1.20) is the most typical, then 3 (1.61), then 1 (0.92).
        (Sampling(seed=1, typical_p=0.2), {2}),
        (Sampling(seed=1, typical_p=0.4), {2, 3}),
        (Sampling(seed=1, top_k=3, top_p=0.5), {1, 2}),
    ],
)
def test_each_filter_keeps_what_it_should(board: Board, sampling: Sampling, expected: set[int]) -> None:
    shares = {1: 0.4, 2: 0.3, 3: 0.2, 4: 0.1}
    values = {token: float(np.log(share)) for token, share in shares.items()}
    assert set(board.draws(sampling, values, count=400)) == expected


def test_the_same_seed_draws_the_same_tokens(board: Board) -> None:
    values = dict.fromkeys(range(100), 0.0)
    first, again, other = [board.draws(Sampling(seed=seed), values, count=30) for seed in (5, 5, 6)]
    assert first == again != other


@pytest.mark.parametrize("seed", [-1, 2**32 - 1, 2**40 + 3])
def test_any_integer_is_a_seed(board: Board, seed: int) -> None:
    values = dict.fromkeys(range(100), 0.0)
    first, again = [board.draws(Sampling(seed=seed), values, count=10) for _ in range(2)]
    assert first == again


def test_without_a_seed_draws_differ(board: Board) -> None:
    values = dict.fromkeys(range(100), 0.0)
    first, again = [board.draws(Sampling(), values, count=30) for _ in range(2)]
    assert first != again


def test_the_repeat_penalty_counts_prompt_and_output(board: Board) -> None:
    sampler = open_sampler(Sampling(temperature=0.0, repeat_penalty=1.25), history=(5,))
    # 5 is worth 2.0 / 1.25 = 1.6; drawn once, 6 is worth 1.9 / 1.25 = 1.52 and 5 is back in front.
    board.write({5: 2.0, 6: 1.9})
    assert [board.draw(sampler), board.draw(sampler)] == [6, 5]
    # Negative logits are multiplied: 5 is worth -1.0 * 1.25.
    board.write({5: -1.0, 7: -1.2})
    assert board.draw(sampler) == 7
    sampler.close()


@pytest.mark.parametrize(("last", "expected"), [(0, 5), (1, 5), (2, 6), (-1, 6), (10**9, 6)])
def test_the_repeat_penalty_sees_the_last_tokens_only(board: Board, last: int, expected: int) -> None:
    sampler = open_sampler(Sampling(temperature=0.0, repeat_penalty=1.25, repeat_last_n=last), history=(5, 8))
    board.write({5: 2.0, 6: 1.9})
    assert board.draw(sampler) == expected
    sampler.close()


def test_the_frequency_penalty_counts_the_output_only(board: Board) -> None:
    sampler = open_sampler(Sampling(temperature=0.0, frequency_penalty=0.4), history=(5, 5, 5))
    board.write({5: 2.0, 6: 1.9, 7: 1.3})
    # 5: 2.0 1.6 1.2   6: 1.9 1.5 1.1   7: 1.3
    assert [board.draw(sampler) for _ in range(5)] == [5, 6, 5, 6, 7]
    sampler.close()


def test_the_presence_penalty_counts_a_token_once(board: Board) -> None:
    sampler = open_sampler(Sampling(temperature=0.0, presence_penalty=0.5), history=(5,))
    board.write({5: 2.0, 6: 1.9, 7: 1.3})
    # 5: 2.0 1.5 1.5 ...   6: 1.9 1.4 ...   7: 1.3
    assert [board.draw(sampler) for _ in range(4)] == [5, 6, 5, 5]
    sampler.close()


def test_negative_penalties_reward(board: Board) -> None:
    sampler = open_sampler(Sampling(temperature=0.0, frequency_penalty=-1.0), history=())
    board.write({5: 2.0, 6: 1.9})
    assert board.draw(sampler) == 5
    board.write({5: 2.0, 6: 2.9})
    assert board.draw(sampler) == 5
    sampler.close()


def test_repeat_and_frequency_penalties_act_together(board: Board) -> None:
    both = Sampling(temperature=0.0, repeat_penalty=1.25, frequency_penalty=0.2)
    sampler = open_sampler(both, history=(5,))
    # Only the prompt has 5: 2.0 / 1.25 = 1.6. Drawn, it is worth 1.6 - 0.2 = 1.4 and 6 wins.
    board.write({5: 2.0, 6: 1.5})
    assert [board.draw(sampler), board.draw(sampler)] == [5, 6]
    sampler.close()


def test_the_bias_is_added_before_the_penalties(board: Board) -> None:
    sampler = open_sampler(Sampling(temperature=0.0, logit_bias={5: 1.0}, repeat_penalty=2.0), history=(5,))
    # (1.0 + 1.0) / 2 = 1.0, not 1.0 / 2 + 1.0 = 1.5.
    board.write({5: 1.0, 6: 1.2})
    assert board.draw(sampler) == 6
    sampler.close()


def test_a_banned_token_is_never_drawn(board: Board) -> None:
    sampler = open_sampler(Sampling(temperature=0.0, logit_bias={5: -np.inf}), banned=(6,))
    board.write({5: 9.0, 6: 8.0, 7: 1.0})
    assert board.draw(sampler) == 7
    assert [sampler.bans(token) for token in (5, 6, 7)] == [True, True, False]
    sampler.close()


@pytest.mark.parametrize(
    ("sampling", "words"),
    [
        (Sampling(repeat_penalty=0.0), "repeat_penalty is 0.0"),
        (Sampling(repeat_penalty=float("nan")), "repeat_penalty is nan"),
        (Sampling(logit_bias={VOCABULARY: 1.0}), "token 269, but the model's tokens are 0 to 268"),
    ],
)
def test_impossible_sampling_is_refused(sampling: Sampling, words: str) -> None:
    with pytest.raises(EngineError, match=words):
        open_sampler(sampling)


def test_a_mask_leaves_only_its_tokens() -> None:
    logits = np.zeros(VOCABULARY, np.float32)
    assert allow_only(logits, bytes([0b10000010, 0, 0, 0, 1, 0, 0, 0]))
    assert np.flatnonzero(np.isfinite(logits)).tolist() == [1, 7, 32]
    assert not allow_only(logits, bytes(64))


def test_logprobs_are_a_softmax_of_the_logits() -> None:
    logits = np.random.default_rng(1).standard_normal(5000).astype(np.float32) * 5
    exact = logits.astype(np.float64) - np.log(np.exp(logits.astype(np.float64)).sum())
    given = Distribution(logits, 7).of(42)
    assert given.logprob == pytest.approx(exact[42], abs=1e-5)
    assert [token for token, _ in given.top] == np.argsort(-exact)[:7].tolist()
    assert [share for _, share in given.top] == pytest.approx(np.sort(exact)[::-1][:7].tolist(), abs=1e-5)
    everything = Distribution(logits, 10**6).of(0).top
    assert sum(np.exp(share) for _, share in everything) == pytest.approx(1.0, abs=1e-5)


def test_closed_samplers_leave_no_memory_behind() -> None:
    everything = Sampling(
        seed=1, top_k=40, top_p=0.9, min_p=0.1, typical_p=0.9, temperature=0.7, repeat_penalty=1.1,
        repeat_last_n=-1, frequency_penalty=0.1, presence_penalty=0.1, logit_bias={1: 1.0},
    )  # fmt: skip

    def churn(count: int) -> int:
        for _ in range(count):
            open_sampler(everything, history=tuple(range(200)), window=100_000).close()
        return psutil.Process().memory_info().rss

    before = churn(50)
    # Each leaked sampler would hold 800 kB of token rings.
    assert churn(500) - before < 20 * 2**20


def test_closing_twice_is_harmless() -> None:
    sampler = open_sampler(Sampling(seed=1))
    sampler.close()
    sampler.close()
