"""What a load client records, and the statistics made of it. Values only; all times are in seconds.

A request that failed, or that ended with other than the tokens it asked for, counts as an error and enters no
statistic. Token counts come from the server's `usage`, token times from the chunks that carry text.
"""

from collections.abc import Iterable
from statistics import median

import msgspec
import numpy as np


class Record(msgspec.Struct, frozen=True, kw_only=True):
    """One request: times on the client's monotonic clock; `chunk_times_s` has one entry a chunk with text. `due_s`:
    when it should have been sent, where its time was decided before. `text`: what was said, where that was kept."""

    start_s: float
    end_s: float
    chunk_times_s: list[float] = []
    prompt_tokens: int = 0
    cached_tokens: int = 0
    completion_tokens: int = 0
    error: str | None = None
    due_s: float | None = None
    text: str = ""

    @property
    def gaps_s(self) -> list[float]:
        """Times between neighbouring chunks: the inter-token latencies."""
        return [b - a for a, b in zip(self.chunk_times_s, self.chunk_times_s[1:], strict=False)]


class LoadResult(msgspec.Struct, frozen=True, kw_only=True):
    """Everything a client process saw of one load; `client_cpu_s` is the processor time it used itself."""

    records: list[Record]
    intruder: Record | None = None
    client_cpu_s: float


class Summary(msgspec.Struct, frozen=True, kw_only=True):
    """The figures of one load. Times are None where no good request carries them."""

    prompt_tokens: int
    completion_tokens: int
    wall_s: float
    tokens_per_s: float
    cached_tokens: int = 0
    requests: int = 0
    requests_per_s: float = 0.0
    latency_p99_s: float | None = None
    errors: int = 0
    first_error: str | None = None
    ttft_median_s: float | None = None
    itl_median_s: float | None = None
    itl_p99_s: float | None = None
    itl_max_s: float | None = None
    chunks_per_token: float = 0.0
    client_cpu_s: float = 0.0


def percentile(values: Iterable[float], percent: float) -> float | None:
    """Linear between the two nearest ranks; None for no values."""
    array = np.fromiter(values, dtype=np.float64)
    return float(np.percentile(array, percent)) if array.size else None


def summarise(result: LoadResult) -> Summary:
    """tokens/s = completion tokens of good requests / (last end - first start), prefill time included."""
    good = [record for record in result.records if record.error is None]
    failed = [record for record in result.records if record.error is not None]
    gaps = [gap for record in good for gap in record.gaps_s]
    tokens = sum(record.completion_tokens for record in good)
    # Failed requests belong to the span too: the server worked on them.
    wall = max(r.end_s for r in result.records) - min(r.start_s for r in result.records)
    chunks = sum(len(record.chunk_times_s) for record in good)
    return Summary(
        requests=len(result.records),
        requests_per_s=len(good) / wall if wall else 0.0,
        latency_p99_s=percentile((record.end_s - record.start_s for record in good), 99),
        errors=len(failed),
        first_error=failed[0].error if failed else None,
        prompt_tokens=sum(record.prompt_tokens for record in good),
        cached_tokens=sum(record.cached_tokens for record in good),
        completion_tokens=tokens,
        wall_s=wall,
        tokens_per_s=tokens / wall if wall else 0.0,
        ttft_median_s=percentile((r.chunk_times_s[0] - r.start_s for r in good if r.chunk_times_s), 50),
        itl_median_s=percentile(gaps, 50),
        itl_p99_s=percentile(gaps, 99),
        itl_max_s=max(gaps, default=None),
        chunks_per_token=chunks / tokens if tokens else 0.0,
        client_cpu_s=result.client_cpu_s,
    )


class Stall(msgspec.Struct, frozen=True):
    """How far an arriving prompt held up running streams."""

    median_step_s: float
    longest_gap_s: float

    @property
    def ratio(self) -> float:
        return self.longest_gap_s / self.median_step_s


def stall(result: LoadResult) -> Stall | None:
    """Median step while every stream runs and the intruder is not there yet; longest gap from its start on.

    None when the intruder or every stream failed, or when the streams did not run on both sides of its start.
    """
    good = [record for record in result.records if record.error is None and record.chunk_times_s]
    if not good or result.intruder is None or result.intruder.error is not None:
        return None
    arrival = result.intruder.start_s
    all_running = max(record.chunk_times_s[0] for record in good)
    before: list[float] = []
    during: list[float] = []
    for record in good:
        for begin, end in zip(record.chunk_times_s, record.chunk_times_s[1:], strict=False):
            if all_running <= begin and end <= arrival:
                before.append(end - begin)
            elif end > arrival and begin < result.intruder.end_s:
                during.append(end - begin)
    return Stall(median(before), max(during)) if before and during else None
