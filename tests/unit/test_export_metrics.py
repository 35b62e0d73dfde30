import numpy as np
import pytest

from export.metrics import (
    ACTIVATIONS,
    calibration_error,
    confidences,
    decode,
    f1_per_class,
    macro_f1,
    mean_kl,
    paired_bootstrap,
    recall_per_class,
    row_scores,
    sigmoid,
    softmax,
)

PROBS = np.array([[0.7, 0.2, 0.1], [0.4, 0.5, 0.1], [0.3, 0.3, 0.4], [0.6, 0.3, 0.1]])
TARGETS = np.array([[1, 0, 0], [0, 1, 0], [1, 0, 0], [0, 1, 0]])


def test_softmax_sums_to_one_for_logits_that_overflow_exp() -> None:
    probs = softmax(np.array([[1000.0, 1000.0], [-1000.0, 0.0]]))
    assert np.allclose(probs, [[0.5, 0.5], [0.0, 1.0]])


def test_sigmoid_is_the_logistic_function_at_both_ends() -> None:
    logits = np.array([-1000.0, -1.0, 0.0, 1.0, 1000.0])
    assert np.allclose(sigmoid(logits), [0.0, 1 / (1 + np.e), 0.5, np.e / (1 + np.e), 1.0])


def test_each_task_kind_has_an_activation() -> None:
    assert {"single_label": softmax, "multi_label": sigmoid} == ACTIVATIONS


def test_a_single_label_answer_is_the_most_probable_label() -> None:
    assert decode("single_label", PROBS).argmax(axis=1).tolist() == [0, 1, 2, 0]
    assert decode("single_label", PROBS).sum(axis=1).tolist() == [1, 1, 1, 1]


def test_a_multi_label_answer_is_every_label_at_or_above_its_threshold() -> None:
    decided = decode("multi_label", PROBS, np.array([0.4, 0.3, 0.9]))
    assert decided.tolist() == [[1, 0, 0], [1, 1, 0], [0, 1, 0], [1, 1, 0]]


def test_a_multi_label_threshold_is_one_half_unless_given() -> None:
    assert decode("multi_label", PROBS).tolist() == [[1, 0, 0], [0, 1, 0], [0, 0, 0], [1, 0, 0]]


def test_a_row_scores_only_when_all_its_labels_are_right() -> None:
    assert row_scores(decode("single_label", PROBS), TARGETS).tolist() == [1, 1, 0, 0]


def test_f1_and_recall_agree_with_a_count_by_hand() -> None:
    decided = decode("single_label", PROBS)  # 0, 1, 2, 0 against 0, 1, 0, 1
    assert f1_per_class(decided, TARGETS) == pytest.approx([2 / 4, 2 / 3, 0.0])
    assert recall_per_class(decided, TARGETS)[:2] == pytest.approx([0.5, 0.5])


def test_recall_of_a_class_without_rows_is_no_number() -> None:
    assert np.isnan(recall_per_class(decode("single_label", PROBS), TARGETS)[2])


def test_macro_f1_leaves_out_classes_that_nobody_named() -> None:
    wider = np.pad(TARGETS, ((0, 0), (0, 5)))
    assert macro_f1(wider.astype(bool), wider) == 1.0


def test_calibration_error_of_certain_answers_is_their_error_rate() -> None:
    certain = np.eye(2)[[0, 0, 0, 1]]
    targets = np.eye(2)[[0, 0, 1, 1]]
    assert calibration_error("single_label", certain, targets) == pytest.approx(0.25)


def test_calibration_error_agrees_with_a_count_by_hand() -> None:
    # Bins of 1/15 hold 0.7 right, 0.5 right, 0.4 wrong and 0.6 wrong, one row each.
    assert calibration_error("single_label", PROBS, TARGETS) == pytest.approx((0.3 + 0.5 + 0.4 + 0.6) / 4)


def test_multi_label_confidence_is_each_cell() -> None:
    confidence, correct = confidences("multi_label", PROBS, TARGETS)
    assert confidence.tolist() == PROBS.ravel().tolist()
    assert correct.tolist() == TARGETS.ravel().tolist()


@pytest.mark.parametrize("kind", ["single_label", "multi_label"])
def test_divergence_is_zero_from_itself_and_positive_from_others(kind: str) -> None:
    other = np.roll(PROBS, 1, axis=0)
    assert mean_kl(kind, PROBS, PROBS) == pytest.approx(0.0, abs=1e-9)
    assert mean_kl(kind, PROBS, other) > 0.01


def test_divergence_agrees_with_its_formula() -> None:
    reference, other = np.array([[0.5, 0.5]]), np.array([[0.9, 0.1]])
    wanted = 0.5 * np.log(0.5 / 0.9) + 0.5 * np.log(0.5 / 0.1)
    assert mean_kl("single_label", reference, other) == pytest.approx(wanted)


def test_divergence_from_a_certain_wrong_answer_is_finite() -> None:
    assert np.isfinite(mean_kl("single_label", np.array([[1.0, 0.0]]), np.array([[0.0, 1.0]])))


def test_the_interval_of_a_paired_difference_holds_the_normal_one() -> None:
    generator = np.random.default_rng(0)
    ours, theirs = generator.random(500) < 0.8, generator.random(500) < 0.7
    interval = paired_bootstrap(ours, theirs)
    difference = ours.astype(float) - theirs
    error = 1.96 * difference.std() / np.sqrt(500)
    assert interval.estimate == pytest.approx(difference.mean())
    assert interval.low == pytest.approx(difference.mean() - error, abs=0.006)
    assert interval.high == pytest.approx(difference.mean() + error, abs=0.006)


def test_a_statistic_sees_the_resampled_rows() -> None:
    ours = np.arange(10.0)
    by_mean = paired_bootstrap(ours, np.zeros(10))
    by_statistic = paired_bootstrap(ours, ours, lambda rows: float(ours[rows].mean()))
    assert by_statistic == by_mean


def test_the_same_seed_gives_the_same_interval_and_another_seed_another() -> None:
    ours, theirs = np.random.default_rng(0).random((2, 50))
    assert paired_bootstrap(ours, theirs, seed=1) == paired_bootstrap(ours, theirs, seed=1)
    assert paired_bootstrap(ours, theirs, seed=1) != paired_bootstrap(ours, theirs, seed=2)
