"""What teachers share that do not answer every text: which rows were answered, and calibration from few of them.

Knows nothing of where answers come from; arrays are (N, C).
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from scipy.special import expit, log_softmax

from teacher.calibrate import fit_temperature
from teacher.errors import TeacherError
from teacher.soft_labels import SoftLabels
from teacher.task import TaskKind

_LEAST_ROWS = 20  # of fewer rows the best temperature says more about luck than about the teacher
Floats = NDArray[np.float32]


def answered_mask(ids: Sequence[str], answers: SoftLabels) -> NDArray[np.bool_]:
    """Say for each of the asked `ids` whether `answers`, in the same order, holds its row.

    Raises TeacherError when `answers` holds a row that was not asked for.
    """
    mask, place = np.zeros(len(ids), bool), 0
    for position, asked in enumerate(ids):
        if place < len(answers.ids) and answers.ids[place] == asked:
            mask[position] = True
            place += 1
    if place != len(answers.ids):
        raise TeacherError(
            f"a {answers.method} teacher answered {len(answers.ids)} rows for {len(ids)} texts in another order; "
            "wanted its answers in the order of the texts"
        )
    return mask


def log_scores(kind: TaskKind, probs: Floats) -> Floats:
    """Return logits (N, C) whose softmax, or sigmoid for several labels a text, is `probs`."""
    clipped = np.clip(probs, 1e-9, 1 - 1e-7)
    if kind is TaskKind.MULTI_LABEL:
        return np.asarray(np.log(clipped) - np.log1p(-clipped), np.float32)
    return np.asarray(np.log(clipped), np.float32)


def temper(kind: TaskKind, probs: Floats, temperature: float) -> Floats:
    """Return `probs` as they are at `temperature`; single-label rows sum to 1."""
    scores = log_scores(kind, probs).astype(np.float64) / temperature
    tempered = expit(scores) if kind is TaskKind.MULTI_LABEL else np.exp(log_softmax(scores, axis=1))
    return np.asarray(tempered, np.float32)


def fit_partial_temperature(kind: TaskKind, probs: Floats, targets: Floats) -> float:
    """Return the temperature that fits the answered rows `probs` to 0/1 `targets`; 1.0 for fewer than 20 rows."""
    return fit_temperature(kind, log_scores(kind, probs), targets) if len(probs) >= _LEAST_ROWS else 1.0
