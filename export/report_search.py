"""The report on a search for a student: everyone that was tried, and which one holds the lines.

Text in, text out, like the other tables.
"""

from collections.abc import Mapping
from typing import Any

from export.report_tables import Row, Table
from export.report_wording import (
    count,
    data_size,
    entries,
    interval,
    metric_name,
    milliseconds,
    number,
    percent,
    pick,
    points,
    shortened,
    shortest,
    whole_percent,
    words,
)

Report = Mapping[str, Any]


def search_table(report: Report) -> Table:
    """Return every student tried: time and size of its int8 file, and its quality on dev beside the teacher's."""
    found = entries(report, "search", "students")
    metric = metric_name(pick(report, "search", "metric") or "quality")
    columns = (
        *("student", "result", "of its training", "p50", "95 % interval", "file"),
        *(f"{metric}, dev", "points from the teacher", "95 % interval"),
    )
    return Table("Students tried", columns, tuple(map(_row, found)), search_note(report), text_columns=2)


def search_note(report: Report) -> str:
    """Return the answer of the search and what its noise leaves open."""
    if not entries(report, "search", "students"):
        return "No search was made."
    told = [words(pick(report, "search", "sentence")), *map(words, entries(report, "search", "remarks"))]
    rows, teacher = number(report, "search", "rows"), percent(number(report, "search", "teacher"))
    if rows is not None:
        told.append(
            f"Teacher on the same {count(rows)} dev rows: {teacher}. Dev chose among the students, so quote the gap on "
            "test, which chose nothing"
        )
    return " ".join(f"{sentence}." for sentence in told)


def _row(student: object) -> Row:
    p50_ms, gap = (
        {end: number(student, name, end) for end in ("estimate", "low", "high")} for name in ("p50_ms", "gap")
    )
    return (
        words(pick(student, "name")),
        shortened(words(pick(student, "unfit") or pick(student, "state")), 60),
        whole_percent(pick(student, "share")),
        milliseconds(p50_ms["estimate"]),
        interval(p50_ms["low"], p50_ms["high"], shortest),
        data_size(pick(student, "size_bytes")),
        percent(number(student, "score", "estimate")),
        points(gap["estimate"]),
        interval(gap["low"], gap["high"], points),
    )
