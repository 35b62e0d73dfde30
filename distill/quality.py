"""How good one model's answers are on labelled rows, and how much better than another's, each with its interval.

Chooses nothing: decisions arrive made, with thresholds from other rows.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from export.metrics import (
    Interval,
    calibration_error,
    confidences,
    decode,
    macro_f1,
    paired_bootstrap,
    row_scores,
)
from teacher.calibrate import fit_thresholds
from teacher.example import content_id
from teacher.partial import answered_mask
from teacher.soft_labels import SoftLabels
from teacher.task import TaskKind

Floats = NDArray[np.float32]
_BINS = 10


@dataclass(frozen=True, slots=True)
class Given:
    """Probabilities (N, C) that a teacher gave, zeros in the rows that it rejected, and which it `answered` (N,)."""

    probs: Floats
    answered: NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class Answers:
    """Calibrated probabilities (N, C) of one model and what it decides with `thresholds` (C,) (None: the best label).

    `answered` (N,) are the rows it did not reject (None: all); nothing is decided for the others.
    """

    probs: Floats
    decided: NDArray[np.bool_]
    thresholds: Floats | None = None
    answered: NDArray[np.bool_] | None = None

    @property
    def rows(self) -> NDArray[np.bool_]:
        """Return which rows were answered (N,)."""
        return np.ones(len(self.probs), bool) if self.answered is None else self.answered


def fit_decisions(kind: TaskKind, dev: Floats, dev_targets: Floats) -> Floats | None:
    """Return the thresholds (C,) that dev gives a multi-label model; None for a single-label one."""
    return fit_thresholds(dev, dev_targets) if kind is TaskKind.MULTI_LABEL else None


def fill(answers: SoftLabels, texts: Sequence[str]) -> Given:
    """Return what `answers` says of each of `texts`."""
    answered = answered_mask([content_id(text) for text in texts], answers)
    probs = np.zeros((len(texts), answers.probs.shape[1]), np.float32)
    probs[answered] = answers.probs
    return Given(probs, answered)


def decide_by(kind: TaskKind, dev: Given, dev_targets: Floats, test: Given) -> Answers:
    """Return the answers `test` of a teacher, decided with thresholds from the dev rows that it answered."""
    thresholds = fit_decisions(kind, dev.probs[dev.answered], dev_targets[dev.answered])
    return decide(kind, test.probs, thresholds, test.answered)


def decide(
    kind: TaskKind, probs: Floats, thresholds: Floats | None, answered: NDArray[np.bool_] | None = None
) -> Answers:
    """Return the answers `probs` (N, C) with their decisions; a row that was not `answered` decides nothing."""
    decided = decode(kind.value, probs, thresholds)
    if answered is not None:
        decided = decided & answered[:, None]
    return Answers(probs, decided, thresholds, answered)


def quality(kind: TaskKind, given: Answers, targets: Floats, seed: int) -> dict[str, float]:
    """Return accuracy, macro-F1 and calibration error of one model with 95 % intervals of the first two.

    A rejected row counts as wrong, and has no part in the calibration error.
    """
    scores = row_scores(given.decided, targets) * given.rows
    accuracy = paired_bootstrap(scores, np.zeros_like(scores), seed=seed)
    macro = paired_bootstrap(
        scores, scores, lambda rows: macro_f1(given.decided[rows], targets[rows]), samples=500, seed=seed
    )
    return {
        "accuracy": accuracy.estimate,
        "accuracy_low": accuracy.low,
        "accuracy_high": accuracy.high,
        "macro_f1": macro.estimate,
        "macro_f1_low": macro.low,
        "macro_f1_high": macro.high,
        "ece": calibration_error(kind.value, given.probs[given.rows], targets[given.rows]),
        "n": len(targets),
    }


def headline(kind: TaskKind, given: Answers, targets: Floats, seed: int) -> Interval:
    """Return the headline measure of one model with its 95 % interval."""
    scores = row_scores(given.decided, targets)
    if kind is TaskKind.SINGLE_LABEL:
        return paired_bootstrap(scores, np.zeros_like(scores), seed=seed)
    return paired_bootstrap(
        scores, scores, lambda rows: macro_f1(given.decided[rows], targets[rows]), samples=500, seed=seed
    )


def difference(kind: TaskKind, ours: Answers, theirs: Answers, targets: Floats, seed: int) -> Interval:
    """Return ours minus theirs in the headline measure, paired over test rows."""
    before, after = (row_scores(given.decided, targets) for given in (theirs, ours))
    if kind is TaskKind.SINGLE_LABEL:
        return paired_bootstrap(after, before, seed=seed)

    def macro_f1_difference(rows: NDArray[np.intp]) -> float:
        return macro_f1(ours.decided[rows], targets[rows]) - macro_f1(theirs.decided[rows], targets[rows])

    return paired_bootstrap(after, before, macro_f1_difference, samples=1000, seed=seed)


def reliability(kind: TaskKind, probs: Floats, targets: Floats) -> list[list[float]]:
    """Return (mean confidence, share that was right, rows) of each confidence bin that holds rows."""
    confidence, correct = confidences(kind.value, probs, targets)
    which = np.minimum((confidence * _BINS).astype(int), _BINS - 1)
    return [
        [float(confidence[which == one].mean()), float(correct[which == one].mean()), int((which == one).sum())]
        for one in np.unique(which)
    ]
