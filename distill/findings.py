"""Look at a person's data file: which column holds texts, which labels, and how many labels a text has.

Guesses from names and values of the first rows; writes nothing.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

from distill.errors import InputError
from distill.tables import read_rows

_TEXT_NAMES = ("text", "utterance", "message", "sentence", "query", "question", "body", "content", "review")
_LABEL_NAMES = ("label", "labels", "intent", "category", "class", "topic", "target", "tag", "sentiment")
_LIST_SEPARATOR = "|"
_ROWS_LOOKED_AT = 20_000


@dataclass(frozen=True, slots=True)
class Findings:
    """What a data file seems to hold; counts are of the rows looked at."""

    rows: int
    is_whole: bool
    text: str
    label: str | None
    separator: str | None
    classes: Counter[str]
    unlabelled: int


def look_at(data: Path) -> Findings:
    """Return what the first rows of `data` hold; raise InputError when no column holds texts."""
    rows = list(islice(read_rows(data), _ROWS_LOOKED_AT + 1))
    is_whole = len(rows) <= _ROWS_LOOKED_AT
    columns = {
        str(name): [_cell(row.get(name)) for row in rows[:_ROWS_LOOKED_AT]] for name in rows[0] if name is not None
    }
    text = _find_text(columns)
    if text is None:
        raise InputError(f"{data}: found no column of texts; the columns are: {', '.join(columns)}")
    label = _find_label({name: cells for name, cells in columns.items() if name != text})
    cells = [cell for cell in columns[label] if cell] if label else []
    if not cells:
        label = None
    separator = _find_separator(cells)
    classes = Counter(part.strip() for cell in cells for part in (cell.split(separator) if separator else [cell]))
    unlabelled = len(columns[text]) - len(cells)
    return Findings(len(columns[text]), is_whole, text, label, separator, classes, unlabelled)


def _cell(value: Any) -> str:
    if value is None:
        return ""
    text = _LIST_SEPARATOR.join(map(str, value)) if isinstance(value, list) else str(value)
    return text.encode(errors="replace").decode().strip()


def _find_text(columns: dict[str, list[str]]) -> str | None:
    by_name = {name.lower(): name for name in reversed(columns)}
    for name in _TEXT_NAMES:
        if name in by_name:
            return by_name[name]
    with_spaces = {name: sum(" " in cell for cell in cells) / len(cells) for name, cells in columns.items()}
    lengths = {name: sum(map(len, cells)) for name, cells in columns.items() if with_spaces[name] > 0.5}
    return max(lengths, key=lengths.__getitem__) if lengths else None


def _find_label(columns: dict[str, list[str]]) -> str | None:
    by_name = {name.lower(): name for name in reversed(columns)}
    for name in _LABEL_NAMES:
        if name in by_name:
            return by_name[name]
    for name, cells in columns.items():
        filled = [cell for cell in cells if cell]
        if 2 <= len(set(filled)) <= len(filled) / 3:  # every value comes back: a class, not a name or an id
            return name
    return None


def _find_separator(cells: Sequence[str]) -> str | None:
    """Return what stands between the labels of a cell, if cells share labels that others have alone."""
    alone = set(cells)
    for separator in (_LIST_SEPARATOR, ";", ","):
        several = [cell.split(separator) for cell in cells if separator in cell]
        known = sum(all(part.strip() in alone for part in parts) for parts in several)
        if several and known >= len(several) / 2:
            return separator
    return None
