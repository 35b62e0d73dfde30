"""Label codes: the short answers that stand for labels in a prompt, and what a written answer means.

An answer is matched exactly after normalising, to a code, a label's name, or the line that lists both. Nothing is
guessed: what matches no label is no label.
"""

import itertools
import re
import string
from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum

from teacher.example import normalise
from teacher.task import Task

_LETTERS = string.ascii_uppercase
_NOTHING = ("none", "nothing", "no label", "-")
_WRAPPING = " \t\r\n\"'`*_.,:;!()[]{}<>\u201c\u201d\u2018\u2019"  # what chat models put around an answer
_SEPARATORS = re.compile(r"[,;\n]+")


class Fit(Enum):
    """How what is written so far relates to the codes."""

    NOTHING_YET = "nothing yet"
    BEGINS = "begins"
    WHOLE = "whole"
    OUTSIDE = "outside"


@dataclass(frozen=True, slots=True)
class Place:
    """A fit and the positions, in the order of the task, of the codes it is about."""

    fit: Fit
    labels: tuple[int, ...] = ()


class CodeBook:
    """The codes of a task's labels; all have one length, so that none begins another."""

    def __init__(self, names: Sequence[str], codes: Sequence[str], nothing: str = "none") -> None:
        """Take one code a name, in the order of the task; `nothing` is the answer that names no label."""
        self.names = tuple(names)
        self.codes = tuple(codes)
        self.nothing = nothing
        self._meanings = _meanings(self.names, self.codes)
        self._whole = {_fold(code): position for position, code in enumerate(self.codes)}
        self._beginnings: dict[str, list[int]] = {}
        for code, position in self._whole.items():
            for end in range(1, len(code)):
                self._beginnings.setdefault(code[:end], []).append(position)

    @classmethod
    def make(cls, task: Task, order: Sequence[int]) -> "CodeBook":
        """Give out codes along `order`: A to Z, or AA, BA, CA and so on; never one that is also a label's name.

        In a code of two letters the first changes fastest: for a tokenizer that cuts the code in two, the first
        token then tells as many labels apart as it can.
        """
        taken = {_fold(name) for name in task.labels}
        length = 1
        while len(free := _free_codes(length, taken)) < len(task.labels):
            length += 1
        codes = dict(zip(order, free, strict=False))
        nothing = next(word for word in (*_NOTHING, "0", "00", "000") if _fold(word) not in taken)
        return cls(task.labels, [codes[position] for position in range(len(task.labels))], nothing)

    def label_of(self, answer: str) -> int | None:
        """Return the position of the one label that `answer` names; None when it names none."""
        return self._meanings.get(_fold(answer))

    def labels_of(self, answer: str) -> tuple[int, ...] | None:
        """Return the positions of the labels that `answer` lists, each once; None when an item names no label."""
        if (alone := self.label_of(answer)) is not None:
            return (alone,)
        if normalise(answer).casefold().strip(_WRAPPING) == self.nothing or normalise(answer) == self.nothing:
            return ()
        items = [self.label_of(item) for item in _SEPARATORS.split(answer) if _fold(item)]
        if not items or None in items:
            return None
        return tuple(dict.fromkeys(item for item in items if item is not None))

    def place(self, written: str) -> Place:
        """Say what `written`, the beginning of an answer, is of the codes."""
        start = written.lstrip(_WRAPPING).casefold()
        if not start:
            return Place(Fit.NOTHING_YET, tuple(range(len(self.codes))))
        if (whole := self._whole.get(start.rstrip(_WRAPPING))) is not None:
            return Place(Fit.WHOLE, (whole,))
        begun = self._beginnings.get(start)
        return Place(Fit.BEGINS, tuple(begun)) if begun else Place(Fit.OUTSIDE)


def _free_codes(length: int, taken: set[str]) -> list[str]:
    codes = ("".join(reversed(letters)) for letters in itertools.product(_LETTERS, repeat=length))
    return [code for code in codes if code.casefold() not in taken]


def _fold(answer: str) -> str:
    return normalise(answer).casefold().strip(_WRAPPING)


def _meanings(names: Sequence[str], codes: Sequence[str]) -> dict[str, int]:
    """Map what may be answered to positions; a name that reads like another label's stands for neither."""
    meanings: dict[str, int] = {}
    ambiguous = set()
    for position, (name, code) in enumerate(zip(names, codes, strict=True)):
        for said in {_fold(name), _fold(f"{code}: {name}"), _fold(f"{code} {name}")}:
            if meanings.setdefault(said, position) != position:
                ambiguous.add(said)
    for said in ambiguous | {""}:
        meanings.pop(said, None)
    return meanings | {_fold(code): position for position, code in enumerate(codes)}


YES_NO = CodeBook(("yes", "no"), ("Yes", "No"))
