"""How one sequence draws its tokens: llama.cpp's own samplers in a chain, numpy where that is enough.

Also the log-probabilities of the raw distribution and the grammar mask. Which rows to draw from, and when,
is the engine's business.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
from llama_cpp import llama_cpp as ll
from numpy.typing import NDArray

from backends.contract import EngineError, Sampling, TokenLogprobs

Logits = NDArray[np.float32]

# Below this the scaled logits leave float32, and the likeliest token wins anyway.
COLDEST = 1e-5


class Sampler:
    """The sampler of one sequence. `close` frees it.

    The order is that of llama.cpp's own server: bias, penalties, top-k, typical, top-p, min-p, temperature.
    Repeat and frequency penalties count different tokens, and llama.cpp's penalty sampler keeps one ring, so
    they are two.
    """

    def __init__(
        self,
        sampling: Sampling,
        history: Sequence[int],
        *,
        vocabulary: int,
        window: int,
        banned: Sequence[int] = (),
    ) -> None:
        """`window`: the most tokens a sequence can have. `banned`: tokens that the model itself rules out."""
        self._bias = dict.fromkeys(banned, -np.inf) | sampling.logit_bias
        _check(sampling, vocabulary)
        stages = self._stages(sampling, history, vocabulary, window)
        is_greedy = sampling.temperature <= COLDEST
        # Nothing moves the logits: the likeliest token needs no chain.
        self._chain: Any = None if is_greedy and not stages else _chain()
        if self._chain is None:
            return
        stages += [ll.llama_sampler_init_greedy()] if is_greedy else _drawing(sampling)
        for stage in stages:
            ll.llama_sampler_chain_add(self._chain, stage)

    def _stages(self, sampling: Sampling, history: Sequence[int], vocabulary: int, window: int) -> list[Any]:
        stages = []
        if self._bias:
            pairs = [ll.llama_logit_bias(token=token, bias=bias) for token, bias in self._bias.items()]
            array = (ll.llama_logit_bias * len(pairs))(*pairs)
            stages.append(ll.llama_sampler_init_logit_bias(vocabulary, len(pairs), array))
        last = window if sampling.repeat_last_n < 0 else min(sampling.repeat_last_n, window)
        if sampling.repeat_penalty != 1.0 and last > 0:
            repeat = ll.llama_sampler_init_penalties(vocabulary, last, sampling.repeat_penalty, 0.0, 0.0)
            for token in history[-last:]:
                ll.llama_sampler_accept(repeat, token)
            stages.append(repeat)
        if sampling.frequency_penalty or sampling.presence_penalty:
            stages.append(
                ll.llama_sampler_init_penalties(
                    vocabulary, window, 1.0, sampling.frequency_penalty, sampling.presence_penalty
                )
            )
        return stages

    def draw(self, context: Any, index: int, logits: Logits) -> int:
        """The next token, from the output at batch index `index`; its own `logits` are (vocabulary,)."""
        if self._chain is None:
            return int(logits.argmax())
        token: int = ll.llama_sampler_sample(self._chain, context, index)
        return token

    def bans(self, token: int) -> bool:
        """Whether the bias leaves `token` no chance; drawn all the same, it was the only one left."""
        return self._bias.get(token) == -np.inf

    def close(self) -> None:
        """Free the chain; the sampler is of no more use."""
        if self._chain is not None:
            ll.llama_sampler_free(self._chain)
            self._chain = None


def _chain() -> Any:
    params = ll.llama_sampler_chain_default_params()
    params.no_perf = True
    return ll.llama_sampler_chain_init(params)


def _drawing(sampling: Sampling) -> list[Any]:
    stages = []
    if sampling.top_k > 0:
        stages.append(ll.llama_sampler_init_top_k(sampling.top_k))
    if sampling.typical_p < 1.0:
        stages.append(ll.llama_sampler_init_typical(sampling.typical_p, 1))
    if sampling.top_p < 1.0:
        stages.append(ll.llama_sampler_init_top_p(sampling.top_p, 1))
    if sampling.min_p > 0.0:
        stages.append(ll.llama_sampler_init_min_p(sampling.min_p, 1))
    if sampling.temperature != 1.0:
        stages.append(ll.llama_sampler_init_temp(sampling.temperature))
    # llama.cpp draws a seed by itself when it sees this one; a given seed is kept below it.
    drawn = ll.LLAMA_DEFAULT_SEED
    seed = drawn if sampling.seed is None else sampling.seed % drawn
    return [*stages, ll.llama_sampler_init_dist(seed)]


def _check(sampling: Sampling, vocabulary: int) -> None:
    if not sampling.repeat_penalty > 0 or np.isinf(sampling.repeat_penalty):
        raise EngineError(f"repeat_penalty is {sampling.repeat_penalty}; it must be a number above 0")
    stray = [token for token in sampling.logit_bias if not 0 <= token < vocabulary]
    if stray:
        raise EngineError(
            f"logit_bias names token {stray[0]}, but the model's tokens are 0 to {vocabulary - 1}"
        )


def allow_only(logits: Logits, mask: bytes) -> bool:
    """Set the logits outside of `mask` to -inf in place; False where nothing is allowed.

    `mask` holds one bit per token, little-endian; tokens beyond its end are not allowed.
    """
    bits = np.unpackbits(np.frombuffer(mask, np.uint8), count=len(logits), bitorder="little")
    np.putmask(logits, bits == 0, -np.inf)
    return bool(bits.any())


class Distribution:
    """Log-probabilities of one position, taken before masks and samplers change its logits."""

    def __init__(self, logits: Logits, alternatives: int) -> None:
        """`logits`, shape (vocabulary,), must still hold the raw value of a token when it is asked for."""
        highest = logits.max()
        # float64 only for the sum: adding up a large vocabulary is where float32 would lose digits.
        self._log_sum = float(highest) + float(np.log(np.exp(logits - highest).sum(dtype=np.float64)))
        self._logits = logits
        self._top = self._likeliest(min(alternatives, len(logits)))

    def _likeliest(self, count: int) -> tuple[tuple[int, float], ...]:
        if count <= 0:
            return ()
        ids = np.argpartition(self._logits, -count)[-count:]
        ids = ids[np.lexsort((ids, -self._logits[ids]))]
        return tuple((token, self._logprob(token)) for token in ids.tolist())

    def _logprob(self, token: int) -> float:
        return float(self._logits[token]) - self._log_sum

    def of(self, token: int) -> TokenLogprobs:
        """The log-probability of `token`, with the likeliest alternatives in falling order."""
        return TokenLogprobs(token, self._logprob(token), self._top)
