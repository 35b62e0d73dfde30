import numpy as np
import pytest
from numpy.typing import NDArray

from teacher.calibrate import fit_temperature, fit_thresholds
from teacher.task import TaskKind

Floats = NDArray[np.float64]


def drawn(kind: TaskKind, rows: int = 6000, labels: int = 4) -> tuple[Floats, Floats]:
    """Return logits and targets that were drawn from exactly these logits' probabilities."""
    generator = np.random.default_rng(0)
    logits = generator.normal(scale=2, size=(rows, labels))
    if kind is TaskKind.MULTI_LABEL:
        return logits, (generator.random(logits.shape) < 1 / (1 + np.exp(-logits))).astype(float)
    gumbel = generator.gumbel(size=logits.shape)
    return logits, np.eye(labels)[(logits + gumbel).argmax(axis=1)]


def f1(decided: NDArray[np.bool_], truth: Floats) -> float:
    hits = float((decided & (truth > 0)).sum())
    return 2 * hits / (decided.sum() + truth.sum())


@pytest.mark.parametrize("kind", list(TaskKind))
@pytest.mark.parametrize("scale", [0.25, 1.0, 5.0])
def test_the_temperature_recovers_a_known_scale(kind: TaskKind, scale: float) -> None:
    logits, targets = drawn(kind)
    assert fit_temperature(kind, scale * logits, targets) == pytest.approx(scale, rel=0.06)


def test_the_temperature_of_no_rows_is_one() -> None:
    assert fit_temperature(TaskKind.SINGLE_LABEL, np.empty((0, 3)), np.empty((0, 3))) == 1.0


@pytest.mark.parametrize("kind", list(TaskKind))
def test_the_temperature_lowers_the_loss_it_is_fitted_for(kind: TaskKind) -> None:
    logits, targets = drawn(kind, rows=300)
    logits = 8 * logits

    def loss(temperature: float) -> float:
        scores = logits / temperature
        if kind is TaskKind.MULTI_LABEL:
            return float((np.logaddexp(0, scores) - targets * scores).mean())
        return float((np.logaddexp.reduce(scores, axis=1) - (scores * targets).sum(axis=1)).mean())

    best = fit_temperature(kind, logits, targets)
    assert loss(best) < min(loss(0.9 * best), loss(1.1 * best), loss(1.0))


def test_the_temperature_stays_bounded_when_every_row_is_right() -> None:
    logits = 3 * np.eye(3)[np.arange(30) % 3]
    assert 0.04 < fit_temperature(TaskKind.SINGLE_LABEL, logits, np.eye(3)[np.arange(30) % 3]) < 1


def test_a_threshold_between_separated_scores_decides_every_row_right() -> None:
    truth = np.array([1, 1, 1, 0, 0, 0, 0, 0], float)
    probs = np.array([0.31, 0.28, 0.33, 0.1, 0.05, 0.12, 0.02, 0.09])
    threshold = fit_thresholds(probs[:, None], truth[:, None])[0]
    assert f1(probs >= threshold, truth) == 1.0
    assert 0.12 < threshold < 0.28


def test_a_label_without_positives_keeps_one_half() -> None:
    thresholds = fit_thresholds(np.full((5, 2), 0.2), np.array([[0, 1]] * 5))
    assert thresholds[0] == 0.5
    assert thresholds[1] <= np.float32(0.2)


def test_a_threshold_is_the_best_cut_of_the_smoothed_curve_found_by_trying_all() -> None:
    generator = np.random.default_rng(1)
    truth = (generator.random(60) < 0.3).astype(float)
    probs = np.clip(0.25 * truth + generator.random(60) * 0.6, 0, 1)
    ranked = np.sort(probs)[::-1]
    curve = [f1(probs >= cut, truth) for cut in ranked]
    reach = int(truth.sum()) // 4
    assert reach >= 2
    padded = [curve[0]] * reach + curve + [curve[-1]] * reach
    smooth = [np.mean(padded[start : start + 2 * reach + 1]) for start in range(len(curve))]
    best = int(np.argmax(smooth))
    wanted = (ranked[best] + ranked[best + 1]) / 2
    assert fit_thresholds(probs[:, None], truth[:, None])[0] == pytest.approx(wanted, rel=1e-6)


def test_thresholds_come_close_to_the_best_f1_there_is() -> None:
    logits, targets = drawn(TaskKind.MULTI_LABEL, rows=2000)
    probs = 1 / (1 + np.exp(-logits))
    thresholds = fit_thresholds(probs, targets)
    for column, threshold in enumerate(thresholds):
        best = max(f1(probs[:, column] >= cut, targets[:, column]) for cut in np.linspace(0.01, 0.99, 99))
        assert f1(probs[:, column] >= threshold, targets[:, column]) >= best - 0.01
