"""The chart of a search: what every student tried gives for the time that it takes."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from matplotlib.axes import Axes

from export.drawing import COLOURS, plain_numbers, svg
from export.report_wording import number, pick, words

_ROLE_OF_RESULT = {"chosen": "student", "dropped": "baseline"}


def frontier_chart(students: Sequence[Any], p50_ms: float | None, max_gap: float | None) -> str | None:
    """Return the students of a search by time and distance from the teacher, the area of a dot being that of its file.

    Those trained to the end are joined where no other is both as fast and better; `p50_ms` and `max_gap` (a fraction)
    bound the shaded corner.
    """
    dots = [dot for student in students if (dot := _dot(student)) is not None]
    if not dots:
        return None

    def draw(axes: Axes) -> None:
        largest = max(dot.size_bytes for dot in dots)
        for dot in dots:
            colour = COLOURS[_ROLE_OF_RESULT.get(dot.result, "fp32")]
            face, area = "none" if dot.result == "dropped" else colour, 20 + 380 * dot.size_bytes / largest
            axes.plot([dot.p50_ms, dot.p50_ms], [dot.low, dot.high], color=colour, linewidth=1.2, alpha=0.5)
            axes.scatter(dot.p50_ms, dot.gap, s=area, facecolor=face, edgecolor=colour, alpha=0.85, zorder=3)
            above = (0, 3 + area**0.5 / 2)
            axes.annotate(dot.name, (dot.p50_ms, dot.gap), xytext=above, textcoords="offset points", ha="center")
        front = _frontier([(dot.p50_ms, dot.gap) for dot in dots if dot.result != "dropped"])
        axes.plot(*zip(*front, strict=True), color=COLOURS["muted"], linewidth=1, zorder=1)
        axes.axhline(0, color=COLOURS["teacher"], linewidth=1, dashes=(3, 2), zorder=0)
        axes.set_xscale("log")
        axes.margins(x=0.12, y=0.15)
        _shade_corner(axes, p50_ms, max_gap)
        plain_numbers(axes.xaxis)
        axes.set_xlabel("milliseconds a text (p50, text in to label out)")
        axes.set_ylabel("points from the teacher, dev")

    return svg("Quality against answer time of the students tried", draw)


@dataclass(frozen=True, slots=True)
class _Dot:
    """A student that was trained: its name, what became of it, and its gap in points."""

    name: str
    result: str
    p50_ms: float
    gap: float
    low: float
    high: float
    size_bytes: float


def _dot(student: Any) -> _Dot | None:
    measured = [number(student, "gap", end) for end in ("estimate", "low", "high")]
    gap, low, high = (100 * end if end is not None else None for end in measured)
    p50_ms, size_bytes = number(student, "p50_ms", "estimate"), number(student, "size_bytes")
    if gap is None or low is None or high is None or p50_ms is None or size_bytes is None:
        return None
    return _Dot(words(pick(student, "name")), words(pick(student, "state")), p50_ms, gap, low, high, size_bytes)


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
