"""Which variant is the fastest on this processor, at the lengths that the corpus really has.

Times files that `variants.py` built; whether their answers are good enough is for others to say.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from export.bench import measure_interleaved
from export.classifier import OnnxClassifier
from export.errors import ExportError

QUANTILES = (0.1, 0.25, 0.5, 0.75, 0.9, 0.99)
_REPEATS = 60
_WARMUP_TEXTS = 6


@dataclass(frozen=True, slots=True)
class Timing:
    """Median milliseconds of one variant on one thread, at each of the lengths and as their mean."""

    name: str
    milliseconds: tuple[float, ...]
    mean: float


def texts_at_quantiles(classifier: OnnxClassifier, texts: Sequence[str]) -> list[tuple[int, str]]:
    """Return a text, and its number of tokens, at each of the length `QUANTILES`; raise ExportError without texts."""
    if not texts:
        raise ExportError("no text to time the variants on; set export.plan to preset, or add texts to the pool")
    lengths = np.array([len(encoding) for encoding in classifier.encode_many(texts)])
    order = np.argsort(lengths, kind="stable")
    rows = [order[round(quantile * (len(order) - 1))] for quantile in QUANTILES]
    return [(int(lengths[row]), texts[row]) for row in rows]


def time_variants(
    classifiers: Mapping[str, OnnxClassifier], texts: Sequence[str], repeats: int = _REPEATS
) -> list[Timing]:
    """Return how long each classifier takes for each text, the fastest first; they take turns in one process."""
    contenders = {name: classifier.logits_one for name, classifier in classifiers.items()}
    samples = measure_interleaved(contenders, texts, repeats, _WARMUP_TEXTS, seed=0)
    timings = []
    for name, taken in samples.items():
        medians = np.median(taken, axis=0) / 1e6
        timings.append(Timing(name, tuple(medians.tolist()), float(medians.mean())))
    return sorted(timings, key=lambda timing: timing.mean)
