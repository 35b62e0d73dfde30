"""What the promise of a bundle came to on test: how much the student answered alone, how well, and what a cascade of
student and teacher would reach for which price.

Chooses nothing: the threshold stands in the bundle, and the curves only show where it lies.
"""

from typing import Any

import numpy as np
from msgspec.structs import asdict
from numpy.typing import NDArray

from distill.quality import Answers, Floats
from export.metrics import paired_bootstrap, row_scores
from export.selective import Abstention, certainty, risk_curve
from teacher.task import TaskKind


def describe_abstention(
    kind: TaskKind, answers: tuple[Answers, Answers], targets: Floats, promise: Abstention | None, *, seed: int
) -> dict[str, Any]:
    """Return the promise, what it came to on test, and `curve`: (coverage, accuracy, threshold) from strict to lax.

    `answers` are those of student and teacher. `cascade` has (share of texts handed to the teacher, accuracy of both
    together) at the same thresholds, from the student alone to the teacher alone; a text that the teacher rejects
    keeps the student's answer.
    """
    student, teacher = answers
    certain = certainty(kind.value, student.probs, student.decided)
    right = row_scores(student.decided, targets) > 0
    curve = risk_curve(certain, right)
    taught = np.where(teacher.rows, row_scores(teacher.decided, targets) > 0, right)
    thresholds = [float(certain.min()), *(threshold for _, _, threshold in reversed(curve)), np.inf]
    return {
        **(asdict(promise) if promise else {}),
        "test": _kept(certain, right, promise, seed),
        "curve": curve,
        "cascade": [_cascade(certain < threshold, right, taught) for threshold in thresholds],
    }


def _kept(
    certain: NDArray[np.float64], right: NDArray[np.bool_], promise: Abstention | None, seed: int
) -> dict[str, float] | None:
    if promise is None or promise.threshold is None:
        return None
    answered = certain >= promise.threshold
    kept = {"coverage": float(answered.mean()), "n": int(answered.sum())}
    if not answered.any():
        return kept
    scores = right[answered].astype(np.float64)
    found = paired_bootstrap(scores, np.zeros_like(scores), seed=seed)
    return kept | {"accuracy": found.estimate, "accuracy_low": found.low, "accuracy_high": found.high}


def _cascade(handed: NDArray[np.bool_], right: NDArray[np.bool_], taught: NDArray[np.bool_]) -> tuple[float, float]:
    return float(handed.mean()), float(np.where(handed, taught, right).mean())
