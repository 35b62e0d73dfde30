import numpy as np
import pytest
from sklearn.metrics import accuracy_score, f1_score

from distill.scores import HEADLINES, dev_score
from teacher.calibrate import fit_thresholds
from teacher.task import TaskKind

LOGITS = np.random.default_rng(0).normal(size=(60, 4)).astype(np.float32)


def test_single_label_logits_are_scored_by_accuracy() -> None:
    truth = np.random.default_rng(1).integers(0, 4, 60)
    found = dev_score(TaskKind.SINGLE_LABEL)(LOGITS, np.eye(4, dtype=np.float32)[truth])
    assert found == pytest.approx(accuracy_score(truth, LOGITS.argmax(axis=1)))
    assert HEADLINES[TaskKind.SINGLE_LABEL] == "accuracy"


def test_multi_label_logits_are_scored_by_macro_f1_at_thresholds_fitted_on_them() -> None:
    targets = (np.random.default_rng(2).random((60, 4)) < 0.3).astype(np.float32)
    probs = 1 / (1 + np.exp(-LOGITS))
    wanted = f1_score(targets, probs >= fit_thresholds(probs, targets), average="macro")
    assert dev_score(TaskKind.MULTI_LABEL)(LOGITS, targets) == pytest.approx(wanted)
    assert HEADLINES[TaskKind.MULTI_LABEL] == "macro_f1"


def test_a_scale_of_all_logits_does_not_change_a_score() -> None:
    targets = (np.random.default_rng(2).random((60, 4)) < 0.3).astype(np.float32)
    for kind in TaskKind:
        assert dev_score(kind)(LOGITS, targets) == pytest.approx(dev_score(kind)(LOGITS / 3, targets))
