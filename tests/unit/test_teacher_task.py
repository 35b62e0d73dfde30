"""Facts about tasks, targets and the alignment of labels by name."""

import numpy as np
import pytest

from teacher.errors import LabelMismatchError
from teacher.task import PROBLEM_TYPES, Task, TaskKind, align_labels


def test_labels_named_twice_are_refused() -> None:
    with pytest.raises(LabelMismatchError, match="labels named twice: size"):
        Task(TaskKind.SINGLE_LABEL, ("size", "payment", "size"))


@pytest.mark.parametrize(("kind", "labels"), [("single_label", ("size",)), ("multi_label", ())])
def test_a_task_with_too_few_labels_is_refused(kind: str, labels: tuple[str, ...]) -> None:
    with pytest.raises(LabelMismatchError, match="wants at least"):
        Task(TaskKind(kind), labels)


def test_a_multi_label_task_may_have_one_label() -> None:
    assert Task(TaskKind.MULTI_LABEL, ("urgent",)).labels == ("urgent",)


def test_every_kind_has_the_name_hugging_face_gives_it() -> None:
    assert set(PROBLEM_TYPES) == set(TaskKind)


def test_targets_follow_the_order_of_the_task() -> None:
    task = Task(TaskKind.MULTI_LABEL, ("size", "payment", "delivery"))
    targets = task.targets([("payment",), (), ("delivery", "size")])
    assert targets.dtype == np.float32
    assert targets.tolist() == [[0, 1, 0], [0, 0, 0], [1, 0, 1]]


def test_a_target_that_is_no_label_is_named() -> None:
    task = Task(TaskKind.SINGLE_LABEL, ("size", "payment"))
    with pytest.raises(LabelMismatchError, match="'colour' is not among the 2 labels"):
        task.targets([("size",), ("colour",)])


def test_columns_are_aligned_by_name() -> None:
    probs = np.array([[0.1, 0.2, 0.7]], np.float32)
    aligned = align_labels(probs, ("a", "b", "c"), ("c", "a", "b"))
    assert aligned.tolist() == [[np.float32(0.7), np.float32(0.1), np.float32(0.2)]]
    assert aligned.flags.c_contiguous


@pytest.mark.parametrize(
    ("found", "wanted", "message"),
    [
        (("a", "b"), ("a", "c"), "only in what was found: 'b'; only in what is wanted: 'c'"),
        (("a", "b", "c"), ("a", "b"), "found 3, wanted 2"),
        (("a", "b", "b"), ("a", "b", "b"), "the labels differ"),
        (tuple("abcdefghijkl"), ("z", "y"), "and 4 more"),
    ],
)
def test_a_mismatch_names_both_sides(found: tuple[str, ...], wanted: tuple[str, ...], message: str) -> None:
    with pytest.raises(LabelMismatchError, match=message):
        align_labels(np.zeros((1, len(found)), np.float32), found, wanted)
