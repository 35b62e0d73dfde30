"""The chart of a search: what every student tried gives for the time that it takes."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from matplotlib.axes import Axes

from export.drawing import COLOURS, plain_numbers, svg
from export.report_wording import number, pick, words

_Box = tuple[float, float, float, float]
_SIZE_INCHES = (6.2, 3.1)
_LARGEST_AREA = 200.0  # of a dot, in square points
_ROLE_OF_RESULT = {"chosen": "student", "dropped": "baseline"}


def frontier_chart(students: Sequence[Any], p50_ms: float | None, max_gap: float | None) -> str | None:
    """Return the students of a search by time and distance from the teacher, the area of a dot being that of its file.

    Those trained to the end are joined where no other is both as fast and better; `p50_ms` and `max_gap` (a fraction)
    bound the shaded corner.
    """
    dots = _dots(students)
    if not dots:
        return None

    def draw(axes: Axes) -> None:
        for dot in dots:
            colour = COLOURS[_ROLE_OF_RESULT.get(dot.result, "fp32")]
            face = "none" if dot.result == "dropped" else colour
            axes.plot([dot.p50_ms, dot.p50_ms], [dot.low, dot.high], color=colour, linewidth=1.2, alpha=0.5)
            axes.scatter(dot.p50_ms, dot.gap, s=dot.area, facecolor=face, edgecolor=colour, alpha=0.85, zorder=3)
        front = _frontier([(dot.p50_ms, dot.gap) for dot in dots if dot.result != "dropped"])
        axes.plot(*zip(*front, strict=True), color=COLOURS["muted"], linewidth=0.8, zorder=1)
        axes.axhline(0, color=COLOURS["teacher"], linewidth=1, dashes=(3, 2), zorder=0)
        axes.set_xscale("log")
        axes.margins(x=0.12, y=0.15)
        _shade_corner(axes, p50_ms, max_gap)
        _name_dots(axes, dots)
        plain_numbers(axes.xaxis)
        axes.set_xlabel("milliseconds a text (p50, text in to label out)")
        axes.set_ylabel("points from the teacher, dev")

    return svg("Quality against answer time of the students tried", draw, _SIZE_INCHES)


@dataclass(frozen=True, slots=True)
class _Dot:
    """A student that was trained: its name, what became of it, its gap in points, and the area it is drawn with."""

    name: str
    result: str
    p50_ms: float
    gap: float
    low: float
    high: float
    area: float


def _dots(students: Sequence[Any]) -> list[_Dot]:
    """Return everyone that was measured; areas, in square points, are in proportion to the bytes of the files."""
    names = (("gap", "estimate"), ("gap", "low"), ("gap", "high"), ("p50_ms", "estimate"), ("size_bytes",))
    found = {index: [number(student, *path) for path in names] for index, student in enumerate(students)}
    known = {index: [value for value in values if value is not None] for index, values in found.items()}
    known = {index: values for index, values in known.items() if len(values) == len(names)}
    largest = max((values[-1] for values in known.values()), default=1.0)
    dots = []
    for index, (gap, low, high, p50_ms, size_bytes) in known.items():
        name, result = (words(pick(students[index], key)) for key in ("name", "state"))
        area = 15 + _LARGEST_AREA * size_bytes / largest
        dots.append(_Dot(name, result, p50_ms, 100 * gap, 100 * low, 100 * high, area))
    return dots


def _frontier(places: Sequence[tuple[float, float]]) -> list[tuple[float, float]]:
    """Return the places (time, quality) to which no other is both as fast and better, the fastest first."""
    front: list[tuple[float, float]] = []
    for place in sorted(places, key=lambda place: (place[0], -place[1])):
        if not front or place[1] > front[-1][1]:
            front.append(place)
    return front


def _shade_corner(axes: Axes, p50_ms: float | None, max_gap: float | None) -> None:
    """Shade what is fast enough and near enough to the teacher, and show where that begins."""
    if p50_ms is None or max_gap is None:
        return
    (left, right), (bottom, top), line = axes.get_xlim(), axes.get_ylim(), -100 * max_gap
    left, right, bottom, top = min(left, p50_ms / 2), max(right, p50_ms * 1.2), min(bottom, 1.2 * line), max(top, 0.5)
    axes.fill_between([left, p50_ms], line, top, color=COLOURS["student"], alpha=0.1, linewidth=0, zorder=0)
    axes.set_xlim(left, right)
    axes.set_ylim(bottom, top)


def _name_dots(axes: Axes, dots: Sequence[_Dot]) -> None:
    """Write each name beside its dot, on the side where it covers least; sizes in points, those of text estimated."""
    (left, right), (bottom, top) = axes.get_xlim(), axes.get_ylim()
    across, up = (0.85 * 72 * inches for inches in _SIZE_INCHES)
    centres = [
        (across * math.log(dot.p50_ms / left) / math.log(right / left), up * (dot.gap - bottom) / (top - bottom))
        for dot in dots
    ]
    taken = [(x, y, dot.area**0.5 / 2, dot.area**0.5 / 2) for (x, y), dot in zip(centres, dots, strict=True)]
    for dot, (x, y) in zip(dots, centres, strict=True):
        radius, half_width, half_height = dot.area**0.5 / 2, 2.3 * len(dot.name), 5.0
        sides = [(0.0, radius + 7), (0.0, -radius - 7), (radius + half_width + 3, 0.0), (-radius - half_width - 3, 0.0)]
        boxes = [(x + aside, y + above, half_width, half_height) for aside, above in sides]
        best = min(range(len(boxes)), key=lambda side: sum(_overlap(boxes[side], other) for other in taken))
        taken.append(boxes[best])
        options: dict[str, Any] = {"textcoords": "offset points", "ha": "center", "va": "center"}
        axes.annotate(dot.name, (dot.p50_ms, dot.gap), xytext=sides[best], **options)


def _overlap(one: _Box, other: _Box) -> float:
    """Return the area that two boxes share, each (x, y, half its width, half its height)."""
    wide, high = (one[2 + axis] + other[2 + axis] - abs(one[axis] - other[axis]) for axis in (0, 1))
    return max(wide, 0.0) * max(high, 0.0)
