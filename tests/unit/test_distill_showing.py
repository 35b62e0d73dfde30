"""Facts about which texts a student is shown, and how often."""

import numpy as np
import pytest

from distill.showing import draw_showings, showing_weights
from teacher.task import TaskKind

SURE, TORN = [0.998, 0.001, 0.001], [0.4, 0.35, 0.25]


def probs(*rows: list[float]) -> np.ndarray:
    return np.array(rows, np.float32)


def test_a_text_that_the_teacher_is_unsure_of_weighs_more_and_none_weighs_nothing() -> None:
    weights = showing_weights(TaskKind.SINGLE_LABEL, probs(SURE, TORN, [0.7, 0.2, 0.1]))
    assert weights[1] > weights[2] > weights[0] > 0
    assert weights.mean() == pytest.approx(1)


def test_where_the_teacher_is_sure_of_all_or_equally_unsure_all_weigh_the_same() -> None:
    certain = np.eye(3, dtype=np.float32)
    np.testing.assert_allclose(showing_weights(TaskKind.SINGLE_LABEL, certain), 1)
    np.testing.assert_allclose(showing_weights(TaskKind.SINGLE_LABEL, probs(TORN, TORN)), 1)


def test_a_label_that_may_or_may_not_be_there_makes_a_multi_label_text_unsure() -> None:
    weights = showing_weights(TaskKind.MULTI_LABEL, probs([0.99, 0.01, 0.99], [0.5, 0.01, 0.99], [0.0, 0.0, 0.0]))
    assert weights[1] > weights[0] > weights[2] > 0


def test_no_text_comes_again_before_all_have_come_as_often() -> None:
    weights = np.random.default_rng(0).exponential(size=50) + 0.01
    for count in (7, 50, 63, 149, 150):
        shown = np.bincount(draw_showings(weights, count, seed=0), minlength=50)
        assert (shown.sum(), set(shown) <= {count // 50, count // 50 + 1}) == (count, True)


def test_a_text_is_taken_in_proportion_to_its_weight_and_the_heaviest_surely() -> None:
    weights = np.array([1.0, 2.0, 3.0, 100.0])
    draws = [draw_showings(weights, 3, seed) for seed in range(2000)]
    share = np.bincount(np.concatenate(draws), minlength=4) / 2000
    # Of 3 places one is surely the last row's, and 2 x 3/6 of those left the third's; then 1 for the first two.
    np.testing.assert_allclose(share, [1 / 3, 2 / 3, 1, 1], atol=0.04)


def test_the_seed_decides_who_is_in_the_last_round() -> None:
    draws = [draw_showings(np.ones(50), 20, seed).tolist() for seed in (0, 0)]
    assert draws[0] == draws[1]
    weights = np.random.default_rng(0).random(50) + 0.1
    assert draw_showings(weights, 20, 0).tolist() != draw_showings(weights, 20, 1).tolist()


def test_nothing_is_drawn_of_a_schedule_without_rows() -> None:
    assert draw_showings(np.ones(3), 0, seed=0).tolist() == []
