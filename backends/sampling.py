"""Drawing tokens from logits with numpy, for step engines that hand out logits instead of sampling natively.

Owns what `Sampling` means: `Sampler` holds one sequence's generator and token counts, the functions are pure.
The chain: logit bias, mask, penalties, top_k, typical_p, top_p, min_p, and temperature last. Knows no engine.
"""

from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from backends.contract import EngineError, Sampling, TokenLogprobs

Floats = NDArray[np.float64]


def log_softmax(logits: NDArray[np.floating[Any]]) -> Floats:
    """Natural log-probabilities of one row of logits. -inf stays -inf; at least one logit must be finite."""
    shifted = logits.astype(np.float64) - logits.max()
    return np.asarray(shifted - np.log(np.exp(shifted).sum()), dtype=np.float64)


def token_logprobs(log_probabilities: Floats, token: int, *, top: int) -> TokenLogprobs:
    """`token` and the `top` likeliest tokens, best first and ties by id, from a row of log-probabilities."""
    best = descending(log_probabilities, top)[:top]
    return TokenLogprobs(
        token,
        min(0.0, float(log_probabilities[token])),
        tuple((int(one), min(0.0, float(log_probabilities[one]))) for one in best),
    )


def unpack_mask(mask: bytes, vocabulary: int) -> NDArray[np.bool_]:
    """Packed little-endian bits as `vocabulary` booleans, True where allowed; tokens past its end are not."""
    bits = np.unpackbits(np.frombuffer(mask, np.uint8), count=vocabulary, bitorder="little")
    return bits.astype(np.bool_)


def pack_mask(allowed: NDArray[np.bool_]) -> bytes:
    """The inverse of `unpack_mask`: whole uint32 words, the bits past the vocabulary 0."""
    padded = np.zeros(-(-allowed.size // 32) * 32, dtype=np.bool_)
    padded[: allowed.size] = allowed
    return np.packbits(padded, bitorder="little").tobytes()


def descending(values: Floats, count: int = 0) -> NDArray[np.intp]:
    """Indices of the `count` largest values (0: all), largest first, ties by index."""
    if not 0 < count < values.size:
        return np.argsort(-values, kind="stable")
    threshold = np.partition(values, values.size - count)[values.size - count]
    candidates = np.flatnonzero(values >= threshold)
    return candidates[np.argsort(-values[candidates], kind="stable")[:count]]


def top_p_count(log_probabilities: Floats, top_p: float) -> int:
    """How many of the descending probabilities make the smallest set that sums to `top_p` or more."""
    reached = np.searchsorted(np.cumsum(np.exp(log_probabilities)), top_p)
    return min(int(reached) + 1, log_probabilities.size)


def near_best(values: Floats, min_p: float) -> NDArray[np.intp]:
    """Indices of the logits whose probability is `min_p` times the best one's or more, largest first, ties by index."""
    likely = np.flatnonzero(np.exp(values - values.max()) >= min_p)
    return likely[descending(values[likely])]


def nucleus(values: Floats, top_p: float) -> NDArray[np.intp]:
    """Indices of the smallest set of logits whose probabilities sum to `top_p` or more, largest first, ties by index.

    Sorts no more of them than it needs: a vocabulary takes far longer to sort than its nucleus to find.
    """
    log_probabilities = log_softmax(values)
    count = 512
    while True:
        best = descending(log_probabilities, count)
        kept = top_p_count(log_probabilities[best], top_p)
        if kept < best.size or best.size == values.size:
            return best[:kept]
        count *= 8


def typical_indices(log_probabilities: Floats, typical_p: float) -> NDArray[np.intp]:
    """The smallest set summing to `typical_p` of those whose surprise is nearest the entropy, in index order.

    Locally typical sampling, Meister et al. 2022 (arXiv 2202.00666).
    """
    probabilities = np.exp(log_probabilities)
    entropy = -(probabilities * log_probabilities).sum()
    nearest = np.argsort(np.abs(-log_probabilities - entropy), kind="stable")
    reached = np.searchsorted(np.cumsum(probabilities[nearest]), typical_p)
    return np.sort(nearest[: int(reached) + 1])


class Sampler:
    """Draws the tokens of one sequence. Its state outlives preemption: the same draws follow either way."""

    def __init__(self, sampling: Sampling, history: Sequence[int], *, vocabulary: int) -> None:
        """`history` is the prompt, `vocabulary` the number of logits. EngineError for a token outside it."""
        outside = [token for token in (*history, *sampling.logit_bias) if not 0 <= token < vocabulary]
        if outside:
            raise EngineError(f"token {outside[0]} is outside the vocabulary of {vocabulary} tokens")
        self._sampling = sampling
        self._vocabulary = vocabulary
        self._tokens = list(history)
        self._num_prompt = len(self._tokens)
        self._drawn: Counter[int] = Counter()
        self._random = np.random.default_rng(None if sampling.seed is None else sampling.seed % 2**64)
        self._bias_ids = np.fromiter(sampling.logit_bias.keys(), np.intp, len(sampling.logit_bias))
        self._bias = np.fromiter(sampling.logit_bias.values(), np.float64, len(sampling.logit_bias))
        self.banned = frozenset(token for token, bias in sampling.logit_bias.items() if bias == -np.inf)
        """Tokens that a logit bias of -inf rules out."""
        self.takes_likeliest = (
            sampling.temperature == 0
            and len(self.banned) == len(sampling.logit_bias)
            and sampling.repeat_penalty == 1
            and not sampling.frequency_penalty
            and not sampling.presence_penalty
        )
        """`draw` gives the likeliest token that is not banned, so an engine that knows it may skip `draw`."""

    @property
    def num_drawn(self) -> int:
        return len(self._tokens) - self._num_prompt

    def draw(self, logits: NDArray[np.floating[Any]], *, mask: bytes | None = None) -> int:
        """One token from `logits` (vocabulary floats, left as they are), counted as accepted.

        EngineError where no token is allowed or the logits are not numbers.
        """
        scores = self._scores(logits, mask)
        best = int(scores.argmax())
        if not np.isfinite(scores[best]):
            raise EngineError(
                "no token can be drawn: the mask and the logit bias together forbid every token, "
                "or the model computed something that is not a number"
            )
        token = best if self._sampling.temperature == 0 else self._pick(scores)
        self.accept(token)
        return token

    def accept(self, token: int) -> None:
        """Count `token` as this sequence's next output."""
        self._tokens.append(token)
        self._drawn[token] += 1

    def _scores(self, logits: NDArray[np.floating[Any]], mask: bytes | None) -> Floats:
        sampling = self._sampling
        scores = logits.astype(np.float64)
        scores[self._bias_ids] += self._bias
        if mask is not None:
            scores[~unpack_mask(mask, self._vocabulary)] = -np.inf
        if sampling.repeat_penalty != 1 and sampling.repeat_last_n != 0:
            window = self._tokens if sampling.repeat_last_n < 0 else self._tokens[-sampling.repeat_last_n :]
            seen = np.unique(np.asarray(window, np.intp))
            penalised = scores[seen]
            scores[seen] = np.where(
                penalised > 0, penalised / sampling.repeat_penalty, penalised * sampling.repeat_penalty
            )
        if self._drawn and (sampling.frequency_penalty or sampling.presence_penalty):
            drawn = np.fromiter(self._drawn.keys(), np.intp, len(self._drawn))
            counts = np.fromiter(self._drawn.values(), np.float64, len(self._drawn))
            scores[drawn] -= counts * sampling.frequency_penalty + sampling.presence_penalty
        return scores

    def _pick(self, scores: Floats) -> int:
        sampling = self._sampling
        ids = np.flatnonzero(scores > -np.inf)
        # Every filter sees what the one before it left, as a distribution of its own, largest first.
        if sampling.top_k > 0 or sampling.typical_p < 1:
            ids = ids[descending(scores[ids], sampling.top_k)]
        if sampling.typical_p < 1:
            ids = ids[typical_indices(log_softmax(scores[ids]), sampling.typical_p)]
        if sampling.top_p < 1:
            ids = ids[nucleus(scores[ids], sampling.top_p)]
        if sampling.min_p > 0:
            ids = ids[near_best(scores[ids], sampling.min_p)]
        left = scores[ids]
        with np.errstate(over="ignore"):  # a tiny temperature may push the unlikely ones to -inf
            cumulative = np.cumsum(np.exp((left - left.max()) / sampling.temperature))
        index = np.searchsorted(cumulative, self._random.random() * cumulative[-1], side="right")
        return int(ids[min(int(index), ids.size - 1)])
