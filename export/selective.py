"""When the student may answer alone: a threshold on its certainty that keeps a promised accuracy, with a proof.

Judges arrays only; knows nothing of files, models or teachers. No pydantic and no torch, so that what answers
starts soon.
"""

import math
from typing import TYPE_CHECKING, Annotated

import numpy as np
from msgspec import Meta, Struct
from numpy.typing import NDArray

from export.metrics import Floats, Kind

if TYPE_CHECKING:
    from export.spec import AbstainSpec

# Where the tests begin, as shares of the pool: one unlucky row early on must not end all of them.
_STARTS = (0.25, 0.5, 0.75)
_STEP = 0.01


class Abstention(Struct, frozen=True, forbid_unknown_fields=True):
    """The promise of a bundle: what it answers at or above `threshold` is right at `accuracy`, at `level`.

    `threshold` is None when the dev rows cannot prove that accuracy at any coverage tried; `coverage` is the share
    of the `rows` dev rows at or above it.
    """

    accuracy: Annotated[float, Meta(gt=0, lt=1)]
    level: Annotated[float, Meta(gt=0, lt=1)]
    threshold: Annotated[float, Meta(ge=0, le=1)] | None
    coverage: Annotated[float, Meta(ge=0, le=1)]
    rows: Annotated[int, Meta(ge=0)]


def certainty(kind: Kind, probs: Floats, decided: NDArray[np.bool_]) -> NDArray[np.float64]:
    """Return how sure each answer (N,) is, from 0 to 1, out of its probabilities and decisions, both (N, C).

    Single-label: the best label against the second, p1 / (p1 + p2), whose order no temperature changes (a margin
    score: Liang, Peng and Sun 2024, "Selective Classification Under Distribution Shifts"). Multi-label: the
    probability that the whole set is right, taking the labels as independent; one wrong label makes a wrong answer.
    """
    wide = probs.astype(np.float64)
    if kind == "multi_label":
        return np.asarray(np.where(decided, wide, 1.0 - wide).prod(axis=1))
    if wide.shape[1] < 2:
        return np.ones(len(wide))
    best_two = np.partition(wide, -2, axis=1)[:, -2:]
    return np.asarray(best_two[:, 1] / best_two.sum(axis=1))


def fit_abstention(
    certain: NDArray[np.float64], is_right: NDArray[np.bool_], pool: NDArray[np.float64], spec: "AbstainSpec"
) -> Abstention:
    """Return the lowest threshold that keeps `spec.accuracy` with probability `spec.level` over draws of dev.

    `certain` and `is_right` (N,) are of dev, `pool` (M,) is the certainty of texts without labels. The candidates are
    quantiles of the pool, fixed before a dev label is seen. Each is tested by the exact binomial tail, the bound of
    Clopper and Pearson (1934), from strict to lax, and the first that fails ends its sequence, so that choosing costs
    no confidence: fixed-sequence testing in Angelopoulos et al. 2021, "Learn then Test" (arXiv 2110.01052). Three
    sequences share the error, 1 - level. A student that was itself chosen on dev, or multi-label thresholds fitted
    there, make the promise a little too good; rows unlike dev void it.
    """
    proven = None
    for start in _STARTS:
        for share in np.arange(start, 1 + _STEP / 2, _STEP):
            threshold = float(np.quantile(pool, 1 - share)) if share < 1 and len(pool) else 0.0
            answered = certain >= threshold
            wrong = int((answered & ~is_right).sum())
            if _tail(wrong, int(answered.sum()), 1 - spec.accuracy) > (1 - spec.level) / len(_STARTS):
                break
            proven = threshold if proven is None else min(proven, threshold)
    coverage = 0.0 if proven is None or not len(certain) else float((certain >= proven).mean())
    return Abstention(accuracy=spec.accuracy, level=spec.level, threshold=proven, coverage=coverage, rows=len(certain))


def risk_curve(
    certain: NDArray[np.float64], is_right: NDArray[np.bool_], most_points: int = 80
) -> list[tuple[float, float, float]]:
    """Return (coverage, accuracy of what is answered, threshold) from strict to lax, ties answered together."""
    order = np.argsort(-certain, kind="stable")
    ranked = certain[order]
    last = np.append(np.flatnonzero(ranked[1:] != ranked[:-1]), len(ranked) - 1) if len(ranked) else np.zeros(0, int)
    right = np.cumsum(is_right[order])
    kept = last[np.unique(np.linspace(0, len(last) - 1, min(most_points, len(last))).astype(int))]
    return [((end + 1) / len(ranked), float(right[end]) / (end + 1), float(ranked[end])) for end in kept.tolist()]


def _tail(wrong: int, rows: int, rate: float) -> float:
    """Return the probability of at most `wrong` errors in `rows` when each has the probability `rate`."""
    log_choose = [math.lgamma(rows + 1) - math.lgamma(k + 1) - math.lgamma(rows - k + 1) for k in range(wrong + 1)]
    terms = (
        math.exp(choose + k * math.log(rate) + (rows - k) * math.log1p(-rate)) for k, choose in enumerate(log_choose)
    )
    return min(math.fsum(terms), 1.0)
