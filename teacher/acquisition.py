"""What makes a text worth a label: how unsure a cheap student is of it, and how far it is from what is labelled.

Arrays in, orders out. Knows no texts, files or teachers.
"""

from collections.abc import Callable
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from sklearn.linear_model import LogisticRegression

from teacher.task import TaskKind

Floats = NDArray[np.float32]
Uncertainty = Literal["margin", "entropy"]
_BLOCK = 4096  # rows of points, and of centres, that are compared at once
_STRENGTH = 10.0  # inverse regularisation of the cheap student; its inputs have length 1
_LEAST_WEIGHT = 1e-6  # a text the student is sure of is taken last, not never


def student_probs(kind: TaskKind, gold: Floats, targets: Floats, points: Floats) -> Floats:
    """Return the probabilities (N, present labels) of `points` under a linear model fitted on `gold` embeddings.

    `targets` are 0/1 (G, C); a label that tells no two gold rows apart has no column.
    """
    if kind is TaskKind.MULTI_LABEL:
        varied = [truth for truth in targets.T if truth.min() != truth.max()]
        columns = [_fit(gold, truth).predict_proba(points)[:, 1] for truth in varied]
        return np.asarray(np.stack(columns, axis=1) if columns else np.zeros((len(points), 0)), np.float32)
    classes = targets.argmax(axis=1)
    if len(np.unique(classes)) == 1:
        return np.ones((len(points), 1), np.float32)
    return np.asarray(_fit(gold, classes).predict_proba(points), np.float32)


def uncertainty(kind: TaskKind, probs: Floats, measure: Uncertainty) -> Floats:
    """Return how unsure each row of `probs` (N, C) is, in 0 to 1 (N,).

    `margin` is 1 minus the lead of the best label over the second (Scheffer et al. 2001); `entropy` is that of the
    row over its maximum. For multi-label tasks: of the label nearest to 1/2, and the mean over labels.
    """
    if probs.shape[1] == 0:
        return np.zeros(len(probs), np.float32)
    return np.asarray(np.clip(_MEASURES[kind, measure](probs), 0, 1), np.float32)


def k_center(points: Floats, centres: Floats, count: int, weights: Floats | None = None) -> NDArray[np.intp]:
    """Return `count` rows of `points` (N, width), each the one farthest from `centres` and the rows before it.

    The greedy 2-approximation of k-center of Sener & Savarese 2018, "Active Learning for Convolutional Neural
    Networks: A Core-Set Approach", in squared Euclidean distance, times `weights` (N,) where given. A tie goes to the
    lower row. Time grows as count x N x width; memory beyond `points` as N.
    """
    squares = np.einsum("ij,ij->i", points, points)
    nearest = _nearest(points, squares, centres)
    trust = None if weights is None else np.maximum(weights, _LEAST_WEIGHT)
    order = np.empty(min(count, len(points)), np.intp)
    for position in range(len(order)):
        row = int((nearest if trust is None else nearest * trust).argmax())
        order[position] = row
        reach = np.maximum(squares + squares[row] - 2 * (points @ points[row]), 0)
        np.minimum(nearest, reach, out=nearest)
        nearest[row] = -np.inf  # an equal text is as near, and this one must not come twice
    return order


def _fit(points: Floats, truth: NDArray[np.generic]) -> LogisticRegression:
    return LogisticRegression(C=_STRENGTH, max_iter=1000).fit(points, truth)


def _nearest(points: Floats, squares: Floats, centres: Floats) -> Floats:
    """Return the squared distance (N,) of each point to the nearest centre; infinity where there are no centres."""
    nearest = np.full(len(points), np.inf, np.float32)
    for start in range(0, len(points), _BLOCK):
        block = slice(start, start + _BLOCK)
        for first in range(0, len(centres), _BLOCK):
            some = centres[first : first + _BLOCK]
            distances = np.einsum("ij,ij->i", some, some) - 2 * (points[block] @ some.T)
            np.minimum(nearest[block], distances.min(axis=1) + squares[block], out=nearest[block])
    return np.maximum(nearest, 0)


def _margin(probs: Floats) -> Floats:
    if probs.shape[1] == 1:
        return np.zeros(len(probs), np.float32)
    best = np.partition(probs, -2, axis=1)[:, -2:]
    return np.asarray(1 - (best[:, 1] - best[:, 0]), np.float32)


def _entropy(probs: Floats) -> Floats:
    share = np.clip(probs.astype(np.float64), 1e-12, 1)
    most = np.log(max(probs.shape[1], 2))
    return np.asarray(-(share * np.log(share)).sum(axis=1) / most, np.float32)


def _label_margin(probs: Floats) -> Floats:
    return np.asarray(1 - np.abs(2 * probs - 1).min(axis=1), np.float32)


def _label_entropy(probs: Floats) -> Floats:
    share = np.clip(probs.astype(np.float64), 1e-12, 1 - 1e-12)
    nats = -(share * np.log(share) + (1 - share) * np.log1p(-share))
    return np.asarray(nats.mean(axis=1) / np.log(2), np.float32)


_MEASURES: dict[tuple[TaskKind, Uncertainty], Callable[[Floats], Floats]] = {
    (TaskKind.SINGLE_LABEL, "margin"): _margin,
    (TaskKind.SINGLE_LABEL, "entropy"): _entropy,
    (TaskKind.MULTI_LABEL, "margin"): _label_margin,
    (TaskKind.MULTI_LABEL, "entropy"): _label_entropy,
}
