"""Figures with targets: what was measured, beside what, whether that is enough; and their table."""

from collections.abc import Callable, Mapping, Sequence
from statistics import median

import msgspec

from benchmarks.measure import Summary


class Target(msgspec.Struct, frozen=True):
    """A limit on a figure's ratio; `at_least` unless `at_most`."""

    limit: float
    is_at_most: bool = False

    def is_met_by(self, ratio: float) -> bool:
        return ratio <= self.limit if self.is_at_most else ratio >= self.limit

    def __str__(self) -> str:
        return f"{'<=' if self.is_at_most else '>='} {self.limit:g}"


class Figure(msgspec.Struct, frozen=True, kw_only=True):
    """One line of the table. Without a ratio or a target nothing was measured, and `notes` say why."""

    name: str
    target: Target | None = None
    ours: str = "-"
    other: str = "-"
    ratio: float | None = None
    notes: list[str] = []
    samples: dict[str, list[Summary]] = {}

    @property
    def is_met(self) -> bool:
        return self.ratio is not None and self.target is not None and self.target.is_met_by(self.ratio)

    @property
    def verdict(self) -> str:
        if self.ratio is None:
            return "not measured"
        return "met" if self.is_met else "MISSED"


def compare(
    name: str,
    samples: Mapping[str, Sequence[Summary]],
    *,
    pair: tuple[str, str],
    pick: Callable[[Summary], float | None],
    unit: str,
    target: Target,
    less_is_better: bool = False,
) -> Figure:
    """The medians of the `pair` (ours, other), and the median of the ratios of their paired repeats.

    The ratio is ours / other, or other / ours where less is better, so that more is always better. Failed
    requests make the figure unmeasured when none succeeded; otherwise they are counted in its notes.
    """
    ours, other = ([pick(summary) for summary in samples[system]] for system in pair)
    kept = {system: list(samples[system]) for system in pair}
    pairs = [(a, b) for a, b in zip(ours, other, strict=True) if a and b]
    notes = _notes(kept)
    if not pairs:
        return Figure(name=name, target=target, notes=notes or ["no values"], samples=kept)
    ratio = median(b / a if less_is_better else a / b for a, b in pairs)
    return Figure(
        name=name,
        target=target,
        ours=f"{median(a for a, _ in pairs):.4g} {unit}",
        other=f"{median(b for _, b in pairs):.4g} {unit} ({pair[1]})",
        ratio=ratio,
        notes=notes,
        samples=kept,
    )


def table(figures: Sequence[Figure]) -> str:
    """A Markdown table, its notes below it."""
    rows = [["figure", "Modelyard", "compared with", "ratio", "target", "verdict"]]
    for figure in figures:
        ratio = "-" if figure.ratio is None else f"{figure.ratio:.3g}"
        target = "-" if figure.target is None else str(figure.target)
        rows.append([figure.name, figure.ours, figure.other, ratio, target, figure.verdict])
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    rows.insert(1, ["-" * width for width in widths])
    lines = [
        "| " + " | ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) + " |"
        for row in rows
    ]
    notes = [f"- {figure.name}: {note}" for figure in figures for note in figure.notes]
    return "\n".join([*lines, *([""] if notes else []), *notes])


def _notes(samples: Mapping[str, Sequence[Summary]]) -> list[str]:
    notes = []
    for system, summaries in samples.items():
        if errors := sum(summary.errors for summary in summaries):
            total = sum(summary.requests for summary in summaries)
            first = next(summary.first_error for summary in summaries if summary.first_error)
            notes.append(f"{system}: {errors} of {total} requests failed, the first with: {first}")
        if any(abs(summary.chunks_per_token - 1) > 0.02 for summary in summaries if summary.ttft_median_s):
            notes.append(f"{system}: chunks are not tokens, so its token times are not comparable")
    work = {
        system: [(summary.prompt_tokens, summary.completion_tokens) for summary in summaries]
        for system, summaries in samples.items()
    }
    if len({tuple(counts) for counts in work.values()}) > 1:
        notes.append(f"the systems did different work (prompt and completion tokens): {work}")
    return notes
