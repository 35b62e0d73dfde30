"""Whether student and teacher differ by more than chance on the same rows, how often they agree, and on which labels
they differ.

Chooses nothing: decisions arrive made.
"""

from typing import Any

import numpy as np
from scipy.stats import binomtest

from distill.quality import Answers, Floats
from export.metrics import recall_per_class, row_scores
from teacher.task import Task


def compare_paired(student: Answers, teacher: Answers, targets: Floats) -> dict[str, Any]:
    """Return McNemar's exact test between two models on the same rows, and the share on which they decide alike.

    Only rows that one of them alone gets right say anything; under equal error rates each is as likely the student's
    as the teacher's (McNemar 1947; exact and two-sided as a binomial test, Dietterich 1998). Multi-label: a row is
    right when its whole set is. A row that the teacher rejected counts as wrong, and has no part in `agreement` and
    `expected_gap` (None when it rejected all).

    `expected_gap` is the mean over rows of what the teacher gives the student's answer less what it gives its own: the
    gap in accuracy that a calibrated teacher expects, below 0 where the student loses. It reads no gold and is less
    noisy than counting who is right; None for multi-label, where the measure is not accuracy.
    """
    ours, theirs = (row_scores(given.decided, targets) * given.rows > 0 for given in (student, teacher))
    student_alone, teacher_alone = int((ours & ~theirs).sum()), int((theirs & ~ours).sum())
    differing = student_alone + teacher_alone
    alike = (student.decided == teacher.decided).all(axis=1)[teacher.rows]
    expected = (teacher.probs * (student.decided.astype(float) - teacher.decided)).sum(axis=1)[teacher.rows]
    return {
        "both_right": int((ours & theirs).sum()),
        "student_alone": student_alone,
        "teacher_alone": teacher_alone,
        "both_wrong": int((~ours & ~theirs).sum()),
        "p_value": float(binomtest(student_alone, differing).pvalue) if differing else 1.0,
        "agreement": float(alike.mean()) if len(alike) else None,
        "expected_gap": float(expected.mean()) if len(expected) and teacher.thresholds is None else None,
    }


def recall_by_class(task: Task, student: Answers, teacher: Answers, targets: Floats) -> list[dict[str, Any]]:
    """Return for each label with a row: how many, and how many of them each model finds; the greatest loss first."""
    ours, theirs = (recall_per_class(given.decided, targets) for given in (student, teacher))
    present = np.flatnonzero(np.isfinite(ours))
    order = present[np.argsort(ours[present] - theirs[present], kind="stable")]
    return [
        {
            "label": task.labels[column],
            "n": int(targets[:, column].sum()),
            "recall": float(ours[column]),
            "teacher_recall": float(theirs[column]),
        }
        for column in order
    ]
