"""From scores of labels to calibrated logits: take out the label prior, fit temperature and offset on gold.

Knows no model; a score is any number per text and label that grows with the evidence for the label.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize
from scipy.special import log_softmax

from teacher.calibrate import fit_temperature
from teacher.task import TaskKind

_LOG_SCALE_BOUNDS, _SHIFT_BOUNDS = (-3.0, 3.0), (-20.0, 20.0)
Scores = NDArray[np.floating[Any]]


@dataclass(frozen=True, slots=True)
class LabelCalibration:
    """logits = (scores - prior) / temperature + offset; `prior` and `offset` are (C,)."""

    prior: NDArray[np.float64]
    temperature: float
    offset: NDArray[np.float64]

    def logits(self, scores: Scores) -> NDArray[np.float32]:
        """Return calibrated logits (N, C), for softmax or, multi-label, for a sigmoid each."""
        return np.asarray((scores - self.prior) / self.temperature + self.offset, np.float32)

    def details(self) -> dict[str, list[float]]:
        """Return what a teacher's card keeps beside the temperature."""
        return {"prior": self.prior.tolist(), "offset": self.offset.tolist()}

    @classmethod
    def from_details(cls, temperature: float, details: dict[str, Any]) -> "LabelCalibration":
        """Return what `details` were made of."""
        return cls(np.asarray(details["prior"]), temperature, np.asarray(details["offset"]))


def contextual_prior(kind: TaskKind, scores: Scores) -> NDArray[np.float64]:
    """Return the prior (C,) that `scores` (M, C) of texts without content show.

    Single-label: the logarithm of the mean probability (Zhao et al. 2021, "Calibrate Before Use"); multi-label: the
    mean score, since each label stands alone.
    """
    return _MEANS[kind](scores.astype(np.float64))


def batch_prior(kind: TaskKind, scores: Scores, targets: Scores) -> NDArray[np.float64]:
    """Return the prior (C,) that `scores` (N, C) of real texts show on average, over how often gold has the label.

    Single-label: log mean p(c | text) - log share(c), the batch calibration of Zhou et al. 2023 ("Batch Calibration:
    Rethinking Calibration for In-Context Learning and Prompt Engineering"), which takes the shares to be equal; here
    0/1 `targets` (N, C) tell them, plus one row a class, so a rare label stays rare. Multi-label: the mean score; how
    often a label is right comes back with the offset of `fit_calibration`.
    """
    prior = _MEANS[kind](scores.astype(np.float64))
    if kind is TaskKind.MULTI_LABEL:
        return prior
    shares = (targets.sum(axis=0) + 1) / (targets.sum() + targets.shape[1])
    return np.asarray(prior - np.log(shares))


def fit_calibration(
    kind: TaskKind, scores: Scores, targets: Scores, prior: NDArray[np.float64] | None
) -> LabelCalibration:
    """Return the calibration of `scores` (N, C) on 0/1 `targets` (N, C); `prior` None: none is taken out.

    Single-label: softmax((score - prior) / T), T by likelihood. Multi-label: sigmoid((score - prior) / T + o), a
    label's log-odds against its prior, where o is one fitted number and, when a prior is taken out, the log-odds of
    (n + 1) / (N + 2) for a label with n of N rows: with no evidence the label's own share is answered.
    """
    taken = np.zeros(scores.shape[1]) if prior is None else prior
    evidence = scores.astype(np.float64) - taken
    if kind is TaskKind.SINGLE_LABEL:
        return LabelCalibration(taken, fit_temperature(kind, evidence, targets), np.zeros(scores.shape[1]))
    base = np.zeros(scores.shape[1]) if prior is None else _share_log_odds(targets)
    temperature, shift = _fit_scale_and_shift(evidence, base, targets)
    return LabelCalibration(taken, temperature, base + shift)


def _fit_scale_and_shift(
    evidence: NDArray[np.float64], base: NDArray[np.float64], targets: Scores
) -> tuple[float, float]:
    """Return T and s that minimise the negative log-likelihood of independent labels under evidence / T + base + s."""
    if len(evidence) == 0:
        return 1.0, 0.0

    def loss(point: NDArray[np.float64]) -> float:
        logits = evidence * np.exp(-point[0]) + base + point[1]
        return float((np.logaddexp(0.0, logits) - targets * logits).mean())

    best = minimize(loss, np.zeros(2), method="L-BFGS-B", bounds=[_LOG_SCALE_BOUNDS, _SHIFT_BOUNDS])
    return float(np.exp(best.x[0])), float(best.x[1])


def _share_log_odds(targets: Scores) -> NDArray[np.float64]:
    positives = targets.sum(axis=0, dtype=np.float64)
    return np.asarray(np.log(positives + 1) - np.log(len(targets) - positives + 1))


_MEANS: dict[TaskKind, Callable[[NDArray[np.float64]], NDArray[np.float64]]] = {
    TaskKind.SINGLE_LABEL: lambda scores: np.log(np.exp(log_softmax(scores, axis=1)).mean(axis=0) + 1e-12),
    TaskKind.MULTI_LABEL: lambda scores: scores.mean(axis=0),
}
