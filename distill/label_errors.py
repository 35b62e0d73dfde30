"""Rows whose label is probably wrong, by confident learning: what a model that never saw the row holds against it.

Northcutt, Jiang and Chuang 2021, "Confident Learning: Estimating Uncertainty in Dataset Labels" (JAIR 70). Judges
arrays only. The probabilities must be out of sample: a model that has learned a wrong label defends it.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from distill.quality import Floats
from teacher.task import TaskKind


@dataclass(frozen=True, slots=True)
class Suspect:
    """A row, the columns that it should rather carry, and how probable those and the given ones are (0 to 1).

    Multi-label: `given` and `suggested` are whole sets; the probabilities are those of the cell that is surest to be
    wrong, as it was given and as it should be.
    """

    row: int
    given: tuple[int, ...]
    suggested: tuple[int, ...]
    given_probability: float
    suggested_probability: float


def find_suspects(kind: TaskKind, probs: Floats, targets: Floats) -> list[Suspect]:
    """Return the rows of 0/1 `targets` (N, C) that out-of-sample `probs` (N, C) speak against, the surest first.

    A label counts as meant where its probability reaches the mean over the rows that carry it: what is typical for
    that label, whatever the model's calibration. A row whose most typical label is another than the given one, and
    whose most probable label is too, is a suspect (off the diagonal of the confident joint). Multi-label: the same for
    every label by itself, carried against not carried.
    """
    found = _multi_label(probs, targets) if kind is TaskKind.MULTI_LABEL else _single_label(probs, targets)
    return sorted(found, key=lambda suspect: suspect.given_probability - suspect.suggested_probability)


def _single_label(probs: Floats, targets: Floats) -> list[Suspect]:
    given = targets.argmax(axis=1)
    meant = _meant(probs, given)
    rows = np.flatnonzero((meant != given) & (probs.argmax(axis=1) != given))
    places = [(row, int(given[row]), int(meant[row])) for row in rows.tolist()]
    return [
        Suspect(row, (ours,), (theirs,), float(probs[row, ours]), float(probs[row, theirs]))
        for row, ours, theirs in places
    ]


def _multi_label(probs: Floats, targets: Floats) -> list[Suspect]:
    given = targets.astype(bool)
    wrong = np.zeros(given.shape, bool)
    for column in range(probs.shape[1]):
        either = np.stack([1 - probs[:, column], probs[:, column]], axis=1)
        carried = given[:, column].astype(int)
        wrong[:, column] = (_meant(either, carried) != carried) & (either.argmax(axis=1) != carried)
    as_given = np.where(given, probs, 1 - probs)
    suspects = []
    for row in np.flatnonzero(wrong.any(axis=1)).tolist():
        least = float(as_given[row, wrong[row]].min())
        sets = [tuple(np.flatnonzero(cells).tolist()) for cells in (given[row], given[row] ^ wrong[row])]
        suspects.append(Suspect(row, sets[0], sets[1], least, 1 - least))
    return suspects


def _meant(probs: Floats, given: NDArray[np.intp]) -> NDArray[np.intp]:
    """Return the most probable of the classes that reach their own threshold (N,), the given one where none does."""
    classes = range(probs.shape[1])
    # A class without a row has no threshold and is suggested to nobody.
    thresholds = np.array([probs[given == one, one].mean() if (given == one).any() else np.inf for one in classes])
    confident = np.where(probs >= thresholds, probs, -1.0)
    return np.asarray(np.where(confident.max(axis=1) >= 0, confident.argmax(axis=1), given))
