"""From logits to what rows give: tokens drawn by each sequence's own sampler, and log-probabilities.

Numpy throughout, by `backends.sampling`; a row that cannot draw fails alone.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from backends.contract import EngineError, ResultRow, Sampling, TokenLogprobs
from backends.sampling import Sampler, log_softmax, token_logprobs
from backends.torch_lanes.layout import Placed

Logits = NDArray[np.float32]


class Samplers:
    """The samplers of open sequences."""

    def __init__(self, *, vocabulary: int) -> None:
        self._vocabulary = vocabulary
        self._samplers: dict[int, Sampler] = {}

    def open(self, seq: int, sampling: Sampling, history: Sequence[int]) -> None:
        if seq in self._samplers:
            raise EngineError(f"sequence {seq} is open already; close it first")
        self._samplers[seq] = Sampler(sampling, history, vocabulary=self._vocabulary)

    def close(self, seq: int) -> None:
        if self._samplers.pop(seq, None) is None:
            raise EngineError(f"sequence {seq} is not open, so it cannot be closed")

    def result(self, place: Placed, logits: Logits) -> ResultRow:
        """What a row gives; `logits` [output, vocabulary] are those of all rows."""
        row = place.row
        prompt = _prompt_logprobs(place, logits) if place.prompt else ()
        if not row.sample:
            return ResultRow(seq=row.seq, prompt_logprobs=prompt)
        tokens: list[int] = []
        logprobs: list[TokenLogprobs] = []
        drafts = row.tokens[len(row.tokens) - row.drafts :]
        # A draft that was drawn anyway makes the position behind it one of this sequence too.
        for ahead, draft in enumerate((*drafts, None)):
            own = logits[place.sampled + ahead]
            try:
                token = self._draw(row.seq, own, row.mask)
            except EngineError as error:
                return ResultRow(seq=row.seq, error=str(error))
            tokens.append(token)
            if row.logprobs is not None:
                logprobs.append(token_logprobs(log_softmax(own), token, top=row.logprobs))
            if token != draft:
                break
        return ResultRow(seq=row.seq, tokens=tuple(tokens), logprobs=tuple(logprobs), prompt_logprobs=prompt)

    def _draw(self, seq: int, logits: Logits, mask: bytes | None) -> int:
        sampler = self._samplers[seq]
        if sampler.takes_likeliest and not sampler.banned and mask is None:
            token = int(logits.argmax())
            if np.isfinite(logits[token]):
                sampler.accept(token)
                return token
        return sampler.draw(logits, mask=mask)


def to_numpy(logits: Any) -> Logits:
    """A tensor of logits on any device as float32."""
    values: Logits = logits.float().cpu().numpy()
    return values


def _prompt_logprobs(place: Placed, logits: Logits) -> tuple[TokenLogprobs, ...]:
    row = place.row
    following = [*row.tokens[1:], *([] if row.next_token is None else [row.next_token])]
    own = logits[place.first : place.first + place.prompt]
    return tuple(
        [
            token_logprobs(log_softmax(one), token, top=row.prompt_logprobs or 0)
            for one, token in zip(own, following, strict=True)
        ]
    )
