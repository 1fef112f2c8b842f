"""`modelyard bench report`: results as one HTML page that needs nothing else: tables, curves, distributions."""

from collections.abc import Callable, Sequence
from pathlib import Path

import jinja2
import msgspec
import numpy as np

from benchmarks.harness.compare import agreement
from benchmarks.harness.measures import FORMULAS, PICKS, Measures
from benchmarks.harness.plots import Series, legend, line_plot
from benchmarks.harness.result import REPEAT, Result, Run
from benchmarks.harness.tables import interval, seconds

POINTS = 120
"""Of a distribution's curve."""


class Cell(msgspec.Struct, frozen=True):
    """A figure as it is shown; `is_best` among the runs of the same work."""

    text: str
    is_best: bool = False


class Column(msgspec.Struct, frozen=True):
    """A figure of the summary. `value` for comparing, None where a run has none."""

    name: str
    value: Callable[[Run], float | None]
    show: Callable[[Run], str]
    is_better_when_less: bool = True


class Plot(msgspec.Struct, frozen=True):
    """A titled SVG with its legend."""

    title: str
    svg: str
    legend: str


def render(results: Sequence[Result]) -> str:
    """The page. Runs of several results are told apart by when they were measured."""
    runs = _labelled(results)
    measured = [run for run in runs if run.measures is not None]
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    works = list(dict.fromkeys(run.work for run in runs))
    columns = [column for column in COLUMNS if any(column.value(run) is not None for run in measured)]
    return environment.get_template("report.html.j2").render(
        results=results,
        columns=[column.name for column in columns],
        groups=[(work, _rows([run for run in runs if run.work == work], columns)) for work in works],
        curves=_curves(measured) + _settings_curves(measured),
        distributions=[(work, _distributions([r for r in measured if r.work == work])) for work in works],
        agreement=agreement(runs),
        failures=[run for run in runs if run.failure],
        errors=[(run, error, count) for run in measured for error, count in _measures(run).errors.items()],
        runs=runs,
        formulas=FORMULAS,
    )


def _labelled(results: Sequence[Result]) -> list[Run]:
    if len(results) == 1:
        return list(results[0].runs)
    return [
        msgspec.structs.replace(run, label=f"{run.label} ({result.started:%m-%d %H:%M:%S})")
        for result in results
        for run in result.runs
    ]


def _measures(run: Run) -> Measures:
    assert run.measures is not None
    return run.measures


def _latency(figure: str, percent: str) -> Column:
    def value(run: Run) -> float | None:
        found = getattr(run.measures, figure.lower(), None)
        return None if found is None else float(getattr(found, percent).value)

    def show(run: Run) -> str:
        found = value(run)
        return "-" if found is None else seconds(found)

    return Column(f"{figure} {percent}", value, show)


def _output(run: Run) -> float | None:
    found = run.measures and run.measures.output_tokens_per_s
    return found.value if found else None


COLUMNS: tuple[Column, ...] = (
    Column(
        "tokens/s out",
        _output,
        lambda run: interval(run.measures.output_tokens_per_s if run.measures else None),
        is_better_when_less=False,
    ),
    *(_latency(figure, percent) for figure in ("TTFT", "ITL", "E2E") for percent in ("p50", "p99")),
    Column(
        "goodput",
        lambda run: run.measures.goodput_per_s if run.measures else None,
        lambda run: (
            f"{run.measures.goodput_per_s:.3g}/s"
            if run.measures and run.measures.goodput_per_s is not None
            else "-"
        ),
        is_better_when_less=False,
    ),
    Column(
        "failed",
        lambda run: run.measures.failed if run.measures else None,
        lambda run: f"{run.measures.failed} of {run.measures.requests}" if run.measures else "-",
    ),
    Column("load", lambda run: run.load_s, lambda run: "-" if run.load_s is None else f"{run.load_s:.1f} s"),
    Column(
        "peak memory",
        lambda run: run.peak_memory_bytes,
        lambda run: "-" if run.peak_memory_bytes is None else f"{run.peak_memory_bytes / 2**20:.0f} MiB",
    ),
    Column(
        "energy",
        lambda run: run.energy_j,
        lambda run: "-" if run.energy_j is None else f"{run.energy_j:.0f} J",
    ),
)


def _rows(runs: Sequence[Run], columns: Sequence[Column]) -> list[tuple[Run, list[Cell]]]:
    """The runs of one work, the best value of each column marked where they differ."""
    best: dict[str, float] = {}
    for column in columns:
        values = [value for run in runs if run.measures and (value := column.value(run)) is not None]
        if len(set(values)) > 1:
            best[column.name] = (min if column.is_better_when_less else max)(values)
    return [
        (run, [Cell(c.show(run), c.name in best and c.value(run) == best[c.name]) for c in columns])
        for run in runs
    ]


def _curves(runs: Sequence[Run]) -> list[Plot]:
    """Figures over load, for mixes that were measured under more than one."""
    plots: list[Plot] = []
    for mix in dict.fromkeys(run.plan.mix for run in runs):
        same = [run for run in runs if run.plan.mix == mix]
        for kind, unit in (("clients", "clients"), ("rate", "requests/s")):
            own = [run for run in same if (run.plan.arrival.rate is None) == (kind == "clients")]
            if len({getattr(run.plan.arrival, kind) for run in own}) < 2:
                continue
            made = (_curve(own, c, kind=kind, title=f"{mix}: {c.name}", unit=unit) for c in COLUMNS[:6])
            plots += [plot for plot in made if plot.svg]
    return plots


def _settings_curves(runs: Sequence[Run]) -> list[Plot]:
    """Throughput over each number that a sweep tried; the key is the last of a run's settings."""
    tried: dict[str, list[tuple[float, float]]] = {}
    for run in runs:
        key, value = next(reversed(run.settings.items()), ("", None))
        speed = _output(run)
        if key and key != REPEAT and speed is not None and isinstance(value, int | float):
            tried.setdefault(key, []).append((float(value), speed))
    return [
        Plot(
            f"tokens/s out by {key}",
            line_plot([Series(key, sorted(points), has_marks=True)], x_label=key, y_label="tokens/s"),
            legend([key]),
        )
        for key, points in tried.items()
        if len(points) > 1
    ]


def _curve(runs: Sequence[Run], column: Column, *, kind: str, title: str, unit: str) -> Plot:
    is_time = column.is_better_when_less
    labels = list(dict.fromkeys(run.label for run in runs))
    series = []
    for label in labels:
        points = [
            (float(getattr(run.plan.arrival, kind)), value * (1e3 if is_time else 1))
            for run in runs
            if run.label == label and (value := column.value(run)) is not None
        ]
        series.append(Series(label, sorted(points), has_marks=True))
    svg = line_plot(series, x_label=unit, y_label="ms" if is_time else "tokens/s")
    return Plot(title, svg, legend(labels))


def _distributions(runs: Sequence[Run]) -> list[Plot]:
    """Which share of the values is at most so large."""
    plots = []
    for figure, pick in PICKS.items():
        series = []
        for run in runs:
            values = [v * 1e3 for one in run.records if one.error is None for v in pick(one)]
            if values:
                shares = np.linspace(0, 100, POINTS)
                at = np.percentile(values, shares)
                series.append(Series(run.label, list(zip(at.tolist(), shares.tolist(), strict=True))))
        svg = line_plot(series, x_label="ms", y_label="% of values", is_log_x=True, y_top=100)
        if svg:
            plots.append(Plot(figure, svg, legend([one.name for one in series])))
    return plots
