"""From what vLLM gives out for a request to chunks of tokens."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from backends.contract import EngineError, EngineRequest, TokenChunk, TokenLogprobs


def chunk_of(output: Any, request: EngineRequest) -> TokenChunk:
    """The tokens of one `RequestOutput`, which holds what is new alone. Raises EngineError where vLLM gave up."""
    (sample,) = output.outputs
    finish = sample.finish_reason
    tokens = tuple(sample.token_ids) if request.max_tokens else ()
    if finish not in (None, "stop", "length"):
        raise EngineError(f"vLLM ended the request: {finish}")
    return TokenChunk(
        tokens=tokens,
        logprobs=() if request.logprobs is None else _logprobs(sample, tokens, request.logprobs),
        prompt_logprobs=() if request.prompt_logprobs is None else _prompt_logprobs(output, request),
        cached_tokens=output.num_cached_tokens,
        finish=finish,
    )


def _logprobs(sample: Any, tokens: Sequence[int], top: int) -> tuple[TokenLogprobs, ...]:
    return tuple(_row(row, token, top) for row, token in zip(sample.logprobs or (), tokens, strict=False))


def _prompt_logprobs(output: Any, request: EngineRequest) -> tuple[TokenLogprobs, ...]:
    """All of them come at once, the first token's as None."""
    rows: Iterable[Any] = output.prompt_logprobs or ()
    given = zip(rows, request.prompt, strict=False)
    return tuple(_row(row, token, request.prompt_logprobs or 0) for row, token in given if row is not None)


def _row(row: Mapping[int, Any], token: int, top: int) -> TokenLogprobs:
    """`row` has the token itself and as many alternatives, of which it may be one."""
    best = sorted(row.items(), key=lambda item: (-item[1].logprob, item[0]))[:top]
    return TokenLogprobs(
        token,
        min(0.0, row[token].logprob),
        tuple((number, min(0.0, one.logprob)) for number, one in best),
    )
