"""The report as one HTML page: no script, no external address, charts inline.

Every value of the report passes through `escape`, here or in `report_page`.
"""

from collections.abc import Mapping
from html import escape
from typing import Any

from export.charts import (
    calls_chart,
    cascade_chart,
    coverage_chart,
    percentile_chart,
    quality_chart,
    reliability_chart,
    tokens_chart,
)
from export.frontier import frontier_chart
from export.report_doubt import abstain_table, handed, price_per_million, scope_table
from export.report_labelling import ablation_table, labelling_table, rejected_table, sources_table
from export.report_page import anchor, breakable, card, document, figure, figures, folded, section
from export.report_plan import rewrites_table, variants_table
from export.report_proof import label_errors_table, paired_table, recall_table, suspects_table
from export.report_search import search_table
from export.report_tables import (
    Disagreement,
    corpus_table,
    disagreements,
    disagreements_note,
    gates_table,
    gold_table,
    latency_table,
    lineage_table,
    machine_table,
    quality_table,
    running_table,
    size_table,
    stages_table,
    worst_classes_table,
)
from export.report_verdict import Verdict, best_baseline, headline_metric, student_name, verdict
from export.report_wording import (
    CONTENDERS,
    DASH,
    count,
    data_size,
    entries,
    interval,
    metric_name,
    milliseconds,
    moment,
    number,
    percent,
    pick,
    points,
    seconds,
    table_of,
    times,
    whole_percent,
    words,
)

Report = Mapping[str, Any]

_SECTIONS = (
    "Quality",
    "Doubtful texts",
    "Speed",
    "Size and gates",
    "Search",
    "Worst classes",
    "Disagreements",
    "Label errors",
    "Labelling",
    "Gold and corpus",
    "Origin",
)


def render_html(report: Report) -> str:
    """Return the report as one self-contained HTML document."""
    bodies = (
        _quality, _doubt, _speed, _size, _search, _classes, _disagreements, _label_errors, _labelling, _gold, _origin,
    )  # fmt: skip
    sections = (section(name, body(report)) for name, body in zip(_SECTIONS, bodies, strict=True))
    parts = (_header(report), _verdict(verdict(report)), _cards(report), "".join(sections))
    footer = "Made by Potstill. The same figures for machines: report.json."
    return document(words(pick(report, "name")), "\n".join(parts), footer)


def _header(report: Report) -> str:
    kind = words(pick(report, "task", "kind")).replace("_", "-")
    labels = pick(report, "task", "labels")
    amount = len(labels) if isinstance(labels, list | tuple | Mapping) else None
    links = "".join(f'<a href="#{anchor(name)}">{name}</a>' for name in _SECTIONS)
    return f"""<header>
<p class="eyebrow">Distillation report</p>
<h1>{escape(words(pick(report, "name")))}</h1>
<p class="meta">{escape(kind)} · {count(amount)} labels · {escape(moment(pick(report, "created")))}</p>
<nav aria-label="Sections">{links}</nav>
</header>"""


def _verdict(opening: Verdict) -> str:
    remarks = "".join(f"<li>{escape(remark)}</li>" for remark in opening.remarks)
    return f"""<section class="card verdict {opening.status}">
<p class="status">{opening.status}</p>
<p class="sentence">{escape(opening.sentence)}</p>
{f"<ul>{remarks}</ul>" if remarks else ""}
</section>"""


def _cards(report: Report) -> str:
    name, metric = student_name(report), headline_metric(report)
    student, teacher = (pick(report, "quality", key, metric) for key in (name, "teacher"))
    best = best_baseline(report) or ""
    gap, latency, size, gold = (table_of(report, key) for key in ("gap", "latency", "size", "gold"))
    teacher_p50 = milliseconds(pick(latency, "teacher", "p50_ms"))
    speedup = interval(latency.get("speedup_low"), latency.get("speedup_high"), times)
    gap_interval = interval(gap.get("low"), gap.get("high"), points)
    listed = (
        (f"{metric_name(metric)}, {CONTENDERS[name]}", percent(student), f"teacher {percent(teacher)}"),
        ("points from the teacher", points(gap.get("estimate")), f"95 % {gap_interval}"),
        ("answer time, p50", milliseconds(pick(latency, name, "p50_ms")), f"teacher {teacher_p50}"),
        ("faster than the teacher", times(latency.get("speedup_p50")), f"95 % {speedup}"),
        ("model file", data_size(size.get("model_bytes")), f"bundle {data_size(size.get('bundle_bytes'))}"),
        ("best baseline", percent(pick(report, "quality", best, metric)), CONTENDERS.get(best, DASH)),
        ("cold start", seconds(pick(report, "cold_start", "total_s")), "import, load, answer"),
        ("gold, share of pool", whole_percent(gold.get("share")), f"pool {count(gold.get('pool'))} texts"),
    )
    return figures(listed)


def _quality(report: Report) -> str:
    metric = headline_metric(report)
    chart = figure(
        "Student, teacher and baselines",
        "Dot: the estimate. Band: its 95 % interval. Dashed line: the teacher.",
        quality_chart(table_of(report, "quality"), metric),
    )
    reliability = figure(
        "Does confidence mean what it says?",
        "Dashed: as often right as confident. Larger dot: more rows.",
        reliability_chart(table_of(report, "reliability")),
    )
    tables = card(quality_table(report), title="") + card(paired_table(report))
    return f'<div class="grid">{chart}{reliability}</div>{tables}'


def _doubt(report: Report) -> str:
    coverage = figure(
        "What the student may answer alone",
        "Surest texts first. Dot: the threshold from dev. Dashed line: the promise.",
        coverage_chart(
            entries(report, "abstain", "curve"),
            number(report, "abstain", "accuracy"),
            number(report, "abstain", "test", "coverage"),
        ),
    )
    cascade = figure(
        "What the teacher adds, and takes",
        "The least sure texts go to the teacher. Dot: the threshold from dev. Dashed line: the teacher alone.",
        cascade_chart(entries(report, "abstain", "cascade"), price_per_million(report), handed(report)),
    )
    return (
        f'<div class="grid">{coverage}{cascade}</div>{card(abstain_table(report), title="")}{card(scope_table(report))}'
    )


def _speed(report: Report) -> str:
    percentiles = figure(
        "Latency by percentile",
        "One text at a time, all contenders in turn.",
        percentile_chart(table_of(report, "latency", "percentiles")),
    )
    tokens = figure(
        "Latency by length",
        "Median over texts of similar length.",
        tokens_chart(table_of(report, "latency", "by_tokens")),
    )
    return f'<div class="grid">{percentiles}{tokens}</div>{card(latency_table(report), title="")}'


def _size(report: Report) -> str:
    tables = f"{card(size_table(report))}{card(running_table(report))}"
    made = f"{card(rewrites_table(report))}{card(variants_table(report))}"
    return f'{card(gates_table(report))}{made}<div class="grid">{tables}</div>'


def _search(report: Report) -> str:
    if not entries(report, "search", "students"):
        return card(search_table(report), title="")
    frontier = figure(
        "Quality against answer time",
        "Dot: a student, its area the size of its int8 file; bar: 95 % interval; hollow: dropped before its training "
        "ended. Shaded: what holds both lines. Dashed: the teacher.",
        frontier_chart(
            entries(report, "search", "students"),
            number(report, "search", "lines", "p50_ms"),
            number(report, "search", "lines", "max_gap"),
        ),
    )
    return frontier + card(search_table(report))


def _classes(report: Report) -> str:
    return card(worst_classes_table(report), title="") + folded(recall_table(report))


def _disagreements(report: Report) -> str:
    quotes = "".join(map(_quote, disagreements(report)))
    listed = f'<ol class="quotes">{quotes}</ol>' if quotes else ""
    return f'<div class="card">{listed}<p class="note">{escape(disagreements_note(report))}</p></div>'


def _quote(row: Disagreement) -> str:
    answers = (
        ("gold", row.gold, ""),
        ("teacher", row.teacher, row.teacher_probability),
        ("student", row.student, row.student_probability),
    )
    listed = "".join(
        f"<dt>{who}</dt><dd{_right(who, label, row.gold)}>{breakable(label)}"
        f"{f' {probability}' if probability not in ('', DASH) else ''}</dd>"
        for who, label, probability in answers
    )
    return f"<li><q>{escape(row.text)}</q><dl>{listed}</dl></li>"


def _right(who: str, label: str, gold: str) -> str:
    return ' class="right"' if who != "gold" and label == gold and gold != DASH else ""


def _label_errors(report: Report) -> str:
    return card(label_errors_table(report), title="") + folded(suspects_table(report))


def _labelling(report: Report) -> str:
    chart = calls_chart(entries(report, "labelling", "curve"), headline_metric(report))
    curve = figure(
        "What more teacher calls were worth",
        "TF-IDF on gold and the answers to the texts chosen first; band: 95 % interval.",
        chart,
    )
    facts = card(labelling_table(report))
    tables = "".join(card(table(report)) for table in (ablation_table, rejected_table, sources_table))
    return (f'<div class="grid">{facts}{curve}</div>' if chart else facts) + tables


def _gold(report: Report) -> str:
    return f'<div class="grid">{card(gold_table(report))}{card(corpus_table(report))}</div>'


def _origin(report: Report) -> str:
    tables = card(stages_table(report)), folded(lineage_table(report)), folded(machine_table(report))
    return "".join(tables)
