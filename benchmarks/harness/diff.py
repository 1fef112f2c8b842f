"""`modelyard bench diff`: what became slower or quicker between two results, beyond the noise."""

from collections.abc import Iterator, Sequence

import msgspec

from benchmarks.harness.measures import PICKS, Estimate, Pick, ratio
from benchmarks.harness.result import Result, Run
from benchmarks.harness.tables import interval, seconds
from benchmarks.measure import Record


class Change(msgspec.Struct, frozen=True, kw_only=True):
    """One figure of one run, before and after. `times` is after / before with its interval; `is_better_when_less`
    for latencies."""

    run: str
    figure: str
    before: str
    after: str
    times: Estimate
    is_better_when_less: bool
    tolerance: float

    @property
    def is_regression(self) -> bool:
        worse = self.times if self.is_better_when_less else _inverse(self.times)
        return worse.low > 1 and worse.value > 1 + self.tolerance

    @property
    def is_improvement(self) -> bool:
        better = _inverse(self.times) if self.is_better_when_less else self.times
        return better.low > 1 and better.value > 1 + self.tolerance

    @property
    def verdict(self) -> str:
        if self.is_regression:
            return "REGRESSION"
        return "better" if self.is_improvement else "within the noise"

    def row(self) -> list[str]:
        return [self.run, self.figure, self.before, self.after, interval(self.times, "x"), self.verdict]


def compare_results(before: Result, after: Result, *, tolerance: float) -> list[Change]:
    """Every figure of the runs that both have: the same label and work."""
    olds = {(run.label, run.work): run for run in before.runs if run.measures is not None}
    pairs = [
        (old, run)
        for run in after.runs
        if run.measures is not None and (old := olds.get((run.label, run.work))) is not None
    ]
    return [change for old, new in pairs for change in _changes(old, new, tolerance)]


def _changes(old: Run, new: Run, tolerance: float) -> Iterator[Change]:
    assert old.measures is not None and new.measures is not None
    name = f"{new.label}: {new.work}"
    was, now = old.measures.output_tokens_per_s, new.measures.output_tokens_per_s
    if was is not None and now is not None and was.low > 0:
        yield Change(
            run=name,
            figure="tokens/s out",
            before=f"{was.value:.4g}",
            after=f"{now.value:.4g}",
            # The extremes of both intervals: wider than it need be, so that noise is no regression.
            times=Estimate(now.value / was.value, now.low / was.high, now.high / was.low),
            is_better_when_less=False,
            tolerance=tolerance,
        )
    for figure, pick in PICKS.items():
        olds, news = _values(old.records, pick), _values(new.records, pick)
        times = ratio(olds, news)
        if times is None:
            continue
        latencies = [getattr(m, figure.lower()) for m in (old.measures, new.measures)]
        yield Change(
            run=name,
            figure=f"{figure} p50",
            before=seconds(latencies[0].p50.value),
            after=seconds(latencies[1].p50.value),
            times=times,
            is_better_when_less=True,
            tolerance=tolerance,
        )


def _values(records: Sequence[Record], pick: Pick) -> list[Sequence[float]]:
    return [values for one in records if one.error is None and (values := pick(one))]


def _inverse(estimate: Estimate) -> Estimate:
    return Estimate(1 / estimate.value, 1 / max(estimate.high, 1e-12), 1 / max(estimate.low, 1e-12))
