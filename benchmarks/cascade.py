"""How much the student answers alone when what it answers must be right at a target: threshold from dev, read on test.

    python benchmarks/cascade.py RUN [--accuracy 0.973] [--rows N]

RUN is a finished run directory of banking77 with its bundle and corpus. Three thresholds stand side by side: the one
that dev suggests (the line is held by it), the one that dev proves at 95 %, and the best there is in hindsight.
--rows takes so many test rows only. Exit 1 on a missed line.
"""

import argparse
import sys
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import numpy as np
from lines import Line
from numpy.typing import NDArray

from export.machine import machine
from export.runtime import Predictor
from export.selective import certainty, fit_abstention, risk_curve
from export.spec import AbstainSpec
from teacher.corpus import iterate_part

_LEAST_COVERAGE = 0.91
_POOL_TEXTS = 2000


@dataclass(frozen=True, slots=True)
class Rows:
    """How certain the student is of each row (N,), and whether it is right (N,)."""

    certain: NDArray[np.float64]
    is_right: NDArray[np.bool_]

    def at(self, threshold: float | None) -> tuple[float, float]:
        """Return the share answered at or above `threshold` and how much of it is right."""
        answered = self.certain >= (np.inf if threshold is None else threshold)
        return float(answered.mean()), float(self.is_right[answered].mean()) if answered.any() else 1.0


def cascade(run: Path, accuracy: float, rows: int) -> Line:
    """Answer dev, pool and test with the bundle of `run`, one text at a time as a server does."""
    predictor = Predictor.load(run / "bundle")
    dev, test = _answer(predictor, run, "dev", None), _answer(predictor, run, "test", rows)
    pool = _answer(predictor, run, "pool", _POOL_TEXTS)
    suggested, in_hindsight = (_lowest(part, accuracy) for part in (dev, test))
    promise = fit_abstention(dev.certain, dev.is_right, pool.certain, AbstainSpec(accuracy=accuracy))
    coverage, found = test.at(suggested)
    proven, best = test.at(promise.threshold), test.at(in_hindsight)
    return Line(
        "cascade",
        f"{coverage:.1%} answered alone, {found:.2%} of it right (threshold {suggested:.3f}, suggested by "
        f"{len(dev.certain)} dev rows); proved at {promise.level:.0%}: {proven[0]:.1%} alone, {proven[1]:.2%} right; "
        f"best threshold in hindsight: {best[0]:.1%} alone; {len(test.certain):,} test rows",
        f">= {_LEAST_COVERAGE:.0%} answered alone, >= {accuracy:.1%} of it right",
        coverage >= _LEAST_COVERAGE and found >= accuracy,
    )


def _answer(predictor: Predictor, run: Path, part: str, most: int | None) -> Rows:
    examples = list(islice((one for chunk in iterate_part(run / "corpus", part) for one in chunk), most))
    answers = [predictor.predict(example.text)[0] for example in examples]
    probs = np.array([[*answer.probabilities.values()] for answer in answers])
    decided = np.array([[label in answer.labels for label in answer.probabilities] for answer in answers])
    is_right = [set(answer.labels) == set(one.labels or ()) for answer, one in zip(answers, examples, strict=True)]
    return Rows(certainty(predictor.manifest.kind, probs, decided), np.array(is_right))


def _lowest(rows: Rows, accuracy: float) -> float:
    """Return the threshold that answers most of `rows` at `accuracy`."""
    curve = risk_curve(rows.certain, rows.is_right, len(rows.certain))
    return min((threshold for _, right, threshold in curve if right >= accuracy), default=np.inf)


def main() -> int:
    """Measure, print the line and return the exit code."""
    parser = argparse.ArgumentParser(description="Measure how much the student answers alone.")
    parser.add_argument("run", type=Path)
    parser.add_argument("--accuracy", type=float, default=0.973)
    parser.add_argument("--rows", type=int)
    given, about = parser.parse_args(), machine()
    print(f"# {about['cpu']}, {about['usable_cores']} cores, load {about['load_average']}, {about['versions']}")
    line = cascade(given.run, given.accuracy, given.rows)
    print(line)
    return 0 if line.holds else 1


if __name__ == "__main__":
    sys.exit(main())
