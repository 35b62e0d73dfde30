"""How well the clinc150 student knows what is about none of its labels, by the score that its bundle gives.

The AUROC and the recall at a fixed in-scope accuracy are read off the curve of test; what the threshold in the bundle,
which saw only dev, makes of the same texts stands beside them.
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from lines import Line, MeasureError
from numpy.typing import NDArray
from seeds import Seeded, over_seeds
from sklearn.metrics import roc_auc_score

from distill.tables import read_column
from export.metrics import row_scores
from export.runtime import Predictor
from export.scope import familiarity

_LEAST_AUROC, _LEAST_RECALL, _ACCURACY = 0.97, 0.75, 0.955


def out_of_scope(found: Seeded, data: Path) -> list[Line]:
    """Ask every student of `found` about `data`/oos_test.csv."""
    strange = [*map(str, read_column(data / "oos_test.csv", "text"))]
    aurocs, recalls, kept, refused = [], [], [], []
    for run, student in zip(found.runs, found.students, strict=True):
        predictor = Predictor.load(run.directory / "bundle", "int8", deterministic=True)
        inside, outside = familiarity(student.probs), familiarity(_probabilities(predictor, strange))
        right = row_scores(student.decided, found.targets) > 0
        truth = np.concatenate([np.ones(len(inside)), np.zeros(len(outside))])
        aurocs.append(float(roc_auc_score(truth, np.concatenate([inside, outside]))))
        recalls.append(recall_at(inside, right, outside, _ACCURACY))
        if predictor.manifest.scope is None:
            raise MeasureError(f"{run.directory} has no threshold for scope; export it again")
        threshold = predictor.manifest.scope.threshold
        kept.append(float((right & (inside >= threshold)).mean()))
        refused.append(float((outside < threshold).mean()))
    auroc, recall = float(np.mean(aurocs)), float(np.mean(recalls))
    return [
        Line("auroc", over_seeds(aurocs), f">= {_LEAST_AUROC:g}", auroc >= _LEAST_AUROC),
        Line(
            "out_of_scope",
            f"recall {over_seeds(recalls)} of {len(strange):,} texts at {_ACCURACY:.1%} in-scope accuracy, read off "
            f"the curve of test; with the bundle's threshold, from dev: {over_seeds(refused)} at {over_seeds(kept)}",
            f">= {_LEAST_RECALL:.0%} at {_ACCURACY:.1%}",
            recall >= _LEAST_RECALL,
        ),
    ]


def recall_at(
    inside: NDArray[np.float64], right: NDArray[np.bool_], outside: NDArray[np.float64], accuracy: float
) -> float:
    """Return the share of `outside` below the highest threshold that leaves in-scope `accuracy`; 0 when none does.

    A text in scope that is refused counts as wrong.
    """
    thresholds = np.sort(inside[right])
    must_stay = int(np.ceil(accuracy * len(inside) - 1e-9))
    if must_stay > len(thresholds):
        return 0.0
    return float((outside < thresholds[len(thresholds) - must_stay]).mean()) if must_stay else 1.0


def _probabilities(predictor: Predictor, texts: Sequence[str]) -> NDArray[np.float32]:
    return np.array([[*one.probabilities.values()] for one in predictor.predict(texts)], np.float32)
