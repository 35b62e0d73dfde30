"""A data set with a part of its rows, to see whether a benchmark works at all; its figures mean nothing."""

import csv
from collections import defaultdict
from pathlib import Path

# Short schedules: with few rows the recipes choose long ones.
QUICK = ("train.epochs=2", "teacher.epochs=1", "label.variants=1", "label.weak_teacher=warn", "bench.texts=100")
_LEAST_ROWS = 3  # of a label


def shrink(datasets: Path, target: Path, share: float) -> Path:
    """Write the first `share` of each label's rows of every csv in the folders of `datasets` to `target`; return it."""
    for source in sorted(datasets.glob("*/*.csv")):
        with source.open(encoding="utf-8", newline="") as file:
            rows = list(csv.reader(file))
        kept = _kept(rows[0], rows[1:], share)
        (target / source.parent.name).mkdir(parents=True, exist_ok=True)
        with (target / source.parent.name / source.name).open("w", encoding="utf-8", newline="") as file:
            csv.writer(file).writerows([rows[0], *kept])
    return target


def _kept(header: list[str], rows: list[list[str]], share: float) -> list[list[str]]:
    column = next((header.index(name) for name in ("label", "labels") if name in header), None)
    by_label: dict[str, list[list[str]]] = defaultdict(list)
    for row in rows:
        by_label["" if column is None else row[column]].append(row)
    return [row for those in by_label.values() for row in those[: max(round(share * len(those)), _LEAST_ROWS)]]
