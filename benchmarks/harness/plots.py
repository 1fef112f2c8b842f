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
