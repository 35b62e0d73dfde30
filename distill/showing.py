"""How often a student is shown each of its texts: the more, the less sure its teacher is of the answer."""

import numpy as np
from numpy.typing import NDArray

from teacher.acquisition import uncertainty
from teacher.task import TaskKind

_EVEN = 0.1  # share of the schedule that does not look at what the teacher says
_MOST = 10.0  # times the mean entropy: a few unsure texts among sure ones must not take the whole schedule


def showing_weights(kind: TaskKind, soft: NDArray[np.float32]) -> NDArray[np.float64]:
    """Return how often each row of `soft` (N, C) is to be shown, about 1 on average (N,).

    A tenth of that is the same for all rows, the rest goes with the entropy of the soft label: near a border between
    labels a student has most to learn, and what lies far from all borders it soon knows.
    """
    entropy = uncertainty(kind, soft, "entropy").astype(np.float64)
    mean = entropy.mean()
    relative = np.minimum(entropy / mean, _MOST) if mean > 0 else np.ones_like(entropy)
    return _EVEN + (1 - _EVEN) * relative


def draw_showings(weights: NDArray[np.float64], count: int, seed: int) -> NDArray[np.int64]:
    """Return `count` rows in proportion to their `weights` (N,), ascending, some several times and some not at all.

    A row that is due 2.3 showings gets 2 or 3: systematic sampling (Madow & Madow 1944, "On the Theory of Systematic
    Sampling, I") from a start that `seed` draws.
    """
    reach = np.cumsum(weights)
    marks = (np.arange(count) + np.random.default_rng(seed).random()) * reach[-1] / count
    rows: NDArray[np.int64] = np.searchsorted(reach, marks, side="right")
    return np.minimum(rows, len(reach) - 1)
