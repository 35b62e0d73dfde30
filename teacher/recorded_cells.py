"""What one cell of recorded answers says about the labels of a task; nothing is guessed.

A name is a label when it is spelled like one, or under `match: normalised` when it has the letters and digits of one
label alone. Any other name is outside the label set.
"""

import json
import math
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from teacher.example import leak_key
from teacher.quarantine import Fault, Reason, parse_labels
from teacher.task import Task, TaskKind, align_labels

OUTSIDE = "outside the label set"
NO_ANSWER = "no answer"
NO_DISTRIBUTION = "not a distribution"
_SLACK = 1e-3  # how far rounded shares may add up to more than 1
_LEAST_MASS = 1e-6


@dataclass(frozen=True, slots=True)
class Said:
    """Shares of label columns, `weight` on them together and `outside`, on other names; or the reason for neither.

    Single-label shares sum to 1 whatever the weight is; those of several labels a text are independent.
    """

    columns: tuple[int, ...] = ()
    shares: tuple[float, ...] = ()
    weight: float = 0.0
    outside: float = 0.0
    reason: str = ""
    raw: str = ""


class LabelMatcher:
    """Finds the label that a recorded name means and keeps account of what was matched and what was not."""

    def __init__(self, task: Task, *, normalised: bool) -> None:
        """Know the labels of `task`; `normalised` lets spellings count that have the same letters and digits."""
        self.task = task
        self.matched: Counter[tuple[str, str]] = Counter()  # (recorded name, label)
        self.strangers: Counter[str] = Counter()
        self.hits = 0
        self.name_sets: set[frozenset[str]] = set()  # of distributions, the first two that differ
        self._columns = {name: column for column, name in enumerate(task.labels)}
        keys = Counter(leak_key(name) for name in task.labels)
        self.ambiguous = tuple(name for name in task.labels if normalised and keys[leak_key(name)] > 1)
        self._loose = {
            leak_key(name): column
            for name, column in self._columns.items()
            if normalised and name not in self.ambiguous
        }

    def find(self, name: str) -> int | None:
        """Return the column of the label that `name` spells, or None."""
        column = self._columns.get(name)
        if column is None and self._loose:
            column = self._loose.get(leak_key(name))
            if column is not None:
                self.matched[name, self.task.labels[column]] += 1
        if column is None:
            self.strangers[name] += 1
        else:
            self.hits += 1
        return column


def read_answer(cell: object, separator: str, matcher: LabelMatcher) -> Said:
    """Return what a cell with an answered label says, or with several (joined by `separator`, or a list)."""
    kind = matcher.task.kind
    names = parse_labels(_listed(cell) if kind is TaskKind.MULTI_LABEL else cell, kind, separator)
    if isinstance(names, Fault):
        if names.reason is Reason.NO_LABEL:
            return Said(reason=NO_ANSWER, raw="" if cell is None else str(cell))
        return Said(outside=1.0, reason=OUTSIDE, raw=_spelled(cell))
    found = [matcher.find(name) for name in names]
    columns = tuple(sorted({column for column in found if column is not None}))
    if names and not columns:
        return Said(outside=1.0, reason=OUTSIDE, raw=_spelled(cell))
    outside = found.count(None) / max(len(found), 1)
    return Said(columns, (1.0,) * len(columns), 1 - outside, outside)


def read_distribution(cell: object, matcher: LabelMatcher) -> Said:
    """Return what a JSON object of name to probability says; mass on other names, or on none, is outside.

    Raises LabelMismatchError where several labels a text are possible and the names are not the labels.
    """
    shares = _parse_shares(cell)
    if shares is None or not shares:
        reason = NO_ANSWER if cell is None or cell == "" or shares == {} else NO_DISTRIBUTION
        return Said(reason=reason, raw="" if cell is None else _spelled(cell))
    if len(matcher.name_sets) < 2:
        matcher.name_sets.add(frozenset(shares))
    if matcher.task.kind is TaskKind.MULTI_LABEL:
        return _independent(shares, matcher)
    if sum(shares.values()) > 1 + _SLACK:
        return Said(reason=NO_DISTRIBUTION, raw=_spelled(cell))
    masses: dict[int, float] = {}
    for name, share in shares.items():
        column = matcher.find(name)
        if column is not None:
            masses[column] = masses.get(column, 0.0) + share
    total = sum(masses.values())
    if total < _LEAST_MASS:
        return Said(outside=1.0, reason=OUTSIDE, raw=_spelled(cell))
    weight = total if total < 1 - _LEAST_MASS else 1.0
    return Said(tuple(masses), tuple(share / total for share in masses.values()), weight, 1 - weight)


def _independent(shares: Mapping[str, float], matcher: LabelMatcher) -> Said:
    named = {name: matcher.find(name) for name in shares}
    labels = matcher.task.labels
    spelled = [name if column is None else labels[column] for name, column in named.items()]
    aligned = align_labels(np.asarray([list(shares.values())], np.float32), spelled, labels)
    return Said(tuple(range(len(labels))), tuple(float(share) for share in aligned[0]), 1.0)


def _parse_shares(cell: object) -> dict[str, float] | None:
    """Return the numbers in 0..1 by name that `cell` holds; None when it holds anything else."""
    value = _loaded(cell) if isinstance(cell, str) else cell
    if isinstance(value, list) and all(isinstance(pair, tuple) and len(pair) == 2 for pair in value):
        value = dict(value)  # how parquet gives a map back
    if not isinstance(value, dict):
        return None
    shares = {name: share for name, share in value.items() if share is not None}
    return shares if all(isinstance(name, str) and _is_share(share) for name, share in shares.items()) else None


def _is_share(value: object) -> bool:
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    return is_number and math.isfinite(value) and 0 <= value <= 1 + _SLACK  # type: ignore[arg-type,operator]


def _listed(cell: object) -> object:
    """Return the list that `cell` spells in JSON, or `cell`."""
    if not (isinstance(cell, str) and cell.lstrip().startswith("[")):
        return cell
    value = _loaded(cell)
    return value if isinstance(value, list) else cell


def _loaded(text: str) -> object:
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return None


def _spelled(cell: object) -> str:
    return cell if isinstance(cell, str) else json.dumps(cell, ensure_ascii=False, default=str)
