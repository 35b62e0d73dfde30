"""Judge rows one by one and keep the unfit ones in a file, each with the reason; nothing is dropped silently.

Knows nothing of other rows, except for the labels it was given to compare with.
"""

import csv
import difflib
import math
import re
import unicodedata
from collections import Counter, defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from teacher.example import normalise
from teacher.task import TaskKind

_NUMBER = re.compile(r"[+-]?\d+([.,]\d+)?")
_SHOWN_CHARACTERS = 80
# What a spreadsheet would run as a formula.
_FORMULA = ("=", "+", "-", "@", "\t", "\r")


class Reason(StrEnum):
    """Why a row is not used."""

    MALFORMED = "malformed row"
    NOT_TEXT = "text is not a string"
    BAD_UTF8 = "not UTF-8"
    LONE_SURROGATE = "lone surrogate"
    NUL = "NUL character"
    EMPTY = "empty text"
    BLANK = "blank text"
    TOO_LONG = "text too long"
    NO_LABEL = "no label"
    LABEL_NOT_TEXT = "label is not a string"
    NUMBER_LABEL = "label is a number"
    LABEL_SPELLING = "label differs by case or space"
    UNKNOWN_LABEL = "unknown label"
    CONFLICTING = "conflicting labels"


@dataclass(frozen=True, slots=True)
class Fault:
    """A reason and what exactly was found."""

    reason: Reason
    detail: str = ""


@dataclass(frozen=True, slots=True)
class Origin:
    """Where a row comes from: the part it was read for, its source and its number there."""

    part: str
    source: str
    number: int


def find_text_fault(text: object, max_characters: int) -> Fault | None:
    """Return what makes `text` unfit, or None. Invisible and right-to-left marks are fine beside others."""
    if text is None or text == "":
        return Fault(Reason.EMPTY)
    if not isinstance(text, str):
        return Fault(Reason.NOT_TEXT, f"found {type(text).__name__}")
    if broken := _find_broken_character(text):
        return broken
    if not any(character.isprintable() and not character.isspace() for character in text):
        return Fault(Reason.BLANK)
    if len(text) > max_characters and (found := len(normalise(text))) > max_characters:
        return Fault(Reason.TOO_LONG, f"found {found:,} characters, data.max_characters is {max_characters:,}")
    return None


def parse_labels(value: object, kind: TaskKind, separator: str) -> tuple[str, ...] | Fault:
    """Return the distinct label names in one cell, in the order found, or what makes the cell unfit.

    An empty list is an answer in a multi-label task (no label applies); an empty cell is none.
    """
    if isinstance(value, list):
        items = value
    elif isinstance(value, str) and kind is TaskKind.MULTI_LABEL:
        items = [name for name in value.split(separator) if name.strip()]
    else:
        items = [] if _is_null(value) else [value]
    if not items and (kind is TaskKind.SINGLE_LABEL or not isinstance(value, list)):
        return Fault(Reason.NO_LABEL)
    for item in items:
        if fault := _find_label_fault(item):
            return fault
    names = tuple(dict.fromkeys(items))
    if kind is TaskKind.SINGLE_LABEL and len(names) > 1:
        return Fault(Reason.LABEL_NOT_TEXT, f"found {len(names)} labels in a {kind} task")
    return names


def common_spellings(counts: Counter[str]) -> list[str]:
    """Return the label names, sorted; of names that differ only by case or space, the most frequent one."""
    chosen: dict[str, str] = {}
    for name in sorted(counts, key=lambda name: (-counts[name], name)):
        chosen.setdefault(_fold(name), name)
    return sorted(chosen.values())


class LabelBook:
    """The labels of the task, to compare the labels of rows with."""

    def __init__(self, labels: Iterable[str]) -> None:
        """Remember `labels`, distinct names in order."""
        self._order = {name: position for position, name in enumerate(labels)}
        self._folded = {_fold(name): name for name in self._order}

    def find_fault(self, names: Iterable[str]) -> Fault | None:
        """Return what is wrong with the first name that is not a label of the task, or None."""
        for name in names:
            if name in self._order:
                continue
            if meant := self._folded.get(_fold(name)):
                return Fault(Reason.LABEL_SPELLING, f"found {name!r}; did you mean {meant!r}?")
            if _NUMBER.fullmatch(name.strip()):
                return Fault(Reason.NUMBER_LABEL, f"found {name!r}; wanted a name")
            close = difflib.get_close_matches(_fold(name), self._folded, 1)
            hint = f"; did you mean {self._folded[close[0]]!r}?" if close else ""
            return Fault(Reason.UNKNOWN_LABEL, f"found {name!r}{hint}")
        return None

    def sort(self, names: Iterable[str]) -> tuple[str, ...]:
        """Return `names`, all of them known, in the order of the task."""
        return tuple(sorted(names, key=self._order.__getitem__))


class Quarantine:
    """Rows that are not used: counted by part and reason, kept until `save` appends them to a file."""

    def __init__(self) -> None:
        """Start with no rows."""
        self.by_part: dict[str, Counter[str]] = defaultdict(Counter)
        self._pending: list[tuple[str, ...]] = []

    def counts(self) -> dict[str, int]:
        """Return the number of rows by reason, the most frequent first."""
        return dict(sum(self.by_part.values(), Counter[str]()).most_common())

    def add(self, origin: Origin, fault: Fault, text: object, id: str = "") -> None:
        """Count one row and remember where it stands and how its text begins."""
        self.by_part[origin.part][fault.reason.value] += 1
        shown = text if isinstance(text, str) else "" if text is None else repr(text)
        row = (origin.part, origin.source, str(origin.number), id, fault.reason, fault.detail)
        self._pending.append(tuple(safe_cell(cell) for cell in (*row, shown[:_SHOWN_CHARACTERS])))

    def save(self, path: Path) -> None:
        """Append the rows since the last call to the csv file `path`, with a header when it is new."""
        is_new = not path.exists()
        with path.open("a", newline="", encoding="utf-8") as file:
            writer = csv.writer(file)
            if is_new:
                writer.writerow(("part", "source", "row", "id", "reason", "detail", "text"))
            writer.writerows(self._pending)
        self._pending.clear()


def _find_broken_character(text: str) -> Fault | None:
    if "\0" in text:
        return Fault(Reason.NUL, f"at character {text.index(chr(0)) + 1}")
    try:
        text.encode()
    except UnicodeEncodeError as error:
        # A reader turns each byte that is not UTF-8 into one of these; a surrogate of three such bytes,
        # and one written as an escape in JSON, is a lone surrogate.
        try:
            text.encode(errors="surrogateescape").decode(errors="surrogatepass")
        except UnicodeError:
            is_escaped = all(0xDC80 <= ord(character) <= 0xDCFF for character in text if _is_surrogate(character))
            reason = Reason.BAD_UTF8 if is_escaped else Reason.LONE_SURROGATE
        else:
            reason = Reason.LONE_SURROGATE
        return Fault(reason, f"at character {error.start + 1}")
    return None


def _is_surrogate(character: str) -> bool:
    return "\ud800" <= character <= "\udfff"


def _find_label_fault(item: object) -> Fault | None:
    if _is_null(item):
        return Fault(Reason.NO_LABEL)
    if isinstance(item, int | float) and not isinstance(item, bool):
        return Fault(Reason.NUMBER_LABEL, f"found {item!r}; wanted a name")
    if not isinstance(item, str):
        return Fault(Reason.LABEL_NOT_TEXT, f"found {type(item).__name__}")
    return _find_broken_character(item)


def _is_null(value: object) -> bool:
    if isinstance(value, str):
        return not value.strip()
    # Data frames write a missing string as not-a-number.
    return value is None or (isinstance(value, float) and math.isnan(value))


def _fold(name: str) -> str:
    return " ".join(unicodedata.normalize("NFKC", name).casefold().split())


def safe_cell(cell: str) -> str:
    """Return `cell` fit for a csv file that a spreadsheet opens: no formula, no broken character."""
    cell = cell.encode(errors="backslashreplace").decode().replace("\0", "\\x00")
    return "'" + cell if cell.startswith(_FORMULA) else cell
