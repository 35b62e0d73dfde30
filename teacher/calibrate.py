"""Fit what turns scores into honest probabilities and decisions: temperature and thresholds.

Everything here is fitted on labelled rows the scored model was not trained on.
"""

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize_scalar

from teacher.task import TaskKind

_LOG_TEMPERATURE_BOUNDS = (-3.0, 3.0)  # 0.05 to 20


def fit_temperature(kind: TaskKind, logits: NDArray[np.floating], targets: NDArray[np.floating]) -> float:
    """Return the temperature T > 0 that minimises the negative log-likelihood of `targets` under logits / T.

    `logits` and 0/1 `targets` are (N, C). Guo et al. 2017, "On Calibration of Modern Neural Networks";
    for multi-label tasks the likelihood is that of independent labels. Returns 1.0 for no rows.
    """
    if len(logits) == 0:
        return 1.0
    scores = logits.astype(np.float64)
    loss = _LOSSES[kind]
    best = minimize_scalar(
        lambda log_t: loss(scores / np.exp(log_t), targets), bounds=_LOG_TEMPERATURE_BOUNDS, method="bounded"
    )
    return float(np.exp(best.x))


def fit_thresholds(probs: NDArray[np.floating], targets: NDArray[np.floating]) -> NDArray[np.float32]:
    """Return one decision threshold per label (C,) that maximises F1 on the given rows (N, C).

    A label with few positives has a ragged F1 curve whose peak is luck. The curve is therefore averaged over
    neighbouring cuts in rank (about a quarter of the label's positives on each side) before the best is taken.
    A label without positives keeps 0.5.
    """
    thresholds = np.full(probs.shape[1], 0.5, np.float32)
    for column in range(probs.shape[1]):
        positives = int(targets[:, column].sum())
        if positives:
            thresholds[column] = _best_cut(probs[:, column], targets[:, column], positives)
    return thresholds


def _best_cut(probs: NDArray[np.floating], truth: NDArray[np.floating], positives: int) -> float:
    order = np.argsort(-probs, kind="stable")
    hits = np.cumsum(truth[order])
    f1 = 2 * hits / (np.arange(1, len(order) + 1) + positives)
    reach = max(positives // 4, 1)
    padded = np.pad(f1, reach, mode="edge")
    smooth = np.convolve(padded, np.ones(2 * reach + 1) / (2 * reach + 1), mode="valid")
    cut = int(smooth.argmax())
    below = probs[order[min(cut + 1, len(order) - 1)]]
    return float((probs[order[cut]] + below) / 2)


def _single_label_loss(logits: NDArray[np.float64], targets: NDArray[np.floating]) -> float:
    shifted = logits - logits.max(axis=1, keepdims=True)
    log_probs = shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True))
    return float(-(targets * log_probs).sum(axis=1).mean())


def _multi_label_loss(logits: NDArray[np.float64], targets: NDArray[np.floating]) -> float:
    return float((np.logaddexp(0.0, logits) - targets * logits).mean())


_LOSSES = {TaskKind.SINGLE_LABEL: _single_label_loss, TaskKind.MULTI_LABEL: _multi_label_loss}
