"""Facts about what the report says of a promise: recounted by hand on a few rows."""

import numpy as np
import pytest
from msgspec.structs import replace

from distill.abstention import describe_abstention
from distill.quality import Answers, decide
from export.selective import Abstention
from teacher.task import TaskKind

SINGLE = TaskKind.SINGLE_LABEL
TARGETS = np.array([[1, 0], [1, 0], [0, 1], [0, 1]], np.float32)
# The student is surest where it is right, and wrong about its two least sure rows.
STUDENT = decide(SINGLE, np.array([[0.9, 0.1], [0.2, 0.8], [0.05, 0.95], [0.6, 0.4]], np.float32), None)
PROMISE = Abstention(accuracy=0.97, level=0.95, threshold=0.85, coverage=0.4, rows=200)


def teacher(answered: list[bool]) -> Answers:
    probs = np.array([[0.4, 0.6], [0.7, 0.3], [0.3, 0.7], [0.1, 0.9]], np.float32)
    return decide(SINGLE, probs, None, np.array(answered))


def test_the_promise_is_counted_on_test() -> None:
    found = describe_abstention(SINGLE, (STUDENT, teacher([True] * 4)), TARGETS, PROMISE, seed=0)
    assert (found["accuracy"], found["threshold"], found["coverage"]) == (0.97, 0.85, 0.4)
    assert found["test"] == {"coverage": 0.5, "n": 2, "accuracy": 1.0, "accuracy_low": 1.0, "accuracy_high": 1.0}
    assert [(coverage, right) for coverage, right, _ in found["curve"]] == [
        (0.25, 1.0),
        (0.5, 1.0),
        (0.75, pytest.approx(2 / 3)),
        (1.0, 0.5),
    ]


def test_a_cascade_goes_from_the_student_alone_to_the_teacher_alone() -> None:
    found = describe_abstention(SINGLE, (STUDENT, teacher([True] * 4)), TARGETS, PROMISE, seed=0)["cascade"]
    assert found[0] == (0.0, 0.5)
    assert (0.5, 1.0) in found  # the two doubtful rows are handed over, and the teacher is right about both
    assert found[-1] == (1.0, 0.75)


def test_a_text_that_the_teacher_rejects_keeps_the_students_answer() -> None:
    found = describe_abstention(SINGLE, (STUDENT, teacher([False, True, True, True])), TARGETS, PROMISE, seed=0)
    assert found["cascade"][-1] == (1.0, 1.0)


@pytest.mark.parametrize("promise", [None, replace(PROMISE, threshold=None)])
def test_without_a_threshold_nothing_is_counted_and_the_curves_stay(promise: Abstention | None) -> None:
    found = describe_abstention(SINGLE, (STUDENT, teacher([True] * 4)), TARGETS, promise, seed=0)
    assert found["test"] is None
    assert len(found["curve"]) == 4
