"""The tables of a report, formatted once for every renderer: text in, text out, no markup.

A table keeps its columns when figures are absent (they become dashes); a table without rows says so in its
note.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from export.report_verdict import headline_metric
from export.report_wording import (
    CONTENDERS,
    count,
    data_size,
    dollars,
    entries,
    hundredths,
    interval,
    metric_name,
    milliseconds,
    number,
    parameters,
    percent,
    pick,
    points,
    seconds,
    shortened,
    shortest,
    small_percent,
    spaced,
    table_of,
    times,
    whole_percent,
    words,
)

WORST_CLASSES_SHOWN = 20
DISAGREEMENTS_SHOWN = 40
_LEAKS_SHOWN = 5

Report = Mapping[str, Any]
Row = tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Table:
    """A titled table of finished cells. `text_columns` leading columns are text, the rest are figures."""

    title: str
    columns: Row
    rows: tuple[Row, ...]
    note: str = ""
    text_columns: int = 1


@dataclass(frozen=True, slots=True)
class Disagreement:
    """A text that teacher and student label differently; probabilities are those of each one's own label."""

    text: str
    gold: str
    teacher: str
    student: str
    teacher_probability: str
    student_probability: str


def quality_table(report: Report) -> Table:
    """Return every contender's quality on test; those not measured stay visible as dashes."""
    rows = []
    for name, title in CONTENDERS.items():
        entry = pick(report, "quality", name)
        cells = []
        for metric in ("accuracy", "macro_f1"):
            low, high = (number(entry, f"{metric}_{end}") for end in ("low", "high"))
            cells += [percent(number(entry, metric)), interval(low, high, hundredths)]
        rows.append((title, *cells, percent(number(entry, "ece")), count(number(entry, "n"))))
    gap = table_of(report, "gap")
    note = "ECE: expected calibration error. Intervals: 95 %, bootstrap over test rows."
    if number(gap, "estimate") is not None:
        ends = interval(gap.get("low"), gap.get("high"), points)
        measure = metric_name(gap.get("metric") or headline_metric(report))
        note = f"Student minus teacher: {points(gap['estimate'])} points of {measure} {ends}, paired. {note}"
    columns = ("", "accuracy", "95 % interval", "macro-F1", "95 % interval", "ECE", "rows")
    return Table("Quality on test", columns, tuple(rows), note)


def latency_table(report: Report) -> Table:
    """Return the percentiles of one text in, one label out, and how much of it to believe."""
    rows = []
    for name in ("student_int8", "student_fp32", "teacher"):
        entry = pick(report, "latency", name)
        cells = (milliseconds(number(entry, f"{percentile}_ms")) for percentile in ("p50", "p90", "p99"))
        rows.append((CONTENDERS[name], *cells, count(number(entry, "n")), count(number(entry, "threads"))))
    latency = table_of(report, "latency")
    speedup = interval(latency.get("speedup_low"), latency.get("speedup_high"), times)
    control = interval(latency.get("control_low"), latency.get("control_high"), shortest)
    note = (
        f"Speed-up at p50: {times(latency.get('speedup_p50'))} {speedup}. A/A control: {control}, sound "
        "when it holds 1. A dash for a percentile means too few answers to state it with 99 % confidence."
    )
    columns = ("", "p50", "p90", "p99", "answers", "threads")
    return Table("Latency, one text in to one label out", columns, tuple(rows), note)


def size_table(report: Report) -> Table:
    """Return parameters, bytes and vocabulary."""
    size, vocabulary = table_of(report, "size"), table_of(report, "vocabulary")
    rows = (
        ("parameters, teacher", parameters(size.get("teacher_parameters"))),
        ("parameters, student", parameters(size.get("student_parameters"))),
        ("model file", data_size(size.get("model_bytes"))),
        ("model file, fp32", data_size(size.get("fp32_bytes"))),
        ("whole bundle", data_size(size.get("bundle_bytes"))),
        ("smaller than the teacher", times(size.get("ratio"))),
        ("tokens, teacher", count(vocabulary.get("before"))),
        ("tokens with an embedding of their own", count(vocabulary.get("after"))),
        ("texts with a token that has none, corpus", small_percent(vocabulary.get("changed_corpus"))),
        ("texts with a token that has none, held out", small_percent(vocabulary.get("changed_heldout"))),
    )
    return Table("Size", ("", ""), rows)


def running_table(report: Report) -> Table:
    """Return cold start, memory and cost."""
    cold, cost = table_of(report, "cold_start"), table_of(report, "cost")
    rows = (
        ("cold start: import", seconds(cold.get("import_s"))),
        ("cold start: load", seconds(cold.get("load_s"))),
        ("cold start: first answer", seconds(cold.get("first_answer_s"))),
        ("cold start: total", seconds(cold.get("total_s"))),
        ("resident memory", data_size(_scaled(number(cold, "resident_mb"), 1e6))),
        ("teacher, paid so far", dollars(cost.get("teacher_usd"))),
        ("student, a million texts", dollars(cost.get("per_million_usd"))),
        ("texts until it has paid off", count(cost.get("break_even"))),
    )
    return Table("Start and cost", ("", ""), rows)


def gates_table(report: Report) -> Table:
    """Return what the exported file had to pass."""
    rows = tuple(
        (
            spaced(pick(gate, "name")),
            "passed" if pick(gate, "passed") else "FAILED",
            words(pick(gate, "detail") or None),
            shortest(pick(gate, "value")),
            shortest(pick(gate, "limit")),
        )
        for gate in entries(report, "gates")
    )
    note = "" if rows else "No gate was run."
    return Table("Gates", ("gate", "result", "detail", "value", "limit"), rows, note, text_columns=3)


def gold_table(report: Report) -> Table:
    """Return every gold label used anywhere."""
    gold = table_of(report, "gold")
    rows = (
        ("gold rows that shaped the teacher", count(gold.get("teacher"))),
        ("gold rows that shaped the student", count(gold.get("student"))),
        ("dev rows among them (choose, calibrate)", count(gold.get("dev"))),
        ("texts in the pool", count(gold.get("pool"))),
        ("gold as a share of the pool", percent(gold.get("share"))),
    )
    return Table("Gold labels used", ("", ""), rows)


def worst_classes_table(report: Report) -> Table:
    """Return the classes with the lowest quality, worst first."""
    classes = entries(report, "worst_classes")
    rows = tuple(
        (
            words(pick(entry, "label")),
            words(pick(entry, "mistaken_for") or None),
            percent(pick(entry, "recall")),
            percent(pick(entry, "teacher_recall")),
            percent(pick(entry, "f1")),
            count(pick(entry, "n")),
        )
        for entry in classes[:WORST_CLASSES_SHOWN]
    )
    columns = ("label", "most often mistaken for", "recall", "teacher's recall", "F1", "rows")
    return Table("Worst classes", columns, rows, "" if rows else "Not measured.", text_columns=2)


def disagreements(report: Report) -> list[Disagreement]:
    """Return the first disagreements between teacher and student, long texts cut."""
    return [
        Disagreement(
            shortened(words(pick(entry, "text"))),
            words(pick(entry, "gold")),
            words(pick(entry, "teacher")),
            words(pick(entry, "student")),
            whole_percent(pick(entry, "teacher_probability")),
            whole_percent(pick(entry, "student_probability")),
        )
        for entry in entries(report, "disagreements")[:DISAGREEMENTS_SHOWN]
    ]


def disagreements_note(report: Report) -> str:
    """Say how many disagreements are shown of how many recorded."""
    recorded = len(entries(report, "disagreements"))
    if not recorded:
        return "None recorded."
    shown = min(recorded, DISAGREEMENTS_SHOWN)
    return f"{shown} of {recorded} recorded. Percentages: how sure each is of its own label."


def corpus_table(report: Report) -> Table:
    """Return what became of every row read: kept by part, dropped and quarantined by reason."""
    corpus = table_of(report, "corpus")
    rows = [("kept", part, count(amount)) for part, amount in table_of(corpus, "rows").items()]
    for fate in ("dropped", "flagged"):  # what is flagged was kept
        for part, reasons in table_of(corpus, fate).items():
            if isinstance(reasons, Mapping):
                rows += [(fate, f"{part}: {reason}", count(amount)) for reason, amount in reasons.items()]
            else:
                rows.append((fate, part, count(reasons)))
    for reason, amount in table_of(corpus, "quarantined").items():
        rows.append(("quarantined", reason, count(amount)))
    leaks = entries(corpus, "leaks")[:_LEAKS_SHOWN]
    note = "" if rows else "Not recorded."
    if leaks:
        note = f"Leaks found, for example: {'; '.join(map(_leak, leaks))}."
    return Table("Corpus", ("", "what", "rows"), tuple(rows), note, text_columns=2)


def stages_table(report: Report) -> Table:
    """Return how long each stage took and the key it is cached under."""
    stages = entries(report, "stages")
    rows = tuple(
        (words(pick(stage, "name")), words(pick(stage, "key"))[:12], seconds(pick(stage, "seconds")))
        for stage in stages
    )
    known = [number(stage, "seconds") for stage in stages]
    total = sum(value for value in known if value is not None)
    note = f"In all {seconds(total)}, as each stage last ran." if total else ""
    return Table("Stages", ("stage", "key", "time"), rows, note, text_columns=2)


def lineage_table(report: Report) -> Table:
    """Return where the bundle comes from."""
    return _facts("Lineage", table_of(report, "lineage"))


def machine_table(report: Report) -> Table:
    """Return what everything was measured on."""
    return _facts("Machine", table_of(report, "machine"))


def _facts(title: str, facts: Mapping[str, Any]) -> Table:
    rows = tuple((name, value) for name, value in _flat(facts))
    return Table(title, ("", ""), rows, "" if rows else "Not recorded.", text_columns=2)


def _flat(facts: Mapping[str, Any], prefix: str = "") -> list[tuple[str, str]]:
    rows = []
    for key, value in facts.items():
        name = f"{prefix}{spaced(key)}"
        rows += _flat(value, f"{name}: ") if isinstance(value, Mapping) else [(name, shortened(words(value)))]
    return rows


def _leak(leak: Any) -> str:
    text, held = (shortened(words(pick(leak, key)), 80) for key in ("text", "held_text"))
    return f"{words(pick(leak, 'part'))} “{text}” ({words(pick(leak, 'reason'))}: “{held}”)"


def _scaled(value: float | None, factor: float) -> float | None:
    return None if value is None else value * factor
