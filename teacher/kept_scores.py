"""Scores of a model on this machine, kept in the run's file of answers: what was computed once is not computed again.

Dev is asked about when a teacher is calibrated, when a committee learns its weights, and by the report. Knows no model.
"""

import base64
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from teacher.paid import PaidAnswers, answer_key

Asked = TypeVar("Asked")  # JSON
Floats = NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class KeptScores:
    """What `answers` holds of a model; `identity` is all that shapes its scores beside what is asked, as JSON."""

    answers: PaidAnswers | None  # None: nothing is kept
    identity: Sequence[object]

    def scores(self, asked: Sequence[Asked], compute: Callable[[list[Asked]], Floats]) -> Floats:
        """Return the scores (N, C) of `asked`; `compute` gives the rows that are not kept yet, and they are kept."""
        if self.answers is None:
            return compute(list(asked))
        keys = [answer_key(identity=self.identity, asked=each) for each in asked]
        rows = {key: _read(found.content["scores"]) for key in keys if (found := self.answers.find(key))}
        lacking = {key: each for key, each in zip(keys, asked, strict=True) if key not in rows}
        if lacking:
            rows |= zip(lacking, compute(list(lacking.values())), strict=True)
            written = [self.answers.record_soon(key, {"scores": _spelled(rows[key])}, 0.0) for key in lacking]
            for each in written:
                each.result()
        return np.stack([rows[key] for key in keys])


def _spelled(scores: Floats) -> str:
    """Return `scores` as text that keeps every bit, NaN too."""
    return base64.b64encode(scores.astype("<f4").tobytes()).decode()


def _read(text: str) -> Floats:
    return np.frombuffer(base64.b64decode(text), "<f4").astype(np.float32)
