"""The report on doubtful texts: what the bundle promises of the answers it gives alone, and what a cascade costs.

Text in, text out, like the other tables.
"""

from collections.abc import Mapping
from typing import Any

from export.report_tables import Table
from export.report_wording import (
    DASH,
    count,
    entries,
    hundredths,
    interval,
    number,
    percent,
    pick,
    shortest,
    small_dollars,
)

Report = Mapping[str, Any]


def abstain_table(report: Report) -> Table:
    """Return the promise and its threshold from dev, what it came to on test, and the price of the rest."""
    promise, test = pick(report, "abstain"), pick(report, "abstain", "test")
    right = percent(pick(test, "accuracy"))
    if right != DASH:
        right += f" {interval(pick(test, 'accuracy_low'), pick(test, 'accuracy_high'), hundredths)}"
    rows = (
        ("promised accuracy of what is answered alone", percent(pick(promise, "accuracy"))),
        ("how sure the promise is", percent(pick(promise, "level"))),
        ("threshold on the certainty, from dev", shortest(pick(promise, "threshold"))),
        ("dev rows it was proved on", count(pick(promise, "rows"))),
        ("answered alone, dev", percent(pick(promise, "coverage")) if _is_kept(report) else percent(None)),
        ("answered alone, test", percent(pick(test, "coverage"))),
        ("of them right, test", right),
        ("student and teacher together, test", percent(together(report))),
        ("paid to the teacher for a million texts", small_dollars(_price(report, handed(report)))),
    )
    return Table("Answered alone", ("", ""), rows, "" if _is_kept(report) else _unkept(report))


def scope_table(report: Report) -> Table:
    """Return the threshold below which a text is taken to be about something else, and what it costs."""
    scope, test = pick(report, "scope"), pick(report, "scope", "test")
    rows = (
        ("kept of the right answers, dev", percent(pick(scope, "keep"))),
        ("threshold on the familiarity, from dev", shortest(pick(scope, "threshold"))),
        ("kept, dev", percent(pick(scope, "kept"))),
        ("kept, test", percent(pick(test, "kept"))),
        ("accuracy on test when the rest counts as wrong", percent(pick(test, "accuracy"))),
    )
    note = "Every test text is about one of the labels: how many others are found is not measured here."
    return Table("About something else?", ("", ""), rows, note)


def handed(report: Report) -> float | None:
    """Return the share of test texts that stand below the threshold, None without one."""
    coverage = number(report, "abstain", "test", "coverage")
    return None if coverage is None else 1 - coverage


def together(report: Report) -> float | None:
    """Return the accuracy of student and teacher together at the threshold of the bundle, None without one."""
    share = handed(report)
    points = [point for point in entries(report, "abstain", "cascade") if len(point) == 2]
    if share is None or not points:
        return None
    return number({"found": min(points, key=lambda point: abs(point[0] - share))[1]}, "found")


def price_per_million(report: Report) -> float | None:
    """Return what the teacher takes for a million texts in USD, None for one that sends no bill."""
    price = number(report, "labelling", "cost_per_row_usd")
    return None if not price else price * 1e6


def _price(report: Report, share: float | None) -> float | None:
    price = price_per_million(report)
    return None if price is None or share is None else price * share


def _is_kept(report: Report) -> bool:
    return number(report, "abstain", "threshold") is not None


def _unkept(report: Report) -> str:
    if number(report, "abstain", "accuracy") is None:
        return "The bundle promises nothing."
    return (
        "No threshold keeps the promise on these dev rows: lower export.abstain.accuracy, or give more dev rows. "
        "A server cannot abstain with this bundle."
    )
