"""What int8 costs: the int8 and the fp32 file of a bundle on the test part of its corpus, one text at a time."""

from pathlib import Path

import numpy as np
from lines import MeasureError
from numpy.typing import NDArray

from export.bundle import MODEL_FILES, Precision, read_manifest
from export.runtime import Predictor
from teacher.corpus import read_part


def compare_precisions(run: Path, share: float = 1.0) -> tuple[float, float]:
    """Return how much accuracy int8 loses against fp32 (0 to 1) and on which part of the texts both say the same.

    `share` of the test texts are asked.
    """
    manifest = read_manifest(run / "bundle")
    if MODEL_FILES["int8"] not in manifest.files:
        raise MeasureError(f"{run} ships fp32: int8 failed its gates")
    examples = read_part(run / "corpus", "test")
    examples = examples[: max(round(len(examples) * share), 1)]
    wanted = [frozenset(example.labels or ()) for example in examples]
    texts = [example.text for example in examples]
    int8, fp32 = (_answers(run / "bundle", precision, texts) for precision in ("int8", "fp32"))
    right = [np.mean([one == truth for one, truth in zip(side, wanted, strict=True)]) for side in (int8, fp32)]
    same: NDArray[np.bool_] = np.array([one == other for one, other in zip(int8, fp32, strict=True)])
    return float(right[1] - right[0]), float(same.mean())


def _answers(bundle: Path, precision: Precision, texts: list[str]) -> list[frozenset[str]]:
    predictor = Predictor.load(bundle, precision)
    return [frozenset(predictor.predict(text)[0].labels) for text in texts]
