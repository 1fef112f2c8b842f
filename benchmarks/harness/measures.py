"""What the figures are and how they are made of records; every formula in words, for whoever reads a result.

Failed requests are counted and enter no figure. Confidence intervals are of 95 %, by bootstrap over requests, and
for throughput over equal slices of the run's time.
"""

from collections.abc import Callable, Sequence

import msgspec
import numpy as np
from numpy.typing import NDArray

from benchmarks.harness.work import Slo
from benchmarks.measure import Record

FORMULAS: dict[str, str] = {
    "TTFT": "time to first token: first chunk with text - sending of the request (when it was due, in an open loop)",
    "ITL": "inter-token latency: the time between neighbouring chunks with text, of all requests together",
    "TPOT": "time per output token: (last chunk - first chunk) / (completion tokens - 1), one value a request",
    "E2E": "end to end: end of the answer - sending of the request (when it was due, in an open loop)",
    "tokens/s out": "completion tokens as `usage` counts them / (last end - first sending)",
    "tokens/s in": "prompt tokens as `usage` counts them, cached ones too / (last end - first sending)",
    "requests/s": "good requests / (last end - first sending)",
    "goodput": "requests that kept every limit of the SLO / (last end - first sending)",
}
PERCENTS = (50, 90, 99)
RESAMPLES = 400
SLICES = 20

_LEAST = 1e-12

Floats = NDArray[np.float64]


class Estimate(msgspec.Struct, frozen=True):
    """A figure and the interval it lies in with 95 % confidence."""

    value: float
    low: float
    high: float


class Latency(msgspec.Struct, frozen=True):
    """A distribution of times in seconds, by percentile."""

    mean: float
    p50: Estimate
    p90: Estimate
    p99: Estimate


class Measures(msgspec.Struct, frozen=True, kw_only=True):
    """The figures of one run. None: no request carries them."""

    requests: int
    failed: int
    errors: dict[str, int]  # how often each was said
    wall_s: float
    prompt_tokens: int
    cached_tokens: int
    completion_tokens: int
    output_tokens_per_s: Estimate | None
    input_tokens_per_s: float
    requests_per_s: float
    goodput_per_s: float | None  # None where no SLO was stated
    ttft: Latency | None
    itl: Latency | None
    tpot: Latency | None
    e2e: Latency | None


def measure(records: Sequence[Record], *, slo: Slo, seed: int = 0) -> Measures:
    """All figures of one run. `seed` is that of the resampling."""
    good = [one for one in records if one.error is None]
    errors: dict[str, int] = {}
    for one in records:
        if one.error is not None:
            errors[one.error] = errors.get(one.error, 0) + 1
    wall_s = max(r.end_s for r in records) - min(r.start_s for r in records) if records else 0.0
    random = np.random.default_rng(seed)
    tokens = sum(one.completion_tokens for one in good)
    prompts = sum(one.prompt_tokens for one in good)

    def per_s(count: float) -> float:
        return count / wall_s if wall_s else 0.0

    has_slo = slo != Slo()
    return Measures(
        requests=len(records),
        failed=len(records) - len(good),
        errors=errors,
        wall_s=wall_s,
        prompt_tokens=prompts,
        cached_tokens=sum(one.cached_tokens for one in good),
        completion_tokens=tokens,
        output_tokens_per_s=_throughput(good, tokens, wall_s, random),
        input_tokens_per_s=per_s(prompts),
        requests_per_s=per_s(len(good)),
        goodput_per_s=per_s(sum(keeps(one, slo) for one in good)) if has_slo else None,
        ttft=_latency([[t] for one in good if (t := ttft_s(one)) is not None], random),
        itl=_latency([gaps for one in good if (gaps := one.gaps_s)], random),
        tpot=_latency([[t] for one in good if (t := tpot_s(one)) is not None], random),
        e2e=_latency([[e2e_s(one)] for one in good], random),
    )


def ttft_s(record: Record) -> float | None:
    return record.chunk_times_s[0] - _sent_s(record) if record.chunk_times_s else None


def tpot_s(record: Record) -> float | None:
    if len(record.chunk_times_s) < 2 or record.completion_tokens < 2:
        return None
    return (record.chunk_times_s[-1] - record.chunk_times_s[0]) / (record.completion_tokens - 1)


def e2e_s(record: Record) -> float:
    return record.end_s - _sent_s(record)


def keeps(record: Record, slo: Slo) -> bool:
    """Whether a good request kept every limit that is stated."""
    pairs = ((ttft_s(record), slo.ttft_s), (tpot_s(record), slo.tpot_s), (e2e_s(record), slo.e2e_s))
    return all(limit is None or value is None or value <= limit for value, limit in pairs)


def ratio(
    before: Sequence[Sequence[float]], after: Sequence[Sequence[float]], *, seed: int = 0
) -> Estimate | None:
    """How many times larger the median became, with the interval of that; None for no values. Each part of `before` and
    `after` holds the values of one request."""
    if not before or not after:
        return None
    random = np.random.default_rng(seed)
    olds, news = (_percentiles(groups, random)[:, 0] for groups in (before, after))
    was, now = (
        float(np.median(np.concatenate([np.asarray(g) for g in groups]))) for groups in (before, after)
    )
    low, high = np.percentile(news / np.maximum(olds, _LEAST), (2.5, 97.5))
    return Estimate(now / max(was, _LEAST), float(low), float(high))


def _sent_s(record: Record) -> float:
    return record.start_s if record.due_s is None else record.due_s


def _latency(groups: Sequence[Sequence[float]], random: np.random.Generator) -> Latency | None:
    """Each group holds the values of one request, which are resampled together."""
    if not groups:
        return None
    values = np.concatenate([np.asarray(group, dtype=np.float64) for group in groups])
    drawn = _percentiles(groups, random)
    exact = np.percentile(values, PERCENTS)
    low, high = np.percentile(drawn, (2.5, 97.5), axis=0)
    found = [Estimate(float(v), float(a), float(b)) for v, a, b in zip(exact, low, high, strict=True)]
    return Latency(float(values.mean()), *found)


def _percentiles(groups: Sequence[Sequence[float]], random: np.random.Generator) -> Floats:
    """The percentiles of `RESAMPLES` draws of as many groups, a row a draw."""
    arrays = [np.asarray(group, dtype=np.float64) for group in groups]
    are_single = all(array.size == 1 for array in arrays)
    flat = np.concatenate(arrays)
    rows = []
    for _ in range(RESAMPLES):
        picks = random.integers(len(arrays), size=len(arrays))
        drawn = flat[picks] if are_single else np.concatenate([arrays[pick] for pick in picks])
        rows.append(np.percentile(drawn, PERCENTS))
    return np.asarray(rows, dtype=np.float64)


def _throughput(
    good: Sequence[Record], tokens: int, wall_s: float, random: np.random.Generator
) -> Estimate | None:
    """Tokens are spread over a request's chunks; a slice of the run's time gives one value."""
    if not tokens or not wall_s:
        return None
    began = min(one.start_s for one in good)
    counts = np.zeros(SLICES)
    for one in good:
        if not one.chunk_times_s:
            continue
        at = ((np.asarray(one.chunk_times_s) - began) / wall_s * SLICES).astype(int).clip(0, SLICES - 1)
        np.add.at(counts, at, one.completion_tokens / len(one.chunk_times_s))
    rates = counts / (wall_s / SLICES)
    means = rates[random.integers(SLICES, size=(RESAMPLES, SLICES))].mean(axis=1)
    low, high = np.percentile(means, (2.5, 97.5))
    return Estimate(tokens / wall_s, float(low), float(high))


Pick = Callable[[Record], Sequence[float]]

PICKS: dict[str, Pick] = {
    "TTFT": lambda one: () if (value := ttft_s(one)) is None else (value,),
    "ITL": lambda one: one.gaps_s,
    "TPOT": lambda one: () if (value := tpot_s(one)) is None else (value,),
    "E2E": lambda one: (e2e_s(one),),
}
"""The values that one good request gives to each distribution."""
