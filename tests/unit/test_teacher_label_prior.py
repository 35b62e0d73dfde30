"""Facts about calibrating label scores: what a prior is, and what fitting on gold brings back."""

import numpy as np
import pytest
from scipy.special import expit, log_softmax, softmax

from teacher.label_prior import LabelCalibration, batch_prior, contextual_prior, fit_calibration
from teacher.task import TaskKind

SINGLE, MULTI = TaskKind.SINGLE_LABEL, TaskKind.MULTI_LABEL


@pytest.fixture
def random() -> np.random.Generator:
    return np.random.default_rng(0)


def one_hot(rows: np.ndarray, labels: int) -> np.ndarray:
    return np.eye(labels, dtype=np.float32)[rows]


def test_the_contextual_prior_is_the_log_of_the_mean_probability() -> None:
    probs = np.array([[0.7, 0.2, 0.1], [0.5, 0.1, 0.4]])
    np.testing.assert_allclose(contextual_prior(SINGLE, np.log(probs) + 3), np.log([0.6, 0.15, 0.25]), rtol=1e-6)


def test_the_multi_label_prior_is_the_mean_score() -> None:
    np.testing.assert_allclose(contextual_prior(MULTI, np.array([[1.0, 4], [3, 0]])), [2, 2])


def test_the_batch_prior_of_equal_classes_leaves_no_label_preferred(random: np.random.Generator) -> None:
    truth = np.repeat(np.arange(4), 50)
    evidence = one_hot(truth, 4) * 2 + random.normal(0, 0.5, (200, 4))
    biased = evidence + np.array([3.0, 0, 0, 0])
    prior = batch_prior(SINGLE, biased, one_hot(truth, 4))
    assert (biased.argmax(axis=1) == truth).mean() < 0.4
    assert ((biased - prior).argmax(axis=1) == truth).mean() > 0.9


def test_the_batch_prior_keeps_a_rare_label_rare() -> None:
    truth = np.repeat([0, 1], [190, 10])
    scores = np.log(np.array([[0.95, 0.05]])).repeat(200, axis=0)
    prior = batch_prior(SINGLE, scores, one_hot(truth, 2))
    assert softmax(scores - prior, axis=1)[:, 1].mean() == pytest.approx(0.05, abs=0.01)


def test_single_label_logits_are_the_evidence_over_the_fitted_temperature(random: np.random.Generator) -> None:
    logits = random.normal(0, 2, (4000, 3))
    truth = np.array([random.choice(3, p=row) for row in softmax(logits, axis=1)])
    prior = np.array([1.0, -1, 0])
    found = fit_calibration(SINGLE, 4 * logits + prior, one_hot(truth, 3), prior)
    assert found.temperature == pytest.approx(4, rel=0.1)
    np.testing.assert_allclose(found.logits(4 * logits + prior), 4 * logits / found.temperature, atol=1e-5)


def test_multi_label_calibration_finds_the_log_odds_that_made_the_labels(random: np.random.Generator) -> None:
    evidence = random.normal(0, 2, (6000, 3))
    truth = (random.random((6000, 3)) < expit(evidence - 1.5)).astype(np.float32)
    found = fit_calibration(MULTI, 3 * evidence, truth, None)
    assert found.temperature == pytest.approx(3, rel=0.1)
    np.testing.assert_allclose(found.offset, -1.5, atol=0.1)


def test_without_evidence_a_multi_label_answer_is_the_labels_share_of_gold(random: np.random.Generator) -> None:
    truth = (random.random((5000, 3)) < np.array([0.5, 0.1, 0.02])).astype(np.float32)
    noise = random.normal(0, 1, (5000, 3)) + np.array([3.0, 0, -3])
    found = fit_calibration(MULTI, noise, truth, contextual_prior(MULTI, noise))
    np.testing.assert_allclose(expit(found.logits(noise)).mean(axis=0), truth.mean(axis=0), atol=0.01)


@pytest.mark.parametrize("kind", [SINGLE, MULTI])
def test_no_rows_change_nothing(kind: TaskKind, random: np.random.Generator) -> None:
    found = fit_calibration(kind, np.empty((0, 3)), np.empty((0, 3)), None)
    scores = log_softmax(random.normal(size=(2, 3)), axis=1)
    np.testing.assert_allclose(found.logits(scores), scores, atol=1e-6)


def test_a_calibration_survives_its_card() -> None:
    whole = LabelCalibration(np.array([0.5, 1]), 2.0, np.array([0.0, -1]))
    again = LabelCalibration.from_details(2.0, whole.details())
    np.testing.assert_array_equal(again.logits(np.ones((1, 2))), whole.logits(np.ones((1, 2))))
