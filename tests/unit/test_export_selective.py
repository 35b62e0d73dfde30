"""Facts about the threshold below which the student does not answer alone; scipy is the reference for its bound."""

import msgspec
import numpy as np
import pytest
from scipy.stats import beta, binomtest

from export.metrics import decode, softmax
from export.selective import Abstention, certainty, fit_abstention, risk_curve
from export.spec import AbstainSpec

GRID = np.linspace(0, 1, 2001)  # the certainty of a pool in which every value is as likely as any other


def drawn(seed: int, rows: int = 800) -> tuple[np.ndarray, np.ndarray]:
    """Return certainties, uniform, and whether each is right: wrong at most where the certainty is low."""
    generator = np.random.default_rng(seed)
    certain = generator.random(rows)
    return certain, generator.random(rows) > 0.2 * (1 - certain) ** 2


def true_accuracy(threshold: float) -> float:
    """Return the accuracy at or above `threshold` of what `drawn` draws from."""
    return 1 - 0.2 * (1 - threshold) ** 2 / 3


def test_a_single_label_answer_is_as_certain_as_its_best_label_against_the_second() -> None:
    probs = np.array([[0.6, 0.3, 0.1], [0.1, 0.1, 0.8]], np.float32)
    found = certainty("single_label", probs, decode("single_label", probs))
    assert found == pytest.approx([0.6 / 0.9, 0.8 / 0.9])


def test_the_order_of_single_label_certainties_does_not_depend_on_the_temperature() -> None:
    logits = np.random.default_rng(0).normal(size=(200, 6))
    orders = []
    for temperature in (0.5, 1.0, 3.0):
        probs = softmax(logits / temperature)
        orders.append(certainty("single_label", probs, decode("single_label", probs)).argsort().tolist())
    assert orders[0] == orders[1] == orders[2]


def test_a_multi_label_answer_is_as_certain_as_its_whole_set() -> None:
    probs = np.array([[0.9, 0.2], [0.4, 0.6]], np.float32)
    decided = decode("multi_label", probs, np.array([0.5, 0.7]))
    assert certainty("multi_label", probs, decided) == pytest.approx([0.9 * 0.8, 0.6 * 0.4])


def test_a_threshold_is_proved_by_the_bound_of_clopper_and_pearson() -> None:
    certain, is_right = drawn(1)
    spec = AbstainSpec(accuracy=0.95, level=0.95)
    promise = fit_abstention(certain, is_right, GRID, spec)
    assert promise.threshold is not None
    answered = certain >= promise.threshold
    wrong, rows = int((answered & ~is_right).sum()), int(answered.sum())
    upper = beta.ppf(1 - 0.05 / 3, wrong + 1, rows - wrong)
    assert upper <= 0.05
    assert binomtest(wrong, rows, 0.05, alternative="less").pvalue <= 0.05 / 3
    assert promise.coverage == answered.mean() > 0.5
    assert (promise.accuracy, promise.level, promise.rows) == (0.95, 0.95, 800)


def test_the_promise_is_broken_no_more_often_than_it_says() -> None:
    spec = AbstainSpec(accuracy=0.97, level=0.9)
    found = [fit_abstention(*drawn(seed), GRID, spec).threshold for seed in range(300)]
    broken = sum(threshold is not None and true_accuracy(threshold) < 0.97 for threshold in found)
    assert sum(threshold is not None for threshold in found) > 200
    assert broken <= 0.1 * len(found)


def test_more_dev_rows_let_the_student_answer_more() -> None:
    spec = AbstainSpec(accuracy=0.95)
    few, many = (fit_abstention(*drawn(3, rows), GRID, spec).coverage for rows in (400, 20_000))
    assert few < many


def test_a_student_that_is_right_enough_everywhere_answers_everything() -> None:
    promise = fit_abstention(np.full(500, 0.7), np.ones(500, bool), GRID, AbstainSpec(accuracy=0.95))
    assert (promise.threshold, promise.coverage) == (0.0, 1.0)


@pytest.mark.parametrize(("rows", "share_right"), [(20, 1.0), (800, 0.5), (0, 1.0)])
def test_too_few_rows_or_too_many_errors_prove_nothing(rows: int, share_right: float) -> None:
    is_right = np.arange(rows) % 2 < 2 * share_right
    promise = fit_abstention(np.linspace(0, 1, rows), is_right, GRID, AbstainSpec(accuracy=0.97))
    assert (promise.threshold, promise.coverage) == (None, 0.0)


def test_the_curve_answers_ties_together_and_ends_at_the_plain_accuracy() -> None:
    certain = np.array([0.9, 0.5, 0.5, 0.9, 0.2])
    curve = risk_curve(certain, np.array([True, False, True, True, False]))
    assert curve == [(0.4, 1.0, 0.9), (0.8, 0.75, 0.5), (1.0, 0.6, 0.2)]
    assert risk_curve(np.zeros(0), np.zeros(0, bool)) == []


def test_a_curve_of_many_rows_keeps_both_ends_and_few_points() -> None:
    certain, is_right = drawn(0, 5000)
    curve = risk_curve(certain, is_right, 50)
    assert len(curve) == 50
    assert curve[0][2] == certain.max()
    assert curve[-1] == (1.0, pytest.approx(is_right.mean()), certain.min())


def test_a_promise_survives_its_spelling_in_a_manifest() -> None:
    promise = Abstention(accuracy=0.97, level=0.95, threshold=None, coverage=0.0, rows=40)
    assert msgspec.json.decode(msgspec.json.encode(promise), type=Abstention) == promise
