"""The report as Markdown: the same words and tables as the HTML one, without the charts."""

import re
from collections.abc import Mapping
from typing import Any

from export.report_doubt import abstain_table, scope_table
from export.report_labelling import ablation_table, labelling_table, rejected_table, sources_table
from export.report_plan import rewrites_table, variants_table
from export.report_proof import label_errors_table, paired_table, recall_table, suspects_table
from export.report_search import search_table
from export.report_tables import (
    Table,
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
from export.report_verdict import verdict
from export.report_wording import pick, words

_SPECIAL = re.compile(r"([\\`*_{}\[\]<>#|~$&])")


def _disagreements(report: Mapping[str, Any]) -> Table:
    rows = tuple(
        (
            row.text,
            row.gold,
            f"{row.teacher} ({row.teacher_probability})",
            f"{row.student} ({row.student_probability})",
        )
        for row in disagreements(report)
    )
    columns = ("text", "gold", "teacher", "student")
    return Table("Disagreements", columns, rows, disagreements_note(report), text_columns=4)


_TABLES = (
    quality_table, paired_table, abstain_table, scope_table, latency_table, size_table, running_table, gates_table,
    rewrites_table, variants_table, search_table, worst_classes_table, recall_table, _disagreements,
    label_errors_table, suspects_table,
    labelling_table, ablation_table, rejected_table, sources_table,
    gold_table, corpus_table, stages_table, lineage_table, machine_table,
)  # fmt: skip


def render_markdown(report: Mapping[str, Any]) -> str:
    """Return the report as GitHub-flavoured Markdown."""
    opening = verdict(report)
    blocks = [
        f"# {_plain(words(pick(report, 'name')))}",
        f"**{opening.status.capitalize()}.** {_plain(opening.sentence)}",
        "\n".join(f"- {_plain(remark)}" for remark in opening.remarks),
        *(_table(table(report)) for table in _TABLES),
    ]
    return "\n\n".join(filter(None, blocks)) + "\n"


def _table(table: Table) -> str:
    parts = [f"## {_plain(table.title)}"]
    if table.rows:
        rule = ["---" if column < table.text_columns else "---:" for column in range(len(table.columns))]
        lines = [map(_plain, table.columns), rule, *(map(_plain, row) for row in table.rows)]
        parts.append("\n".join(f"| {' | '.join(cells)} |" for cells in lines))
    return "\n\n".join([*parts, *filter(None, [_plain(table.note)])])


def _plain(text: str) -> str:
    """Escape what Markdown would take for markup; a cell is one line."""
    return _SPECIAL.sub(r"\\\1", " ".join(text.split()))
