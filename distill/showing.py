"""Which texts a student is shown where there is no time for all: the less sure its teacher is of one, the sooner."""

import numpy as np
from numpy.typing import NDArray

from teacher.acquisition import uncertainty
from teacher.task import TaskKind

_EVEN = 0.1  # share of a text's weight that does not look at what the teacher says


def showing_weights(kind: TaskKind, soft: NDArray[np.float32]) -> NDArray[np.float64]:
    """Return how much there is to learn from each row of `soft` (N, C), 1 on average (N,).

    A tenth of that is the same for all rows, the rest goes with the entropy of the soft label: near a border between
    labels a student has most to learn, and what lies far from all borders it soon knows.
    """
    entropy = uncertainty(kind, soft, "entropy").astype(np.float64)
    mean = entropy.mean()
    return _EVEN + (1 - _EVEN) * (entropy / mean if mean > 0 else np.ones_like(entropy))


def draw_showings(weights: NDArray[np.float64], count: int, seed: int) -> NDArray[np.int64]:
    """Return `count` rows, ascending, none of them shown again before all were shown as often.

    The last round, for which `count` is too small to show all N, takes a row with a chance in proportion to its weight
    (N,), at most 1: systematic sampling (Madow 1949, "On the Theory of Systematic Sampling, II") from a start that
    `seed` draws.
    """
    rounds, left = divmod(count, len(weights))
    reach = np.cumsum(_chances(weights, left))
    marks = np.arange(left) + np.random.default_rng(seed).random()
    last = np.minimum(np.searchsorted(reach, marks, side="right"), len(weights) - 1)
    return np.sort(np.concatenate([np.tile(np.arange(len(weights)), rounds), last]))


def _chances(weights: NDArray[np.float64], count: int) -> NDArray[np.float64]:
    """Return chances in proportion to `weights`, at most 1, that add up to `count`."""
    order = np.argsort(-weights, kind="stable")
    falling = weights[order]
    rest = np.cumsum(falling[::-1])[::-1]  # of a row and all that weigh less
    is_certain = (count - np.arange(len(falling))) * falling >= rest
    certain = int(np.argmin(is_certain)) if not is_certain.all() else len(falling)
    chances = np.ones(len(weights))
    if certain < len(falling):
        chances[order[certain:]] = (count - certain) * falling[certain:] / rest[certain]
    return chances
