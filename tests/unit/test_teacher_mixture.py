import numpy as np
import pytest

from teacher.mixture import cross_fitted, disagreement, learn_weights, mean_outside, mix
from teacher.task import TaskKind
from tests.members import ROWS, TARGETS, TRUTH, Floats, member

SINGLE, MULTI = TaskKind.SINGLE_LABEL, TaskKind.MULTI_LABEL


def nats(probs: Floats, targets: Floats = TARGETS) -> float:
    return float(-np.log(np.clip((probs * targets).sum(axis=1), 1e-9, 1)).mean())


def test_each_column_of_weights_sums_to_one() -> None:
    probs = np.stack([member({0}, 1), member({1, 2}, 2), member({0, 1, 2}, 3)])
    for kind in TaskKind:
        weights = learn_weights(kind, probs, TARGETS)
        assert weights.shape == (3, 3)
        np.testing.assert_allclose(weights.sum(axis=0), 1, rtol=1e-5)
        assert (weights >= 0).all()


def test_a_better_member_gets_more_weight_in_every_class() -> None:
    weights = learn_weights(SINGLE, np.stack([member({0, 1, 2}, 1), member(set(), 2)]), TARGETS)
    assert (weights[0] > 0.8).all()


def test_weights_follow_who_is_right_about_each_label() -> None:
    generator = np.random.default_rng(0)
    targets = (generator.random((ROWS, 3)) < 0.5).astype(np.float32)
    sure, blind = 0.1 + 0.8 * targets, np.full((ROWS, 3), 0.5, np.float32)
    first, second = blind.copy(), blind.copy()
    first[:, 0], second[:, 1:] = sure[:, 0], sure[:, 1:]
    weights = learn_weights(MULTI, np.stack([first, second]), targets)
    assert weights[0, 0] > 0.7
    assert (weights[1, 1:] > 0.7).all()


def test_equal_members_share_equally() -> None:
    probs = np.stack([member({0, 1}, 1)] * 2)
    np.testing.assert_allclose(learn_weights(SINGLE, probs, TARGETS), 0.5, atol=1e-4)


def test_three_lucky_rows_move_the_weights_little_and_the_same_luck_in_all_rows_moves_them_far() -> None:
    probs = np.stack([member({0, 1, 2}, 1), member(set(), 2)])
    few = learn_weights(SINGLE, probs[:, :3], TARGETS[:3])
    assert (few < 0.85).all()
    assert (few[0] > 0.5).all()
    assert (learn_weights(SINGLE, probs, TARGETS)[0] > few[0]).all()


def test_a_class_without_rows_follows_its_member() -> None:
    rows = TRUTH != 2
    weights = learn_weights(SINGLE, np.stack([member({0, 1}, 1), member(set(), 2)])[:, rows], TARGETS[rows])
    assert weights[0, 2] > 0.7


def test_a_member_that_answered_nothing_keeps_an_equal_share() -> None:
    probs = np.stack([member({0, 1, 2}, 1), np.zeros((ROWS, 3), np.float32)])
    presence = np.stack([np.ones(ROWS), np.zeros(ROWS)]).astype(np.float32)
    np.testing.assert_allclose(learn_weights(SINGLE, probs, TARGETS, presence), 0.5, atol=1e-6)


def test_a_member_is_weighed_by_the_rows_it_answered() -> None:
    presence = np.ones((2, ROWS), np.float32)
    presence[1, 60:] = 0
    probs = np.stack([member(set(), 1), member({0, 1, 2}, 2)])
    probs[1, 60:] = 0
    assert (learn_weights(SINGLE, probs, TARGETS, presence)[1] > 0.6).all()


def test_rows_that_nobody_answered_do_not_count() -> None:
    probs = np.stack([member({0, 1}, 1), member({1, 2}, 2)])
    presence = np.ones((2, ROWS), np.float32)
    presence[:, 90:] = 0
    np.testing.assert_allclose(
        learn_weights(SINGLE, probs, TARGETS, presence), learn_weights(SINGLE, probs[:, :90], TARGETS[:90]), atol=1e-4
    )


def test_the_weight_of_a_silent_member_goes_to_the_others() -> None:
    probs = np.stack([member({0}, 1), member({1}, 2), member({2}, 3)])
    weights = np.array([[0.2] * 3, [0.3] * 3, [0.5] * 3], np.float32)
    presence = np.ones((3, ROWS), np.float32)
    presence[2, 0], presence[1:, 1] = 0, 0
    mixed = mix(SINGLE, probs, weights, presence)
    np.testing.assert_allclose(mixed[0], 0.4 * probs[0, 0] + 0.6 * probs[1, 0], rtol=1e-5)
    np.testing.assert_allclose(mixed[1], probs[0, 1], rtol=1e-5)
    np.testing.assert_allclose(mixed[2], (probs[:, 2] * weights).sum(axis=0), rtol=1e-5)


def test_a_member_with_most_of_its_mass_outside_counts_less() -> None:
    probs = np.array([[[1.0, 0.0]], [[0.0, 1.0]]], np.float32)
    mixed = mix(SINGLE, probs, np.full((2, 2), 0.5, np.float32), np.array([[1.0], [0.25]], np.float32))
    np.testing.assert_allclose(mixed, [[0.8, 0.2]], rtol=1e-6)


def test_a_single_label_mixture_is_a_distribution() -> None:
    probs = np.stack([member({0}, 1), member({1}, 2)])
    mixed = mix(SINGLE, probs, np.array([[0.9, 0.1, 0.5], [0.1, 0.9, 0.5]], np.float32))
    np.testing.assert_allclose(mixed.sum(axis=1), 1, rtol=1e-5)


def test_a_multi_label_mixture_is_the_weighted_mean_of_each_label() -> None:
    probs = np.array([[[0.2, 0.8]], [[0.6, 0.4]]], np.float32)
    mixed = mix(MULTI, probs, np.array([[0.25, 0.5], [0.75, 0.5]], np.float32))
    np.testing.assert_allclose(mixed, [[0.5, 0.6]], rtol=1e-6)


def test_cross_fitted_rows_are_mixed_with_weights_that_never_saw_them() -> None:
    probs, presence = np.stack([member({0, 1}, 1), member({1, 2}, 2)]), np.ones((2, ROWS), np.float32)
    mixed = cross_fitted(SINGLE, probs, TARGETS, presence)
    out = np.arange(ROWS) % 5 == 3
    weights = learn_weights(SINGLE, probs[:, ~out], TARGETS[~out], presence[:, ~out])
    np.testing.assert_allclose(mixed[out], mix(SINGLE, probs[:, out], weights), rtol=1e-5)
    assert nats(mixed) > nats(mix(SINGLE, probs, learn_weights(SINGLE, probs, TARGETS)))


def diverge(kind: TaskKind, probs: Floats, weights: Floats, outside: Floats | None = None) -> Floats:
    """Return the disagreement of members who all answered."""
    shape = probs.shape[:2]
    return disagreement(
        kind, probs, weights, np.ones(shape, np.float32), np.zeros(shape, np.float32) if outside is None else outside
    )


def test_members_that_agree_do_not_diverge_and_opposite_ones_diverge_by_the_entropy_of_their_weights() -> None:
    probs = np.array([[[1, 0], [0.3, 0.7]], [[0, 1], [0.3, 0.7]]], np.float32)
    weights = np.array([[0.25, 0.25], [0.75, 0.75]], np.float32)
    entropy = -(0.25 * np.log(0.25) + 0.75 * np.log(0.75))
    np.testing.assert_allclose(diverge(SINGLE, probs, weights), [entropy, 0], atol=1e-6)


def test_disagreement_is_the_jensen_shannon_divergence_of_scipy() -> None:
    from scipy.spatial.distance import jensenshannon

    probs = np.stack([member({0, 1}, 1), member({1, 2}, 2)])
    # SciPy returns the root of the divergence for equal weights.
    wanted = jensenshannon(probs[0], probs[1], axis=1) ** 2
    np.testing.assert_allclose(diverge(SINGLE, probs, np.full((2, 3), 0.5, np.float32)), wanted, atol=1e-5)


def test_multi_label_disagreement_adds_up_over_the_labels() -> None:
    probs = np.array([[[1, 0.5, 1]], [[0, 0.5, 0]]], np.float32)
    np.testing.assert_allclose(diverge(MULTI, probs, np.full((2, 3), 0.5, np.float32)), [2 * np.log(2)], rtol=1e-6)


def test_a_member_alone_does_not_disagree() -> None:
    probs = np.stack([member({0}, 1), member({1}, 2)])
    presence = np.stack([np.ones(ROWS), np.zeros(ROWS)]).astype(np.float32)
    weights = np.full((2, 3), 0.5, np.float32)
    assert disagreement(SINGLE, probs, weights, presence, np.zeros((2, ROWS), np.float32)).max() == pytest.approx(0)


def test_mass_outside_is_one_more_outcome_to_disagree_on() -> None:
    probs = np.array([[[1.0, 0.0]], [[1.0, 0.0]]], np.float32)
    weights = np.full((2, 2), 0.5, np.float32)
    assert diverge(SINGLE, probs, weights, np.array([[0.0], [0.9]], np.float32))[0] > 0.2
    assert diverge(SINGLE, probs, weights)[0] == pytest.approx(0)


def test_mean_outside_is_that_of_the_members_who_answered() -> None:
    weights = np.array([[0.25, 0.25], [0.75, 0.75]], np.float32)
    outside = np.array([[0.4, 0.4], [0.0, 1.0]], np.float32)
    presence = np.array([[0.6, 0.6], [1.0, 0.0]], np.float32)
    np.testing.assert_allclose(mean_outside(weights, presence, outside), [0.1, 0.4], rtol=1e-6)
