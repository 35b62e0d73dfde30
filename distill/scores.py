"""How good logits are on labelled rows: one headline measure per task kind, used wherever dev decides."""

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from export.metrics import ACTIVATIONS, decode, macro_f1, row_scores
from teacher.calibrate import fit_thresholds
from teacher.finetune import Score
from teacher.task import TaskKind

HEADLINES = {TaskKind.SINGLE_LABEL: "accuracy", TaskKind.MULTI_LABEL: "macro_f1"}
Floats = NDArray[np.float32]


def dev_score(kind: TaskKind) -> Score:
    """Return the score of logits against targets on dev: accuracy, or macro-F1 at thresholds fitted there."""
    return _SCORES[kind]


def _accuracy(logits: Floats, targets: Floats) -> float:
    return float(row_scores(decode("single_label", logits), targets).mean())


def _macro_f1(logits: Floats, targets: Floats) -> float:
    probs = ACTIVATIONS["multi_label"](logits)
    return macro_f1(decode("multi_label", probs, fit_thresholds(probs, targets)), targets)


_SCORES: dict[TaskKind, Callable[[Floats, Floats], float]] = {
    TaskKind.SINGLE_LABEL: _accuracy,
    TaskKind.MULTI_LABEL: _macro_f1,
}
