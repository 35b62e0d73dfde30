"""Facts about how often a student is shown each of its texts."""

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


def test_one_unsure_text_among_many_sure_ones_does_not_take_the_schedule() -> None:
    soft = np.repeat(np.eye(3, dtype=np.float32)[:1], 1000, axis=0)
    soft[500] = TORN
    weights = showing_weights(TaskKind.SINGLE_LABEL, soft)
    assert weights[500] > 10 * weights[0] > 0
    assert weights[500] / weights.sum() < 0.1


def test_a_label_that_may_or_may_not_be_there_makes_a_multi_label_text_unsure() -> None:
    weights = showing_weights(TaskKind.MULTI_LABEL, probs([0.99, 0.01, 0.99], [0.5, 0.01, 0.99], [0.0, 0.0, 0.0]))
    assert weights[1] > weights[0] > weights[2] > 0


def test_a_row_is_drawn_as_often_as_it_is_due_give_or_take_one() -> None:
    weights = np.random.default_rng(0).exponential(size=400) + 0.01
    shown = draw_showings(weights, 1000, seed=3)
    due = 1000 * weights / weights.sum()
    assert len(shown) == 1000
    assert (np.abs(np.bincount(shown, minlength=400) - due) < 1).all()


def test_without_a_difference_every_row_is_drawn_once_before_any_is_drawn_twice() -> None:
    np.testing.assert_array_equal(draw_showings(np.ones(7), 7, seed=0), np.arange(7))
    assert np.bincount(draw_showings(np.ones(7), 17, seed=1), minlength=7).min() == 2


def test_the_seed_decides_which_rows_get_the_odd_showing() -> None:
    weights = np.random.default_rng(0).random(50) + 0.1
    draws = [draw_showings(weights, 20, seed).tolist() for seed in (0, 0, 1)]
    assert draws[0] == draws[1] != draws[2]
