"""Is a text about any of the labels at all? A score of how familiar it looks, and the threshold that dev suggests.

Judges arrays only; knows nothing of files, models or teachers. No pydantic and no torch, so that what answers starts
soon. Dev holds no text about something else, so nothing here says how many of those are found;
`benchmarks/quality.py` measures that.
"""

from typing import Annotated, Any

import numpy as np
from msgspec import Meta, Struct
from msgspec.structs import asdict
from numpy.typing import NDArray

from export.metrics import Floats

_TEMPERATURE = 2.0
_SMALLEST = 1e-37  # a float32 below it is 0, and has no logarithm


class Scope(Struct, frozen=True, forbid_unknown_fields=True):
    """Below `threshold` a text is taken to be about something else.

    It keeps the share `keep` of the dev texts that are answered rightly, and the share `kept` of all `rows` dev texts.
    """

    keep: Annotated[float, Meta(gt=0, lt=1)]
    threshold: float
    kept: Annotated[float, Meta(ge=0, le=1)]
    rows: Annotated[int, Meta(ge=0)]


def familiarity(probs: Floats) -> NDArray[np.float64]:
    """Return how much each row of single-label probabilities (N, C) looks like a text about one of the labels (N,).

    The free energy T log sum exp(z / T) of the logits at T = 2 (Liu et al. 2020, "Energy-based Out-of-distribution
    Detection"), each row's logits z counted from their mean: training leaves what is added to all of them open, and
    probabilities tell no more. A confident text has a high one, and so has one that many labels share a little;
    nothing stands out in a strange one.
    """
    logs = np.log(np.maximum(probs.astype(np.float64), _SMALLEST))
    energy = _TEMPERATURE * np.log(np.exp(logs / _TEMPERATURE).sum(axis=1))
    return np.asarray(energy - logs.mean(axis=1))


def fit_scope(familiar: NDArray[np.float64], is_right: NDArray[np.bool_], keep: float) -> Scope | None:
    """Return the highest threshold that keeps the share `keep` of the rightly answered of N dev texts.

    Answers that were wrong anyway are nothing to keep. None when none was right, or when nothing tells them apart: a
    student that is surer of all of dev than a float32 can hold.
    """
    threshold = float(np.quantile(familiar[is_right], 1 - keep, method="lower")) if is_right.any() else np.inf
    if threshold >= familiar.max(initial=-np.inf):
        return None
    kept = float((familiar >= threshold).mean())
    return Scope(keep=keep, threshold=threshold, kept=kept, rows=len(familiar))


def describe_scope(scope: Scope | None, familiar: NDArray[np.float64], is_right: NDArray[np.bool_]) -> dict[str, Any]:
    """Return the threshold and what it does to test: the share `kept`, and the accuracy when the rest is wrong."""
    if scope is None:
        return {}
    inside = familiar >= scope.threshold
    test = {"kept": float(inside.mean()), "accuracy": float((inside & is_right).mean()), "n": len(familiar)}
    return {**asdict(scope), "test": test}
