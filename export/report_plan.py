"""The tables of a report that say how the exported file was made: what surgery did, and which variant won."""

from export.report_tables import Report, Row, Table
from export.report_wording import (
    data_size,
    entries,
    milliseconds,
    number,
    pick,
    shortest,
    spaced,
    table_of,
    words,
)


def rewrites_table(report: Report) -> Table:
    """Return every rewrite of the graph, how far it moves a logit, and why one was left out."""
    rows = tuple(
        (
            spaced(pick(rewrite, "name")),
            "applied" if pick(rewrite, "applied") else "left out",
            words(pick(rewrite, "reason") or None),
            shortest(pick(rewrite, "change")),
        )
        for rewrite in entries(report, "export", "rewrites")
    )
    note = "Largest change of a logit on corpus texts, in fp32." if rows else "The graph is as it was traced."
    return Table("Graph surgery", ("rewrite", "result", "reason", "change"), rows, note, text_columns=3)


def variants_table(report: Report) -> Table:
    """Return the variants with their times at the corpus's own lengths, and what kept one from shipping."""
    about = table_of(report, "export")
    variants = entries(report, "export", "variants")
    tokens: list[int] = next((variant["tokens"] for variant in variants if pick(variant, "tokens")), [])
    rows = tuple(_variant_row(variant, len(tokens)) for variant in variants)
    shipped = f"Shipped: {spaced(about.get('variant'))}."
    note = f"{shipped} {_timing_note(report)}" if tokens else f"{shipped} Nothing was timed."
    columns = (
        "variant",
        "gates",
        "failed",
        "preset's time",
        "mean",
        *(f"{length} tokens" for length in tokens),
        "file",
    )
    return Table("Variants", columns, rows, note if rows else "No variant was built.", text_columns=3)


def _timing_note(report: Report) -> str:
    """Return how the variants were timed, and whether that means anything."""
    told = "p50 on one thread by tokens, in turns."
    control = pick(report, "export", "timing", "control")
    if control is None:
        return told
    told += f" The preset took {_ratio(control)} of its own time when it was timed twice"
    if pick(report, "export", "timing", "is_sound"):
        return told + "."
    return told + ": the machine was too busy for these times to mean much, so the preset comes first."


def _ratio(ratio: object) -> str:
    estimate, low, high = (number(ratio, part) for part in ("estimate", "low", "high"))
    return f"{shortest(estimate)} [{shortest(low)}, {shortest(high)}]"


def _variant_row(variant: object, lengths: int) -> Row:
    verdict = pick(variant, "passed")
    taken = pick(variant, "p50_ms") or [None] * lengths
    return (
        spaced(pick(variant, "name")),
        "not judged" if verdict is None else "passed" if verdict else "FAILED",
        words(pick(variant, "reason") or None),
        _ratio(pick(variant, "ratio")),
        milliseconds(number(variant, "mean_ms")),
        *map(milliseconds, taken),
        data_size(number(variant, "bytes")),
    )
