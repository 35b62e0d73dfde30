"""The tables that prove: student against teacher row by row and label by label, and labels that are probably wrong.

Text in, text out, like the other tables.
"""

from collections.abc import Mapping
from typing import Any

from export.report_tables import Table
from export.report_wording import (
    count,
    entries,
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
_SHORT = 200  # characters of a text in a table


def paired_table(report: Report) -> Table:
    """Return McNemar's test of student and teacher on the test rows, how often they agree, and the expected gap."""
    paired = pick(report, "paired")
    rows = (
        ("both right", count(pick(paired, "both_right"))),
        ("student alone right", count(pick(paired, "student_alone"))),
        ("teacher alone right", count(pick(paired, "teacher_alone"))),
        ("both wrong", count(pick(paired, "both_wrong"))),
        ("McNemar's exact test, p", shortest(pick(paired, "p_value"))),
        ("decide alike", percent(pick(paired, "agreement"))),
        ("gap that the teacher expects, points", points(number(paired, "expected_gap"))),
    )
    note = (
        "p: how probable so uneven a share of the rows that one alone gets right would be if both erred equally often. "
        "A large p does not prove that they are equal: the interval of the gap says how far apart they may be. The gap "
        "that the teacher expects is what it gives the student's answers less what it gives its own: no gold is in it, "
        "and less chance."
    )
    return Table("Student and teacher on the same test rows", ("", ""), rows, note)


def recall_table(report: Report) -> Table:
    """Return the recall of both on every label, the greatest loss first."""
    rows = []
    for entry in entries(report, "recall"):
        ours, theirs = number(entry, "recall"), number(entry, "teacher_recall")
        difference = None if ours is None or theirs is None else ours - theirs
        cells = (percent(ours), percent(theirs), points(difference), count(pick(entry, "n")))
        rows.append((words(pick(entry, "label")), *cells))
    columns = ("label", "student's recall", "teacher's recall", "difference, points", "rows")
    return Table("Recall of every label", columns, tuple(rows), "" if rows else "Not measured.")


def label_errors_table(report: Report) -> Table:
    """Return how many labels of each part are probably wrong, and on whose word."""
    rows = tuple(
        (
            words(pick(part, "part")),
            words(pick(part, "probabilities")),
            count(pick(part, "rows")),
            count(pick(part, "suspects")),
        )
        for part in entries(report, "label_errors", "parts")
    )
    note = (
        "Confident learning (Northcutt et al. 2021) on probabilities of models that did not see the row. "
        "A suspect is worth a look and no more; nothing here changed a label. All of them: label_errors.csv."
    )
    columns = ("part", "judged by", "rows judged", "suspects")
    return Table("Labels that are probably wrong", columns, rows, note if rows else "Not looked for.", text_columns=2)


def suspects_table(report: Report) -> Table:
    """Return the surest suspects of each part."""
    rows = tuple(
        (
            shortened(words(pick(row, "text")), _SHORT),
            words(pick(row, "part")),
            words(pick(row, "given")),
            words(pick(row, "suggested")),
            whole_percent(pick(row, "given_probability")),
            whole_percent(pick(row, "suggested_probability")),
        )
        for row in entries(report, "label_errors", "rows")
    )
    columns = ("text", "part", "given", "suggested", "given label's probability", "suggested one's")
    return Table("The surest suspects", columns, rows, "" if rows else "None.", text_columns=4)
