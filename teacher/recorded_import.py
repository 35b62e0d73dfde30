"""Read a file of recorded answers row by row into a table, and account for every row.

Memory holds the table that grows, never the file.
"""

import itertools
import json
import re
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from teacher.errors import CorpusError, LabelMismatchError, TeacherError
from teacher.example import content_id, leak_key
from teacher.quarantine import Reason, find_text_fault
from teacher.read import Columns, Row, read_rows
from teacher.recorded_cells import OUTSIDE, LabelMatcher, Said, read_answer, read_distribution
from teacher.recorded_table import TableWriter
from teacher.spec import RecordedSpec
from teacher.task import Task, align_labels

REJECTED = "rejected.jsonl"
_ID = re.compile("[0-9a-f]{16}")
_NOT_AN_ID = "not a content id"
_ANY_LENGTH = 2**40
_ADVICE = "Set text, id, label, distribution and model of the teacher"
_SHOWN = 20
_MATCHES_KEPT = 1000


def import_answers(spec: RecordedSpec, task: Task, directory: Path) -> dict[str, Any]:
    """Fill `directory` with the table of the answers in `spec.answers`; return the account of its rows as JSON values.

    rejected.jsonl tells of every row without a usable answer: its number, the reason, and what stood there. Raises
    CorpusError when the file cannot be read, TeacherError when no row is left, LabelMismatchError when the file
    answers other labels than those of `task`.
    """
    writer, matcher = TableWriter(), LabelMatcher(task, normalised=spec.match == "normalised")
    models, rejected = Counter[str](), Counter[str]()
    voters: dict[str, int] = {}
    with (directory / REJECTED).open("w", encoding="utf-8") as file:
        for row, model in _rows(spec):
            models[model] += 1
            if spec.only_model not in (None, model):
                continue
            said = _read(row, spec, matcher)
            fault = _find_fault(row, spec)
            if reason := fault or said.reason:
                rejected[reason] += 1
                told = {"row": row.number, "reason": reason, "raw": said.raw or row.label, "text": row.text}
                file.write(json.dumps(told, default=str) + "\n")
            if fault is None:
                id, loose = _identify(str(row.text), spec)
                voter = voters.setdefault(model, len(voters))
                writer.add(id, loose, voter, said, repeats=spec.distribution is None)
    _check_rows(spec, models, rejected, writer.rows)
    _check_labels(spec, matcher)
    writer.save(directory)
    return {
        "rows": models.total(),
        "models": {name: rows for name, rows in models.items() if name},
        "rejected": dict(rejected),
        "matched": [[*pair, rows] for pair, rows in matcher.matched.most_common(_MATCHES_KEPT)],
        "strangers": dict(matcher.strangers.most_common(_SHOWN)),
        "ambiguous": list(matcher.ambiguous),
    }


def _read(row: Row, spec: RecordedSpec, matcher: LabelMatcher) -> Said:
    if spec.distribution is None:
        return read_answer(row.label, spec.separator, matcher)
    return read_distribution(row.label, matcher)


def _rows(spec: RecordedSpec) -> Iterator[tuple[Row, str]]:
    """Yield each row with the name of its model, empty where the file has no such column."""
    key, answer = spec.id or spec.text, spec.distribution or spec.label
    model = spec.model or ("model" if spec.only_model is not None else None)
    try:
        rows = read_rows(spec.answers, Path(), Columns(key, answer, _ADVICE))
        if model is None:
            yield from zip(rows, itertools.repeat(""), strict=False)
        else:
            # A reader gives two columns, so the file is read twice, side by side.
            for row, named in zip(rows, read_rows(spec.answers, Path(), Columns(key, model, _ADVICE)), strict=True):
                yield row, "" if named.label is None else str(named.label)
    except CorpusError as error:
        raise CorpusError(f"recorded answers: {error}") from error


def _find_fault(row: Row, spec: RecordedSpec) -> str | None:
    """Return why nothing can be looked up by this row, or None."""
    if row.fault:
        return Reason.MALFORMED.value
    if spec.id is not None:
        return None if isinstance(row.text, str) and _ID.fullmatch(row.text) else _NOT_AN_ID
    fault = find_text_fault(row.text, _ANY_LENGTH)
    return fault.reason.value if fault else None


def _identify(key: str, spec: RecordedSpec) -> tuple[str, str | None]:
    """Return the content id of a row and, where spellings do not count, what its spellings share."""
    if spec.id is not None:
        return key, None
    return content_id(key), leak_key(key) if spec.match == "normalised" else None


def _check_rows(spec: RecordedSpec, models: Counter[str], rejected: Counter[str], kept: int) -> None:
    if kept:
        return
    if rejected:
        reasons = ", ".join(f"{rows:,} x {reason}" for reason, rows in rejected.most_common())
        raise TeacherError(f"{spec.answers} has no row that can be looked up ({reasons}); check text and id")
    if models:
        shown = ", ".join(repr(name) for name, _ in models.most_common(_SHOWN))
        raise TeacherError(f"{spec.answers} has no row of the model {spec.only_model!r}; its models are: {shown}")
    raise TeacherError(f"{spec.answers} has no rows; wanted at least one recorded answer")


def _check_labels(spec: RecordedSpec, matcher: LabelMatcher) -> None:
    """Raise LabelMismatchError when the file as a whole speaks of other labels than the task."""
    labels = matcher.task.labels
    # One list of names in every row is a table over those labels; lists that differ are the top of a longer one.
    whole = next(iter(matcher.name_sets)) if len(matcher.name_sets) == 1 else None
    if whole is not None:
        spelled = {name: label for name, label in matcher.matched}
        found = [spelled.get(name, name) for name in sorted(whole)]
        align_labels(np.zeros((1, len(found)), np.float32), found, labels)
    elif matcher.strangers and not matcher.hits:
        found = [repr(name) for name, _ in matcher.strangers.most_common(_SHOWN)]
        hint = "" if spec.match == "normalised" else ", or set match: normalised if they differ by case or hyphens"
        raise LabelMismatchError(
            f"every answer in {spec.answers} is {OUTSIDE}: found {', '.join(found)}; "
            f"wanted {', '.join(map(repr, labels[:_SHOWN]))}; check label{hint}"
        )
