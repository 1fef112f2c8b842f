"""One sequence's tokens: drawn from logits with Modelyard's own sampler, so that every parameter means what it means on
the other engines, and kept until they are asked for. Needs no exllamav2.
"""

from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from backends.contract import EngineError, EngineRequest, TokenChunk, TokenLogprobs
from backends.sampling import Sampler, log_softmax, pack_mask, token_logprobs


class Drawing:
    """`stops` are the tokens that end the sequence. `draw` and `take` are never called at the same time."""

    def __init__(self, request: EngineRequest, *, vocabulary: int, eos_ids: tuple[int, ...]) -> None:
        """`vocabulary` is the number of logits. Raises EngineError for a token outside of it."""
        self.stops = tuple(sorted({*request.stop_token_ids, *(() if request.ignore_eos else eos_ids)}))
        self._sampler = Sampler(request.sampling, request.prompt, vocabulary=vocabulary)
        self._min_tokens = request.min_tokens
        self._early_mask = _all_but(self.stops, vocabulary) if request.min_tokens else None
        self._top = request.logprobs
        self._tokens: list[int] = []
        self._logprobs: list[TokenLogprobs] = []
        self._failure: EngineError | None = None
        self._is_new = True

    def draw(self, logits: NDArray[np.floating[Any]]) -> int | None:
        """The next token; None where there is none to draw, which `take` then raises."""
        is_early = self._sampler.num_drawn < self._min_tokens
        try:
            token = self._sampler.draw(logits, mask=self._early_mask if is_early else None)
        except EngineError as error:
            self._failure = error
            return None
        self._tokens.append(token)
        if self._top is not None:
            self._logprobs.append(token_logprobs(log_softmax(logits), token, top=self._top))
        return token

    def take(self, *, cached_tokens: int, finish: Literal["stop", "length"] | None) -> TokenChunk:
        """What was drawn since the last time. Raises EngineError where a draw failed."""
        if self._failure is not None:
            raise self._failure
        chunk = TokenChunk(
            tokens=tuple(self._tokens),
            logprobs=tuple(self._logprobs),
            cached_tokens=cached_tokens if self._is_new else None,
            finish=finish,
        )
        self._tokens, self._logprobs, self._is_new = [], [], False
        return chunk


def _all_but(tokens: tuple[int, ...], vocabulary: int) -> bytes:
    allowed = np.ones(vocabulary, dtype=np.bool_)
    allowed[[token for token in tokens if token < vocabulary]] = False
    return pack_mask(allowed)
