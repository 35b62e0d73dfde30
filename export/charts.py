"""The report's charts: every figure that is drawn, from the dictionary that report.json holds to SVG text.

A chart whose data is absent is None.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import FuncFormatter

from export.drawing import COLOURS, plain_numbers, svg
from export.report_wording import CONTENDERS, metric_name, number, percent

_ROLE_OF = {
    "teacher": "teacher",
    "student_int8": "student",
    "student_fp32": "fp32",
    "bundle": "student",
    "other": "teacher",
}
_DASHES = {"student_fp32": (4, 1.5)}  # told apart without colour too


def quality_chart(quality: Mapping[str, Any], metric: str) -> str | None:
    """Return each contender's `metric` as a dot on its 95 % interval; the teacher's as a line."""
    entries = [(name, entry) for name in CONTENDERS if number(entry := quality.get(name), metric) is not None]
    if not entries:
        return None

    def draw(axes: Axes) -> None:
        for row, (name, entry) in enumerate(entries):
            value = 100 * (number(entry, metric) or 0.0)
            low, high = (number(entry, f"{metric}_{end}") for end in ("low", "high"))
            colour = _colour(name)
            if low is not None and high is not None:
                axes.plot(
                    [100 * low, 100 * high],
                    [row, row],
                    color=colour,
                    linewidth=9,
                    alpha=0.3,
                    solid_capstyle="butt",
                )
            axes.plot([value], [row], "o", color=colour, markersize=6)
            axes.annotate(percent(value / 100), (1.02, row), xycoords=("axes fraction", "data"), va="center")
        teacher = number(quality.get("teacher"), metric)
        if teacher is not None:
            axes.axvline(100 * teacher, color=COLOURS["teacher"], linewidth=1, dashes=(3, 2), zorder=0)
        axes.set_yticks(range(len(entries)), [CONTENDERS[name] for name, _ in entries])
        axes.tick_params(axis="y", labelcolor=COLOURS["ink"])
        axes.set_ylim(len(entries) - 0.5, -0.5)
        axes.grid(visible=False, axis="y")
        axes.set_xlabel(f"{metric.replace('_', '-').replace('macro-f1', 'macro-F1')} on test, %")

    return svg("Quality of student, teacher and baselines", draw)


def percentile_chart(curves: Mapping[str, Any], names: Mapping[str, str] = CONTENDERS) -> str | None:
    """Return latency against percentile, both axes logarithmic, the tail spread out on the right."""
    found = _lines(curves, names=names)
    lines = {name: [(p, ms) for p, ms in points if 0 < p < 100] for name, points in found.items()}
    lines = {name: points for name, points in lines.items() if points}
    if not lines:
        return None

    def draw(axes: Axes) -> None:
        for name, points in lines.items():
            tail, milliseconds = [_tail(p) for p, _ in points], [ms for _, ms in points]
            axes.plot(tail, milliseconds, **_line_style(name, names))
        furthest = max(p for points in lines.values() for p, _ in points)
        ticks = [p for p in (1, 50, 75, 90, 95, 99, 99.9) if p <= furthest]
        axes.set_xticks([_tail(p) for p in ticks], [f"p{p:g}" for p in ticks])
        _milliseconds_axis(axes)
        axes.set_xlabel("percentile (p99: 99 of 100 answers are faster)")
        _legend(axes)

    return svg("Latency by percentile", draw)


def tokens_chart(by_tokens: Mapping[str, Any]) -> str | None:
    """Return the median latency against the length of the text in tokens."""
    lines = _lines(by_tokens)
    if not lines:
        return None

    def draw(axes: Axes) -> None:
        for name, points in lines.items():
            tokens, milliseconds = zip(*points, strict=True)
            axes.plot(tokens, milliseconds, marker="o", markersize=3.5, **_line_style(name))
        axes.set_xlim(left=0)
        _milliseconds_axis(axes)
        axes.set_xlabel("tokens in the text")
        _legend(axes)

    return svg("Median latency by length of text", draw)


def load_chart(points: Mapping[str, Any], names: Mapping[str, str]) -> str | None:
    """Return latency against throughput from rows (answers a second, p50, p99 or None), the p99 drawn in dashes."""
    rates = {name: [(rate, p50) for rate, p50, _ in rows] for name, rows in points.items()}
    lines = _lines(rates, names=names)
    tails = _lines({name: [(rate, p99) for rate, _, p99 in rows] for name, rows in points.items()}, names=names)
    if not lines:
        return None

    def draw(axes: Axes) -> None:
        for name, row in lines.items():
            axes.plot(*zip(*row, strict=True), marker="o", markersize=3.5, **_line_style(name, names))
        for name, row in tails.items():
            colour = _colour(name)
            axes.plot(*zip(*row, strict=True), marker="o", markersize=2.5, color=colour, dashes=(3, 1.5), linewidth=1.2)
        axes.set_xscale("log")
        plain_numbers(axes.xaxis)
        _milliseconds_axis(axes)
        axes.set_xlabel("answers a second (solid: p50, dashed: p99)")
        _legend(axes)

    return svg("Latency by throughput", draw)


def reliability_chart(reliability: Mapping[str, Any]) -> str | None:
    """Return how often answers of each confidence are right; the area of a dot grows with its rows."""
    lines = _lines(reliability, width=3)
    if not lines:
        return None

    def draw(axes: Axes) -> None:
        axes.plot([0, 100], [0, 100], color=COLOURS["muted"], linewidth=1, dashes=(2, 2))
        for name, points in lines.items():
            confidence, right, rows = (np.array(column, float) for column in zip(*points, strict=True))
            axes.plot(100 * confidence, 100 * right, **_line_style(name))
            areas = 12 + 130 * rows / max(float(rows.max()), 1.0)
            axes.scatter(100 * confidence, 100 * right, s=areas, color=_colour(name), alpha=0.45, linewidth=0)
        axes.set_xlim(-3, 103)
        axes.set_ylim(-3, 103)
        axes.set_xlabel("confidence of the answers, %")
        axes.set_ylabel("of them right, %")
        _legend(axes)

    return svg("Reliability: confidence against how often it is right", draw)


def calls_chart(curve: Sequence[Any], metric: str) -> str | None:
    """Return what a cheap student reaches with so many teacher calls, in the order in which texts were chosen."""
    points = _points(curve, width=4)
    if len(points) < 2:
        return None
    calls, estimates, lows, highs = (np.array(column, float) for column in zip(*points, strict=True))

    def draw(axes: Axes) -> None:
        axes.fill_between(calls, 100 * lows, 100 * highs, color=COLOURS["student"], alpha=0.2, linewidth=0)
        axes.plot(calls, 100 * estimates, marker="o", markersize=3.5, color=COLOURS["student"])
        axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.0f}"))
        axes.set_xlabel("teacher calls")
        axes.set_ylabel(f"{metric_name(metric)} on test, %")

    return svg("Quality against teacher calls", draw)


def coverage_chart(curve: Sequence[Any], wanted: float | None, coverage: float | None) -> str | None:
    """Return how much of what the student answers alone is right, against how much that is; the promise is marked."""
    points = _points(curve, width=3)
    if len(points) < 2:
        return None

    def draw(axes: Axes) -> None:
        alone, right, _ = (np.array(column, float) for column in zip(*points, strict=True))
        axes.plot(100 * alone, 100 * right, color=COLOURS["student"])
        if wanted is not None:
            axes.axhline(100 * wanted, color=COLOURS["muted"], linewidth=1, dashes=(2, 2), zorder=0)
        _mark(axes, points, coverage)
        axes.set_xlim(0, 103)
        axes.set_xlabel("answered alone, % of test")
        axes.set_ylabel("of them right, %")

    return svg("Accuracy against coverage", draw)


def cascade_chart(curve: Sequence[Any], usd_per_million: float | None, handed: float | None) -> str | None:
    """Return what student and teacher reach together, against what the teacher is paid, or asked when it is free."""
    points = _points(curve, width=2)
    if len(points) < 2:
        return None
    scale, unit = (
        (100, "handed to the teacher, %") if usd_per_million is None else (usd_per_million, "USD, a million texts")
    )

    def draw(axes: Axes) -> None:
        shares, right = (np.array(column, float) for column in zip(*points, strict=True))
        axes.plot(scale * shares, 100 * right, color=COLOURS["student"])
        axes.axhline(100 * right[-1], color=COLOURS["teacher"], linewidth=1, dashes=(3, 2), zorder=0)
        _mark(axes, points, handed, scale)
        low, high = axes.get_ylim()
        axes.set_ylim(min(low, 100 * right.mean() - 1), max(high, 100 * right.mean() + 1))  # no drama out of noise
        axes.set_xlabel(unit)
        axes.set_ylabel("right, %")

    return svg("Money against quality", draw)


def _mark(axes: Axes, points: Sequence[Sequence[float]], place: float | None, scale: float = 100) -> None:
    """Draw a dot on the point of the curve nearest to `place`, where the bundle's threshold lies."""
    if place is not None:
        nearest = min(points, key=lambda point: abs(point[0] - place))
        axes.plot([scale * nearest[0]], [100 * nearest[1]], "o", color=COLOURS["student"], markersize=7)


def _points(curve: Sequence[Any], width: int) -> list[Sequence[float]]:
    """Return the points of one curve, those with absent numbers left out."""
    points = [point for point in curve if len(point) == width]
    return [point for point in points if all(number({"x": x}, "x") is not None for x in point)]


def _lines(
    curves: Mapping[str, Any], width: int = 2, names: Mapping[str, str] = CONTENDERS
) -> dict[str, list[Sequence[float]]]:
    """Return the known contenders' points in a fixed order, points with absent numbers left out."""
    lines = {}
    for name in names:
        if points := _points(curves.get(name) or (), width):
            lines[name] = points
    return lines


def _line_style(name: str, names: Mapping[str, str] = CONTENDERS) -> dict[str, Any]:
    style: dict[str, Any] = {"color": _colour(name), "label": names[name]}
    return style | ({"dashes": _DASHES[name]} if name in _DASHES else {})


def _colour(name: str) -> str:
    return COLOURS[_ROLE_OF.get(name, "baseline")]


def _tail(percentile: float) -> float:
    return float(-np.log10(1 - percentile / 100))


def _milliseconds_axis(axes: Axes) -> None:
    axes.set_yscale("log")
    low, high = axes.get_ylim()
    plain_numbers(axes.yaxis, (1.0,) if high / low > 500 else (1.0, 2.0, 5.0))
    axes.set_ylabel("milliseconds")


def _legend(axes: Axes) -> None:
    axes.legend(loc="lower left", bbox_to_anchor=(-0.02, 1.0), ncols=3, borderaxespad=0, columnspacing=1.4)
