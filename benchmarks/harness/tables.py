"""Results as text for a terminal."""

from collections.abc import Sequence

from benchmarks.harness.measures import FORMULAS, Estimate, Latency
from benchmarks.harness.result import Run


def summary(runs: Sequence[Run]) -> list[list[str]]:
    """A head and a row per run."""
    head = [
        "run",
        "work",
        "tok/s out",
        "tok/s in",
        "TTFT p50 / p99",
        "ITL p50 / p99",
        "E2E p50 / p99",
        "failed",
    ]
    if has_slo := any(run.measures is not None and run.measures.goodput_per_s is not None for run in runs):
        head.append("goodput")
    rows = [head]
    for run in runs:
        m = run.measures
        if m is None:
            rows.append([run.label, run.work, f"failed: {run.failure}", *[""] * (len(head) - 3)])
            continue
        row = [
            run.label + (" (broken off)" if run.is_partial else ""),
            run.work,
            interval(m.output_tokens_per_s),
            f"{m.input_tokens_per_s:.4g}",
            latency(m.ttft),
            latency(m.itl),
            latency(m.e2e),
            f"{m.failed} of {m.requests}",
        ]
        if has_slo:
            row.append("-" if m.goodput_per_s is None else f"{m.goodput_per_s:.3g}/s")
        rows.append(row)
    return rows


def notes(runs: Sequence[Run]) -> list[str]:
    """What a reader must know beside the table: errors, seeds, cache state, how each figure is made."""
    lines = []
    for run in runs:
        plan = run.plan
        lines.append(
            f"{run.label}: {run.work}; seed {plan.seed}, {plan.warm_up} requests of warm-up, SLO {plan.slo}; "
            f"{plan.cache}"
        )
        for error, count in (run.measures.errors if run.measures else {}).items():
            lines.append(f"{run.label}: {count} requests failed with: {error}")
    lines += [f"{name}: {words}" for name, words in FORMULAS.items()]
    return lines


def interval(estimate: Estimate | None, unit: str = "") -> str:
    if estimate is None:
        return "-"
    return f"{estimate.value:.4g}{unit} [{estimate.low:.3g}, {estimate.high:.3g}]"


def latency(found: Latency | None) -> str:
    return "-" if found is None else f"{seconds(found.p50.value)} / {seconds(found.p99.value)}"


def seconds(value: float) -> str:
    return f"{value * 1e3:.3g} ms" if value < 1 else f"{value:.3g} s"
