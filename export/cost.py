"""How long an answer will take: a curve fitted to timings of the loaded model, once, when it is loaded.

Knows a model as something that runs token counts; the timings hold for this machine and this moment.
"""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

_REPEATS = 5
_POINTS = 6
_BATCH_ROWS = (4, 16)
Run = Callable[[int, int], object]  # (rows, tokens): runs the model once at that shape


@dataclass(frozen=True, slots=True)
class Curve:
    """Seconds of one run as fixed + linear x tokens + square x tokens^2, for each row of the batch."""

    fixed: float
    linear: float
    square: float

    def seconds(self, rows: int, tokens: int) -> float:
        """Return the predicted seconds of `rows` texts padded to `tokens`; never less than a microsecond."""
        return max(self.fixed + rows * tokens * (self.linear + self.square * tokens), 1e-6)


@dataclass(frozen=True, slots=True)
class CostModel:
    """Predicted run times: `single` for one text alone, `batch` for texts padded to the longest."""

    single: Curve
    batch: Curve

    def alone(self, tokens: int) -> float:
        """Return the seconds of one text run alone."""
        return self.single.seconds(1, tokens)

    def together_is_sooner(self, tokens: Sequence[int]) -> bool:
        """Say whether one padded run over these texts is predicted to end before runs one after the other."""
        return self.batch.seconds(len(tokens), max(tokens)) < sum(map(self.alone, tokens))


def fit_cost(run: Run, max_tokens: int) -> CostModel:
    """Time `run` at a grid of shapes up to `max_tokens` and return the fitted curves (least squares)."""
    lengths = np.unique(np.geomspace(min(4, max_tokens), max_tokens, _POINTS).astype(int)).tolist()
    single = [(1, length, _time(run, 1, length)) for length in lengths]
    batch = [(rows, length, _time(run, rows, length)) for rows in _BATCH_ROWS for length in lengths[::2]]
    return CostModel(_fit(single), _fit(batch))


def _time(run: Run, rows: int, tokens: int) -> float:
    samples = []
    for _ in range(_REPEATS):
        started = time.perf_counter()
        run(rows, tokens)
        samples.append(time.perf_counter() - started)
    return min(samples)  # what else ran on the machine only ever adds


def _fit(timings: Sequence[tuple[int, int, float]]) -> Curve:
    design = np.array([[1.0, rows * tokens, rows * tokens**2] for rows, tokens, _ in timings])
    seconds = np.array([each for _, _, each in timings])
    # Relative errors count: a short text must not be predicted badly for the sake of a long one.
    fixed, linear, square = np.linalg.lstsq(design / seconds[:, None], np.ones(len(seconds)), rcond=None)[0]
    return Curve(float(fixed), float(linear), float(square))
