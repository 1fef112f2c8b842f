"""Ratios of paired repeats, and the rows of the table. Values only.

A ratio is Modelyard's figure by the peer's, turned where less is better: more than 1 is for Modelyard everywhere. It is
the median of the ratios of paired repeats; its interval of 95 % is by bootstrap over the pairs, and there is none of
fewer than three.
"""

from collections.abc import Callable, Sequence
from statistics import median

import msgspec
import numpy as np

from benchmarks.harness.measures import RESAMPLES, Estimate, Measures
from benchmarks.harness.result import REPEAT, Result, Run
from benchmarks.peers.measuring import OURS

LEAST_PAIRS = 3

Pick = Callable[[Measures], float | None]


class Paired(msgspec.Struct, frozen=True):
    """A figure of both, by medians of the repeats, and their ratio."""

    ours: float
    theirs: float
    times: Estimate

    @property
    def is_sure(self) -> bool:
        """Whether there were enough pairs for an interval."""
        return self.times.low < self.times.high


class Row(msgspec.Struct, frozen=True, kw_only=True):
    """A peer under one load, or a peer that failed and why. None: no request carries the figure."""

    peer: str
    work: str = ""
    clients: int = 0
    tokens_per_s: Paired | None = None
    ttft_s: Paired | None = None
    tpot_s: Paired | None = None
    failed: int = 0
    failure: str = ""

    @property
    def ratio(self) -> float:
        return self.tokens_per_s.times.value if self.tokens_per_s else 0.0


def rows(peer: str, result: Result) -> list[Row]:
    """The rows of one peer, in the order in which its loads were measured, and one that says why where it failed."""
    measured = [run for run in result.runs if not run.failure]
    works = list(dict.fromkeys(run.work for run in measured))
    made = [_row(peer, [run for run in measured if run.work == work]) for work in works]
    failures = [Row(peer=peer, failure=run.failure) for run in result.runs if run.failure]
    return [row for row in made if row.tokens_per_s] + failures


def equal_answers(result: Result) -> str:
    """How many of the checked answers were the same; empty where none were."""
    said = [run.outputs for run in result.runs if run.outputs]
    if len(said) < 2:
        return ""
    first, second = said[:2]
    return f"{sum(a == b for a, b in zip(first, second, strict=True))} of {len(first)}"


def paired(pairs: Sequence[tuple[float, float]], *, is_better_when_less: bool) -> Paired | None:
    """None for no pairs. `pairs` are (ours, theirs), one of each repeat."""
    if not pairs:
        return None
    ratios = np.asarray([b / a if is_better_when_less else a / b for a, b in pairs])
    value = float(np.median(ratios))
    low = high = value
    if len(ratios) >= LEAST_PAIRS:
        drawn = np.random.default_rng(0).choice(ratios, size=(RESAMPLES, len(ratios)))
        low, high = (float(one) for one in np.percentile(np.median(drawn, axis=1), (2.5, 97.5)))
    return Paired(median(a for a, _ in pairs), median(b for _, b in pairs), Estimate(value, low, high))


def _row(peer: str, runs: Sequence[Run]) -> Row:
    ours = {run.settings[REPEAT]: run.measures for run in runs if run.label == OURS}
    theirs = {run.settings[REPEAT]: run.measures for run in runs if run.label != OURS}

    def both(pick: Pick, *, is_better_when_less: bool = True) -> Paired | None:
        found = []
        for repeat, mine in ours.items():
            other = theirs.get(repeat)
            if mine and other and (a := pick(mine)) and (b := pick(other)):
                found.append((a, b))
        return paired(found, is_better_when_less=is_better_when_less)

    return Row(
        peer=peer,
        work=runs[0].plan.mix,
        clients=runs[0].plan.arrival.clients,
        tokens_per_s=both(
            lambda m: m.output_tokens_per_s.value if m.output_tokens_per_s else None,
            is_better_when_less=False,
        ),
        ttft_s=both(lambda m: m.ttft.p50.value if m.ttft else None),
        tpot_s=both(lambda m: m.tpot.p50.value if m.tpot else None),
        failed=sum(run.measures.failed for run in runs if run.measures),
    )
