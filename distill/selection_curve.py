"""What teacher calls were worth: a cheap student on growing beginnings of the order in which texts were chosen.

The order and all answers are stored, so the curve costs no teacher call.
"""

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from distill.quality import Floats, decide, fit_decisions, headline
from distill.tfidf import TfidfClassifier
from export.metrics import decode
from teacher.corpus import read_part
from teacher.select import Selection, iterate_ids
from teacher.soft_labels import StoredLabels
from teacher.task import Task, TaskKind

_SHARES = (0.0, 1 / 16, 1 / 8, 1 / 4, 1 / 2, 1.0)
_MOST_ROWS = 50_000  # a linear model gains nothing from more


def selection_curve(
    selection: Selection, store: StoredLabels, corpus: Path, task: Task, *, seed: int
) -> list[list[float]]:
    """Return (teacher calls, headline on test, low, high) of TF-IDF on gold and the first texts of `selection`.

    The first point is gold alone. A text that the teacher rejected is a call and no row. The interval is the 95 %
    bootstrap over test rows; thresholds come from dev.
    """
    gold, dev, test = (read_part(corpus, part) for part in ("gold", "dev", "test"))
    truths = [task.targets([example.labels or () for example in part]) for part in (gold, dev, test)]
    texts = [[example.text for example in part] for part in (gold, dev, test)]
    ids = selection.ids[:_MOST_ROWS]
    asked = [example.text for block in iterate_ids(corpus, ids) for example in block]
    answered = store.answered(ids)
    decided = np.zeros((len(ids), len(task.labels)), np.float32)
    decided[answered] = _decided(task.kind, store.probs([one for one, kept in zip(ids, answered, strict=True) if kept]))
    points = []
    for calls in sorted({round(share * len(ids)) for share in _SHARES}):
        kept = np.flatnonzero(answered[:calls])
        model = TfidfClassifier(task.kind, seed)
        model.fit([*texts[0], *(asked[row] for row in kept)], np.concatenate([truths[0], decided[kept]]))
        thresholds = fit_decisions(task.kind, model.calibrate(texts[1], truths[1]).probs(texts[1]), truths[1])
        measured = headline(task.kind, decide(task.kind, model.probs(texts[2]), thresholds), truths[2], seed)
        points.append([calls, measured.estimate, measured.low, measured.high])
    return points


def _decided(kind: TaskKind, probs: Floats) -> NDArray[np.bool_]:
    # Chosen texts are no fair sample, so the rates of gold say nothing of them: calibrated answers are cut at 1/2.
    return decode(kind.value, probs) if len(probs) else np.zeros(probs.shape, bool)
