"""Facts about the paired test and the recall of every label, against figures worked out by hand or by others."""

import numpy as np
import pytest
from sklearn.metrics import recall_score

from distill.proof import compare_paired, recall_by_class
from distill.quality import Answers, decide
from teacher.task import Task, TaskKind

TASK = Task(TaskKind.SINGLE_LABEL, ("a", "b", "c"))


def answers(columns: list[int]) -> Answers:
    return decide(TASK.kind, np.eye(3, dtype=np.float32)[columns], None)


def truth(columns: list[int]) -> np.ndarray:
    return np.eye(3, dtype=np.float32)[columns]


def test_mcnemar_gives_the_p_value_of_its_binomial() -> None:
    # 1 row that the student alone gets right and 9 of the teacher's: 2 (C(10,0) + C(10,1)) / 2^10 = 22 / 1024.
    found = compare_paired(answers([0] * 11 + [1] * 9), answers([0] * 10 + [1] + [0] * 9), truth([0] * 20))
    assert (found["student_alone"], found["teacher_alone"]) == (1, 9)
    assert (found["both_right"], found["both_wrong"]) == (10, 0)
    assert found["p_value"] == pytest.approx(22 / 1024)
    assert found["agreement"] == pytest.approx(10 / 20)


def test_models_that_decide_alike_differ_by_nothing() -> None:
    same = answers([0, 1, 2, 2])
    found = compare_paired(same, same, truth([0, 1, 1, 2]))
    assert (found["p_value"], found["agreement"], found["both_wrong"]) == (1.0, 1.0, 1)


def test_a_row_that_the_teacher_rejects_counts_against_it_and_not_in_the_agreement() -> None:
    probs = np.eye(3, dtype=np.float32)[[0, 1]]
    teacher = decide(TASK.kind, probs, None, np.array([True, False]))
    found = compare_paired(answers([0, 1]), teacher, truth([0, 1]))
    assert (found["student_alone"], found["both_right"], found["agreement"]) == (1, 1, 1.0)


def test_the_gap_that_a_teacher_expects_is_what_it_gives_both_answers_and_reads_no_gold() -> None:
    probs = np.array([[0.7, 0.2, 0.1], [0.5, 0.4, 0.1], [0.1, 0.1, 0.8]], np.float32)
    teacher, student = decide(TASK.kind, probs, None), answers([1, 1, 2])
    for gold in ([0, 0, 2], [1, 1, 0]):
        found = compare_paired(student, teacher, truth(gold))
        assert found["expected_gap"] == pytest.approx((0.2 - 0.7 + 0.4 - 0.5) / 3)
    part = decide(TASK.kind, probs, None, np.array([False, True, True]))
    assert compare_paired(student, part, truth([0, 0, 2]))["expected_gap"] == pytest.approx((0.4 - 0.5) / 2)


def test_a_multi_label_teacher_expects_no_gap_in_accuracy() -> None:
    given = decide(TaskKind.MULTI_LABEL, np.full((2, 3), 0.6, np.float32), np.full(3, 0.5, np.float32))
    assert compare_paired(given, given, np.ones((2, 3), np.float32))["expected_gap"] is None


def test_every_label_with_a_row_has_the_recall_of_both_with_the_greatest_loss_first() -> None:
    given, ours, theirs = [0, 0, 0, 1, 1], [0, 0, 1, 1, 1], [0, 0, 0, 0, 1]
    found = recall_by_class(TASK, answers(ours), answers(theirs), truth(given))
    assert [entry["label"] for entry in found] == ["a", "b"]
    for entry, label in zip(found, (0, 1), strict=True):
        for name, decided in (("recall", ours), ("teacher_recall", theirs)):
            assert entry[name] == pytest.approx(recall_score(given, decided, labels=[label], average="macro"))
    assert [entry["n"] for entry in found] == [3, 2]
