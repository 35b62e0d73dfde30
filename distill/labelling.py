"""What labelling was: how many texts were asked about and why, what was rejected, what it cost, and what it showed.

Reads the finished store and asks no teacher.
"""

from collections import Counter
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from distill.quality import Answers
from distill.selection_curve import selection_curve
from teacher.corpus import iterate_part, read_part
from teacher.select import Selection, read_selection
from teacher.soft_labels import read_store
from teacher.task import Task

_COLUMNS = ("id", "outside", "method", "cost_usd", "sources", "disagreement", "rejected", "raw")
_EXAMPLES_PER_REASON = 3
_SOURCES = 10


def describe_labelling(labels: Path, corpus: Path, task: Task, teacher: Answers, *, seed: int) -> dict[str, Any]:
    """Return what the report says of the store in `labels`; `teacher` are the teacher's own answers on test.

    `rejected` counts texts by reason; `rejected_test` the test texts without an answer. `outside` is the mean mass on
    no label, `disagreement` how far the members of a committee are apart (mean, nats), `sources` what answers were
    given from, most used first. `curve` has (teacher calls, headline, low, high) where a selection was made.
    """
    store = read_store(labels)
    meta, selection = store.meta, read_selection(labels)
    table = pa.concat_tables(pq.read_table(labels / name, columns=list(_COLUMNS)) for name in meta.parts)
    answered = table.filter(table["rejected"].is_null())
    return {
        "rows": meta.rows,
        "rejected": meta.rejected,
        "rejected_examples": _rejected_examples(table, corpus),
        "rejected_test": int((~teacher.rows).sum()),
        "methods": dict(Counter(answered["method"].to_pylist()).most_common()),
        "outside": _mean(answered["outside"]),
        "disagreement": _mean(answered["disagreement"]),
        "cost_usd": meta.cost_usd,
        "cost_per_row_usd": _mean(answered["cost_usd"]),
        "sources": _sources(answered, corpus),
        "selection": selection and _facts(selection),
        "curve": selection_curve(selection, store, corpus, task, seed=seed) if selection else [],
    }


def _rejected_examples(table: pa.Table, corpus: Path) -> list[dict[str, str]]:
    shown: Counter[str] = Counter()
    examples = []
    for row in table.filter(table["rejected"].is_valid()).select(["id", "rejected", "raw"]).to_pylist():
        shown[row["rejected"]] += 1
        if shown[row["rejected"]] <= _EXAMPLES_PER_REASON:
            examples.append(row)
    texts = _pool_texts(corpus, {row["id"] for row in examples})
    return [
        {"reason": row["rejected"], "text": texts.get(row["id"], row["id"]), "raw": row["raw"] or ""}
        for row in examples
    ]


def _sources(answered: pa.Table, corpus: Path) -> dict[str, Any]:
    """Return how many rows name sources and which are named most; a gold row is shown by its text."""
    counts: Counter[str] = Counter()
    rows = 0
    for chunk in answered["sources"].iterchunks():
        for sources in chunk.to_pylist():
            counts.update(sources or ())
            rows += bool(sources)
    texts = {example.id: example.text for example in read_part(corpus, "gold")} if counts else {}
    most = [{"id": name, "text": texts.get(name), "rows": used} for name, used in counts.most_common(_SOURCES)]
    return {"rows": rows, "distinct": len(counts), "most": most}


def _facts(selection: Selection) -> dict[str, Any]:
    return {
        "strategy": selection.strategy,
        "chosen": len(selection.ids),
        "pool": selection.pool,
        "candidates": selection.candidates,
    }


def _pool_texts(corpus: Path, ids: set[str]) -> dict[str, str]:
    if not ids:
        return {}
    return {one.id: one.text for chunk in iterate_part(corpus, "pool") for one in chunk if one.id in ids}


def _mean(column: pa.ChunkedArray) -> float | None:
    value = pc.mean(column).as_py()
    return None if value is None else float(value)
