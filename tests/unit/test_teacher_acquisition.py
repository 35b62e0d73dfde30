"""Facts about choosing by arrays: doubts are in 0 to 1 and in the right order, k-center is the textbook greedy one."""

import itertools

import numpy as np
import pytest

from teacher.acquisition import k_center, student_probs, uncertainty
from teacher.task import TaskKind

SINGLE, MULTI = TaskKind.SINGLE_LABEL, TaskKind.MULTI_LABEL


def drawn(rows: int, width: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=(rows, width)).astype(np.float32)


def plain_k_center(points: np.ndarray, centres: np.ndarray, count: int) -> list[int]:
    """Return the greedy order by its definition: all distances, again for each pick."""
    held, order = list(centres), []
    for _ in range(count):
        distances = [min((np.square(point - one).sum() for one in held), default=np.inf) for point in points]
        for row in order:
            distances[row] = -1
        order.append(int(np.argmax(distances)))
        held.append(points[order[-1]])
    return order


@pytest.mark.parametrize("centres", [0, 1, 7])
def test_k_center_is_the_greedy_order_of_its_definition(centres: int) -> None:
    points, held = drawn(60, 5), drawn(centres, 5, seed=1)
    assert k_center(points, held, 25).tolist() == plain_k_center(points, held, 25)


def test_k_center_covers_within_twice_the_best_radius() -> None:
    points = drawn(14, 2)

    def radius(rows: tuple[int, ...]) -> float:
        gaps = np.linalg.norm(points[:, None] - points[list(rows)][None], axis=2)
        return float(gaps.min(axis=1).max())

    best = min(radius(rows) for rows in itertools.combinations(range(14), 3))
    assert radius(tuple(k_center(points, np.zeros((0, 2), np.float32), 3))) <= 2 * best + 1e-5


def test_k_center_takes_every_row_once_even_when_all_are_equal() -> None:
    points = np.ones((9, 3), np.float32)
    for weights in (None, np.zeros(9, np.float32)):
        assert sorted(k_center(points, points[:2], 20, weights)) == list(range(9))


def test_blocks_of_points_and_centres_change_no_distance(monkeypatch: pytest.MonkeyPatch) -> None:
    points, held = drawn(50, 4), drawn(11, 4, seed=1)
    whole = k_center(points, held, 20).tolist()
    monkeypatch.setattr("teacher.acquisition._BLOCK", 3)
    assert k_center(points, held, 20).tolist() == whole


def test_weights_move_k_center_to_the_texts_in_doubt() -> None:
    points = np.eye(4, dtype=np.float32)  # all equally far from each other
    assert k_center(points, points[:0], 4, np.array([0.1, 0.9, 0.5, 0.3], np.float32)).tolist()[1:] == [1, 2, 3]


def test_margin_and_entropy_of_a_single_label_row_are_those_of_the_textbook() -> None:
    probs = np.array([[0.5, 0.3, 0.2], [1, 0, 0], [1 / 3, 1 / 3, 1 / 3]], np.float32)
    np.testing.assert_allclose(uncertainty(SINGLE, probs, "margin"), [0.8, 0, 1], atol=1e-6)
    entropy = -(0.5 * np.log(0.5) + 0.3 * np.log(0.3) + 0.2 * np.log(0.2)) / np.log(3)
    np.testing.assert_allclose(uncertainty(SINGLE, probs, "entropy"), [entropy, 0, 1], atol=1e-6)


def test_a_multi_label_row_is_as_unsure_as_its_labels() -> None:
    probs = np.array([[0.5, 0.9], [1, 0], [0.5, 0.5]], np.float32)
    np.testing.assert_allclose(uncertainty(MULTI, probs, "margin"), [1, 0, 1], atol=1e-6)
    half = -(0.9 * np.log2(0.9) + 0.1 * np.log2(0.1))
    np.testing.assert_allclose(uncertainty(MULTI, probs, "entropy"), [(1 + half) / 2, 0, 1], atol=1e-5)


@pytest.mark.parametrize("kind", list(TaskKind))
def test_the_cheap_student_is_unsure_between_the_classes_and_sure_within(kind: TaskKind) -> None:
    gold = np.array([[1, 0], [1, 0.1], [0, 1], [0.1, 1]], np.float32)
    targets = np.array([[1, 0], [1, 0], [0, 1], [0, 1]], np.float32)
    points = np.array([[1, 0], [0.7, 0.7], [0, 1]], np.float32)
    probs = student_probs(kind, gold, targets, points)
    np.testing.assert_array_equal(probs.argmax(axis=1)[[0, 2]], [0, 1])
    doubts = uncertainty(kind, probs, "entropy")
    assert doubts[1] > max(doubts[0], doubts[2]) + 0.1


def test_labels_that_tell_no_rows_apart_leave_no_doubt_behind() -> None:
    gold, points = drawn(4, 3), drawn(5, 3, seed=1)
    always = np.ones((4, 2), np.float32)
    for kind, targets in ((MULTI, always), (SINGLE, np.eye(2, dtype=np.float32)[[0, 0, 0, 0]])):
        for measure in ("margin", "entropy"):
            assert not uncertainty(kind, student_probs(kind, gold, targets, points), measure).any()
