"""Line plots as SVG text, for a page that needs nothing else. Sizes are in the units of the view box."""

import math
from collections.abc import Sequence
from html import escape

import msgspec

WIDTH, HEIGHT = 640, 300
_LEFT, _RIGHT, _TOP, _BOTTOM = 58, 12, 12, 44
COLOURS = ("#2563eb", "#dc2626", "#059669", "#d97706", "#7c3aed", "#0891b2", "#be185d", "#4d7c0f")
"""By a series' place; further ones begin anew with other strokes."""
_DASHES = ("", "7 4", "2 3")


class Series(msgspec.Struct, frozen=True):
    """One line: its name and its points, in order."""

    name: str
    points: Sequence[tuple[float, float]]
    has_marks: bool = False


def line_plot(
    series: Sequence[Series],
    *,
    x_label: str,
    y_label: str,
    is_log_x: bool = False,
    y_top: float | None = None,
) -> str:
    """An SVG of the series on common axes, from zero on unless logarithmic. Empty where there are no points."""
    points = [point for one in series for point in one.points]
    if not points:
        return ""
    xs = [x for x, _ in points if x > 0 or not is_log_x]
    if not xs:
        return ""
    x_axis = _log_axis(min(xs), max(xs)) if is_log_x else _axis(0.0, max(xs))
    y_axis = _axis(0.0, y_top if y_top is not None else max(y for _, y in points))
    parts = [
        f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{escape(y_label)} over {escape(x_label)}">'
    ]
    parts += _grid(x_axis, y_axis, x_label, y_label)
    for place, one in enumerate(series):
        parts += _line(one, place, x_axis, y_axis)
    parts.append("</svg>")
    return "".join(parts)


def legend(names: Sequence[str]) -> str:
    """The names with the strokes that `line_plot` draws them in."""
    items = []
    for place, name in enumerate(names):
        colour, dash = _stroke(place)
        items.append(
            f'<span class="key"><svg viewBox="0 0 24 8" width="24" height="8"><line x1="0" y1="4" x2="24" y2="4" '
            f'stroke="{colour}" stroke-width="3" stroke-dasharray="{dash}"/></svg> {escape(name)}</span>'
        )
    return "".join(items)


class _Axis(msgspec.Struct, frozen=True):
    low: float
    high: float
    ticks: tuple[float, ...]
    is_log: bool = False

    def share(self, value: float) -> float:
        """Where a value lies between the ends, 0 to 1."""
        if self.is_log:
            value = max(value, self.low)
            return math.log(value / self.low) / math.log(self.high / self.low)
        return (value - self.low) / (self.high - self.low)


def _axis(low: float, high: float) -> _Axis:
    span = (high - low) or 1.0
    step = 10 ** math.floor(math.log10(span / 4))
    step *= next(times for times in (1, 2, 5, 10) if span / (step * times) <= 5)
    count = math.ceil(span / step - 1e-9)
    return _Axis(low, low + count * step, tuple(low + i * step for i in range(count + 1)))


def _log_axis(low: float, high: float) -> _Axis:
    first, last = math.floor(math.log10(low)), math.ceil(math.log10(high))
    last = max(last, first + 1)
    return _Axis(10.0**first, 10.0**last, tuple(10.0**power for power in range(first, last + 1)), is_log=True)


def _place(x_axis: _Axis, y_axis: _Axis, x: float, y: float) -> tuple[float, float]:
    across, up = WIDTH - _LEFT - _RIGHT, HEIGHT - _TOP - _BOTTOM
    return _LEFT + across * x_axis.share(x), HEIGHT - _BOTTOM - up * min(1.0, y_axis.share(y))


def _grid(x_axis: _Axis, y_axis: _Axis, x_label: str, y_label: str) -> list[str]:
    parts = []
    for tick in y_axis.ticks:
        _, y = _place(x_axis, y_axis, x_axis.low, tick)
        parts.append(f'<line class="grid" x1="{_LEFT}" x2="{WIDTH - _RIGHT}" y1="{y:.1f}" y2="{y:.1f}"/>')
        parts.append(f'<text x="{_LEFT - 6}" y="{y + 4:.1f}" text-anchor="end">{tick:.4g}</text>')
    for tick in x_axis.ticks:
        x, _ = _place(x_axis, y_axis, tick, y_axis.low)
        parts.append(f'<line class="grid" y1="{_TOP}" y2="{HEIGHT - _BOTTOM}" x1="{x:.1f}" x2="{x:.1f}"/>')
        parts.append(f'<text x="{x:.1f}" y="{HEIGHT - _BOTTOM + 16}" text-anchor="middle">{tick:.4g}</text>')
    middle = _LEFT + (WIDTH - _LEFT - _RIGHT) / 2
    parts.append(f'<text x="{middle}" y="{HEIGHT - 8}" text-anchor="middle">{escape(x_label)}</text>')
    half = (HEIGHT - _BOTTOM + _TOP) / 2
    parts.append(
        f'<text x="14" y="{half}" text-anchor="middle" transform="rotate(-90 14 {half})">{escape(y_label)}</text>'
    )
    return parts


def _line(series: Series, place: int, x_axis: _Axis, y_axis: _Axis) -> list[str]:
    colour, dash = _stroke(place)
    spots = [_place(x_axis, y_axis, x, y) for x, y in series.points if x > 0 or not x_axis.is_log]
    path = " ".join(f"{x:.1f},{y:.1f}" for x, y in spots)
    parts = [
        f'<polyline points="{path}" fill="none" stroke="{colour}" stroke-width="2" stroke-dasharray="{dash}">'
        f"<title>{escape(series.name)}</title></polyline>"
    ]
    if series.has_marks:
        parts += [f'<circle cx="{x:.1f}" cy="{y:.1f}" r="3.5" fill="{colour}"/>' for x, y in spots]
    return parts


def _stroke(place: int) -> tuple[str, str]:
    return COLOURS[place % len(COLOURS)], _DASHES[place // len(COLOURS) % len(_DASHES)]


class Ratio(msgspec.Struct, frozen=True):
    """A ratio and its interval; the same numbers where there is none."""

    value: float
    low: float
    high: float


class RatioRow(msgspec.Struct, frozen=True):
    """A line of `ratio_plot`: its label, and a ratio for each name, None where there is none."""

    label: str
    ratios: Sequence[Ratio | None]


_ROW, _LABELS, _HEAD, _FOOT = 34, 270, 62, 44
_LOOKS = """
.page{fill:#ffffff;stroke:#d0d7de}text{fill:#1f2328;font:13px system-ui,sans-serif}
.grid{stroke:#d8dee4}.even{stroke:#1f2328;stroke-dasharray:4 3}.title{font-weight:600}
.s0{stroke:#2563eb;fill:#2563eb}.s1{stroke:#d97706;fill:#d97706}
@media (prefers-color-scheme:dark){.page{fill:#0d1117;stroke:#30363d}text{fill:#e6edf3}.grid{stroke:#262c36}
.even{stroke:#e6edf3}.s0{stroke:#60a5fa;fill:#60a5fa}.s1{stroke:#fbbf24;fill:#fbbf24}}
"""
"""A picture brings its own ground, so that it can be read on a page of either kind."""


def ratio_plot(rows: Sequence[RatioRow], *, names: Sequence[str], title: str) -> str:
    """A whole SVG file: a row each, a mark and its interval for each of at most two names, on a logarithmic axis with a
    line where both are even. Marks right of it are better. Empty where there is nothing to draw."""
    found = [one for row in rows for one in row.ratios if one is not None and one.value > 0]
    if not found:
        return ""
    ticks = _ratio_ticks(min(1.0, *(one.low for one in found)), max(1.0, *(one.high for one in found)))
    axis = _Axis(ticks[0], ticks[-1], ticks, is_log=True)
    width, height = 820, _HEAD + _ROW * len(rows) + _FOOT

    def x(value: float) -> float:
        return _LABELS + (width - _LABELS - 30) * axis.share(value)

    bottom = height - _FOOT
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" role="img" '
        f'aria-label="{escape(title)}"><style>{_LOOKS}</style>',
        f'<rect class="page" x="0.5" y="0.5" width="{width - 1}" height="{height - 1}" rx="6"/>',
        f'<text class="title" x="16" y="26">{escape(title)}</text>',
    ]
    for place, name in enumerate(names):
        at = _LABELS + 40 + 130 * place
        parts.append(_mark(place, at, 44) + f'<text x="{at + 12}" y="48">{escape(name)}</text>')
    for tick in ticks:
        kind = "even" if tick == 1 else "grid"
        parts.append(
            f'<line class="{kind}" x1="{x(tick):.1f}" x2="{x(tick):.1f}" y1="{_HEAD}" y2="{bottom}"/>'
            f'<text x="{x(tick):.1f}" y="{bottom + 18}" text-anchor="middle">{tick:g}x</text>'
        )
    for number, row in enumerate(rows):
        middle = _HEAD + _ROW * (number + 0.5)
        parts.append(
            f'<text x="{_LABELS - 14}" y="{middle + 4}" text-anchor="end">{escape(row.label)}</text>'
        )
        for place, one in enumerate(row.ratios):
            if one is None or one.value <= 0:
                continue
            y = middle + (-6 if place == 0 else 6)
            parts.append(
                f'<g><title>{escape(names[place])}: {one.value:.3g}</title><line class="s{place}" stroke-width="2" '
                f'x1="{x(one.low):.1f}" x2="{x(one.high):.1f}" y1="{y}" y2="{y}"/>{_mark(place, x(one.value), y)}</g>'
            )
    parts.append(f'<text x="{_LABELS}" y="{height - 8}">right of 1x: Modelyard is better</text></svg>\n')
    return "".join(parts)


def _mark(place: int, x: float, y: float) -> str:
    if place == 0:
        return f'<circle class="s0" cx="{x:.1f}" cy="{y}" r="4.5"/>'
    return f'<rect class="s1" x="{x - 4:.1f}" y="{y - 4}" width="8" height="8"/>'


def _ratio_ticks(low: float, high: float) -> tuple[float, ...]:
    """Round numbers from below `low` to above `high`, with 1 among them."""
    near = (0.1, 0.2, 0.5, 0.8, 1.0, 1.25, 1.5, 2.0, 3.0, 5.0, 10.0)
    far = tuple(times * 10.0**power for power in range(1, 6) for times in (2, 5, 10))
    steps = (*(1 / one for one in reversed(far)), *near, *far)
    first = max((one for one in steps if one <= low), default=steps[0])
    last = min((one for one in steps if one >= high and one > 1), default=steps[-1])
    within = [one for one in steps if first <= one <= last]
    if len(within) > 9:
        within = [one for one in within if one in (first, last) or one not in (0.8, 1.25, 1.5, 3.0)]
    return tuple(within)
