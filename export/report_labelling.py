"""The tables on labelling: what was asked and why, what was rejected, what it cost, what answers rest on, and what
each member of a committee is worth. Text in, text out, like the other tables.
"""

from collections.abc import Mapping
from typing import Any

from export.report_tables import Table
from export.report_wording import (
    count,
    entries,
    hundredths,
    interval,
    metric_name,
    number,
    percent,
    pick,
    shortened,
    shortest,
    small_dollars,
    small_percent,
    table_of,
    words,
)

Report = Mapping[str, Any]
_SHORT = 160  # characters of a text in a table


def ablation_table(report: Report) -> Table:
    """Return what each member of a committee, their uniform mean and the learned weights are worth."""
    metric = metric_name(pick(report, "ablation", "metric"))
    rows = []
    for entry in entries(report, "ablation", "rows"):
        cells = [words(pick(entry, "name")), shortest(number(entry, "weight")), percent(number(entry, "answered"))]
        for part in ("dev", "test"):
            low, high = (number(entry, f"{part}_{end}") for end in ("low", "high"))
            cells += [percent(number(entry, part)), interval(low, high, hundredths)]
        rows.append((*cells, percent(number(entry, "alone")), percent(number(entry, "together"))))
    columns = (
        *("", "weight", "answered", f"{metric}, dev", "95 % interval", f"{metric}, test", "95 % interval"),
        *("where it answers", "committee there"),
    )
    note = (
        "A row that was not answered counts as wrong. On dev the learned weights are scored on rows they were not "
        "learned on. A weight is the mean over the labels."
    )
    return Table("Committee, member by member", columns, tuple(rows), note if rows else "The teacher is no committee.")


def labelling_table(report: Report) -> Table:
    """Return how many texts were asked about, how surely they were answered, and for how much."""
    labelling = table_of(report, "labelling")
    selection = table_of(labelling, "selection")
    reasons = table_of(labelling, "rejected").values()
    rows = [
        ("texts answered", count(labelling.get("rows"))),
        ("texts rejected", count(sum(amount for amount in reasons if isinstance(amount, int)) if labelling else None)),
        ("test texts rejected", count(labelling.get("rejected_test"))),
        ("how they were answered", words(list(table_of(labelling, "methods")) or None)),
        ("mean mass outside the label set", small_percent(labelling.get("outside"))),
        ("mean disagreement of members, nats", shortest(labelling.get("disagreement"))),
        ("paid for labelling", small_dollars(labelling.get("cost_usd"))),
        ("paid for an answered text", small_dollars(labelling.get("cost_per_row_usd"))),
    ]
    if selection:
        rows += [
            ("texts chosen by", words(selection.get("strategy"))),
            ("texts chosen", count(selection.get("chosen"))),
            ("out of texts without gold", count(selection.get("pool"))),
            ("of which were compared", count(selection.get("candidates"))),
        ]
    return Table("Labelling", ("", ""), tuple(rows))


def rejected_table(report: Report) -> Table:
    """Return how many texts were rejected for which reason, and what the teacher said of some."""
    counts = table_of(report, "labelling", "rejected")
    rows = [(reason, "", "", count(amount)) for reason, amount in counts.items()]
    for entry in entries(report, "labelling", "rejected_examples"):
        text, raw = (shortened(words(pick(entry, name)), _SHORT) for name in ("text", "raw"))
        rows.append((f"{words(pick(entry, 'reason'))}, for example", text, raw or "(nothing)", ""))
    columns = ("reason", "text", "what the teacher said", "texts")
    return Table("Rejected texts", columns, tuple(rows), "" if rows else "None.", text_columns=3)


def sources_table(report: Report) -> Table:
    """Return the gold rows and passages that answers rest on, most used first."""
    sources = table_of(report, "labelling", "sources")
    rows = tuple(
        (words(pick(entry, "id")), shortened(words(pick(entry, "text")), _SHORT), count(pick(entry, "rows")))
        for entry in entries(sources, "most")
    )
    note = (
        f"{count(sources.get('rows'))} answers rest on {count(sources.get('distinct'))} examples and passages."
        if rows
        else "Answers name no sources."
    )
    return Table("Sources of the answers", ("id", "text", "answers"), rows, note, text_columns=2)
