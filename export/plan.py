"""Which variant is the fastest on this processor, at the lengths that the corpus really has.

Times files that `variants.py` built; whether their answers are good enough is for others to say.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from export.bench import Nanoseconds, measure_interleaved
from export.classifier import OnnxClassifier
from export.errors import ExportError
from export.metrics import Interval

QUANTILES = (0.1, 0.25, 0.5, 0.75, 0.9, 0.99)
_REPEATS = 60
_CONTROL = "control"
_MOST_NOISE = 0.05  # by which the control may be off; variants that are worth a change differ by more
_WARMUP_TEXTS = 6


@dataclass(frozen=True, slots=True)
class Timing:
    """Median milliseconds of one variant on one thread, at each of the lengths and as their mean.

    `ratio` is its time over that of the reference.
    """

    name: str
    milliseconds: tuple[float, ...]
    mean: float
    ratio: Interval


@dataclass(frozen=True, slots=True)
class Ranking:
    """All timings, best first; `control` is the ratio of the reference to itself, timed as two variants."""

    timings: tuple[Timing, ...]
    control: Interval

    @property
    def is_sound(self) -> bool:
        """Whether the machine was quiet enough to tell variants apart."""
        return _is_sound(self.control)


def texts_at_quantiles(classifier: OnnxClassifier, texts: Sequence[str]) -> list[tuple[int, str]]:
    """Return a text, and its number of tokens, at each of the length `QUANTILES`; raise ExportError without texts."""
    if not texts:
        raise ExportError("no text to time the variants on; set export.plan to preset, or add texts to the pool")
    lengths = np.array([len(encoding) for encoding in classifier.encode_many(texts)])
    order = np.argsort(lengths, kind="stable")
    rows = [order[round(quantile * (len(order) - 1))] for quantile in QUANTILES]
    return [(int(lengths[row]), texts[row]) for row in rows]


def time_variants(
    classifiers: Mapping[str, OnnxClassifier], texts: Sequence[str], reference: str, repeats: int = _REPEATS
) -> Ranking:
    """Return how long each classifier takes for each text, in turns in one process, the fastest first.

    Where a control says that this means little, `reference` comes first, whatever was measured.
    """
    contenders = {name: classifier.logits_one for name, classifier in classifiers.items()}
    samples = measure_interleaved(
        {**contenders, _CONTROL: contenders[reference]}, texts, repeats, _WARMUP_TEXTS, seed=0
    )
    control = _round_ratio(samples.pop(_CONTROL), samples[reference])
    timings = []
    for name, taken in samples.items():
        medians = np.median(taken, axis=0) / 1e6
        ratio = _round_ratio(taken, samples[reference])
        timings.append(Timing(name, tuple(medians.tolist()), float(medians.mean()), ratio))
    timings.sort(key=lambda timing: (timing.name != reference and not _is_sound(control), timing.ratio.estimate))
    return Ranking(tuple(timings), control)


def _is_sound(control: Interval) -> bool:
    return 1 - _MOST_NOISE <= control.low <= 1 <= control.high <= 1 + _MOST_NOISE


def _round_ratio(ours: Nanoseconds, theirs: Nanoseconds) -> Interval:
    """Return the median over rounds of the geometric mean over texts of ours / theirs, and its 95 % interval.

    Both (repeats, texts). A process that was put aside spoils one round and not the median. The ends are order
    statistics (the sign test's interval): they need no distribution.
    """
    rounds = np.sort(np.exp(np.log(ours / theirs).mean(axis=1)))
    reach = 1.96 * np.sqrt(len(rounds)) / 2
    low, high = max(int(len(rounds) / 2 - reach), 0), min(int(np.ceil(len(rounds) / 2 + reach)), len(rounds) - 1)
    return Interval(float(np.median(rounds)), float(rounds[low]), float(rounds[high]))
