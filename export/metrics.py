"""Quality of probabilities against labels and against each other; numpy only, one place for all packages.

Arrays: `probs` (N, C) float, `targets` (N, C) 0/1, N at least 1.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.floating]
Kind = str  # "single_label" or "multi_label", as the manifest spells it


@dataclass(frozen=True, slots=True)
class Interval:
    """An estimate with the ends of its 95 % interval."""

    estimate: float
    low: float
    high: float


def softmax(logits: Floats) -> NDArray[np.float32]:
    """Return the softmax over the last axis, stable for large logits."""
    shifted = np.exp(logits - logits.max(axis=-1, keepdims=True))
    return np.asarray(shifted / shifted.sum(axis=-1, keepdims=True), np.float32)


def sigmoid(logits: Floats) -> NDArray[np.float32]:
    """Return the logistic function of each element."""
    return np.asarray(0.5 * (1.0 + np.tanh(0.5 * logits)), np.float32)


ACTIVATIONS: dict[Kind, Callable[[Floats], NDArray[np.float32]]] = {
    "single_label": softmax,
    "multi_label": sigmoid,
}


def decode(kind: Kind, probs: Floats, thresholds: Floats | None = None) -> NDArray[np.bool_]:
    """Return the decisions (N, C): the most probable label, or every label at or above its threshold."""
    if kind == "multi_label":
        return probs >= (0.5 if thresholds is None else thresholds)
    decided = np.zeros(probs.shape, bool)
    decided[np.arange(len(probs)), probs.argmax(axis=1)] = True
    return decided


def row_scores(decided: NDArray[np.bool_], targets: Floats) -> NDArray[np.float64]:
    """Return 1.0 for each row whose decided labels are exactly the target labels, else 0.0 (subset accuracy)."""
    return np.asarray((decided == targets.astype(bool)).all(axis=1), np.float64)


def f1_per_class(decided: NDArray[np.bool_], targets: Floats) -> NDArray[np.float64]:
    """Return F1 (C,) = 2 TP / (2 TP + FP + FN); 0 where a class is neither decided nor present."""
    truth = targets.astype(bool)
    hits = (decided & truth).sum(axis=0)
    total = decided.sum(axis=0) + truth.sum(axis=0)
    return np.asarray(2 * hits / np.maximum(total, 1), np.float64)


def recall_per_class(decided: NDArray[np.bool_], targets: Floats) -> NDArray[np.float64]:
    """Return recall (C,); NaN for a class without a row."""
    truth = targets.astype(bool)
    present = truth.sum(axis=0)
    hits = (decided & truth).sum(axis=0)
    return np.asarray(np.where(present > 0, hits / np.maximum(present, 1), np.nan), np.float64)


def macro_f1(decided: NDArray[np.bool_], targets: Floats) -> float:
    """Return the mean F1 over the classes that are decided or present at least once."""
    used = (decided.any(axis=0)) | (targets.astype(bool).any(axis=0))
    return float(f1_per_class(decided, targets)[used].mean()) if used.any() else 0.0


def calibration_error(kind: Kind, probs: Floats, targets: Floats, bins: int = 15) -> float:
    """Return the expected calibration error (Guo et al. 2017, equal-width bins).

    Single-label: confidence of the top label. Multi-label: over all (row, label) cells.
    """
    confidence, correct = confidences(kind, probs, targets)
    which = np.minimum((confidence * bins).astype(int), bins - 1)
    total = np.bincount(which, minlength=bins)
    gap = np.abs(
        np.bincount(which, weights=correct, minlength=bins) - np.bincount(which, weights=confidence, minlength=bins)
    )
    return float(gap.sum() / max(total.sum(), 1))


def confidences(kind: Kind, probs: Floats, targets: Floats) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return what a reliability diagram is drawn from: confidences and whether each was right (0/1)."""
    if kind == "multi_label":
        return probs.ravel().astype(np.float64), targets.ravel().astype(np.float64)
    top = probs.argmax(axis=1)
    rows = np.arange(len(probs))
    return probs[rows, top].astype(np.float64), targets[rows, top].astype(np.float64)


def mean_kl(kind: Kind, reference: Floats, other: Floats) -> float:
    """Return the mean KL(reference || other) in nats; over cells of two outcomes for multi-label."""
    p = np.clip(reference.astype(np.float64), 1e-9, 1.0)
    q = np.clip(other.astype(np.float64), 1e-9, 1.0)
    divergence = p * np.log(p / q)
    if kind == "multi_label":
        not_p, not_q = np.clip(1 - p, 1e-9, 1.0), np.clip(1 - q, 1e-9, 1.0)
        return float((divergence + not_p * np.log(not_p / not_q)).mean())
    return float(divergence.sum(axis=1).mean())


def paired_bootstrap(
    ours: Floats,
    theirs: Floats,
    statistic: Callable[[NDArray[np.intp]], float] | None = None,
    *,
    samples: int = 2000,
    seed: int = 0,
) -> Interval:
    """Return ours minus theirs with the 95 % percentile interval of a paired bootstrap over rows.

    `ours` and `theirs` are row scores (N,). With `statistic`, it is called with resampled row indices
    instead (for measures that are no mean of rows, such as macro-F1) and `ours` only gives N.
    """
    rows = len(ours)
    generator = np.random.default_rng(seed)
    if statistic is None:
        difference = ours.astype(np.float64) - theirs.astype(np.float64)
        drawn = np.array([difference[generator.integers(0, rows, rows)].mean() for _ in range(samples)])
        estimate = float(difference.mean())
    else:
        drawn = np.array([statistic(generator.integers(0, rows, rows)) for _ in range(samples)])
        estimate = float(statistic(np.arange(rows)))
    low, high = np.percentile(drawn, [2.5, 97.5])
    return Interval(estimate, float(low), float(high))
