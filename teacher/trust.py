"""How far a hard answer is trusted: from the label somebody answered to probabilities of what is true.

Learned on gold with smoothing, so that a label with few answers is trusted like the others. `votes` are (N, C):
for each text the share of the votes that went to each label.
"""

import numpy as np
from numpy.typing import NDArray

from teacher.task import TaskKind

_PULL_ROWS = 5.0  # a label's own record counts as much as the common one once it has this many answers
Floats = NDArray[np.float32]


def learn_trust(kind: TaskKind, votes: Floats, targets: Floats, given: float | None) -> Floats:
    """Return what an answer is worth, from `votes` (N, C) on gold rows with 0/1 `targets` (N, C).

    Single-label: (C, C), row k holding the probability of each true label when k was answered; what is not trusted is
    spread as the answers were wrong on gold, evenly where they were not. Multi-label: (2, C), the probability of
    each label when it was not answered and when it was. `given` replaces the learned trust in an answered label.
    """
    learn = _learn_confusion if kind is TaskKind.SINGLE_LABEL else _learn_two_sides
    return np.asarray(learn(votes.astype(np.float64), targets.astype(np.float64), given), np.float32)


def soften(kind: TaskKind, votes: Floats, trust: Floats) -> Floats:
    """Return the probabilities (N, C) of the true labels given `votes` (N, C)."""
    if kind is TaskKind.SINGLE_LABEL:
        probs = votes @ trust
        return np.asarray(probs / probs.sum(axis=1, keepdims=True), np.float32)
    return np.asarray(votes * trust[1] + (1 - votes) * trust[0], np.float32)


def _learn_confusion(
    votes: NDArray[np.float64], targets: NDArray[np.float64], given: float | None
) -> NDArray[np.float64]:
    labels = votes.shape[1]
    counts = votes.T @ targets  # (answered, true)
    trusted = _shrunk(np.diag(counts), votes.sum(axis=0)) if given is None else np.full(labels, given)
    wrong = counts * (1 - np.eye(labels))
    spread = (wrong + _PULL_ROWS / (labels - 1)) * (1 - np.eye(labels))
    spread /= spread.sum(axis=1, keepdims=True)
    return np.asarray((1 - trusted)[:, None] * spread + np.diag(trusted))


def _learn_two_sides(
    votes: NDArray[np.float64], targets: NDArray[np.float64], given: float | None
) -> NDArray[np.float64]:
    answered, silent = votes.sum(axis=0), (1 - votes).sum(axis=0)
    trusted = _shrunk((votes * targets).sum(axis=0), answered) if given is None else np.full(votes.shape[1], given)
    if len(votes) == 0 and given is not None:
        return np.stack([1 - trusted, trusted])
    return np.stack([_shrunk(((1 - votes) * targets).sum(axis=0), silent), trusted])


def _shrunk(hits: NDArray[np.float64], rows: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return hits / rows of each label, drawn to the share of all labels together."""
    common = (hits.sum() + 1) / (rows.sum() + 2)
    return np.asarray((hits + _PULL_ROWS * common) / (rows + _PULL_ROWS))
