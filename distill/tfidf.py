"""The rival that needs no transformer: TF-IDF of words and characters under a linear support vector machine."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.multiclass import OneVsRestClassifier
from sklearn.pipeline import FeatureUnion
from sklearn.svm import LinearSVC

from export.metrics import ACTIVATIONS
from teacher.calibrate import fit_temperature
from teacher.task import TaskKind

_NEVER = -10.0  # the score of a label without a training row


class TfidfClassifier:
    """Words of 1-2 and characters of 2-5, one linear separator a label, margins calibrated on dev."""

    def __init__(self, kind: TaskKind, seed: int = 0) -> None:
        """Start untrained."""
        self._kind = kind
        self._seed = seed
        self._features = FeatureUnion(
            [
                ("words", TfidfVectorizer(ngram_range=(1, 2), sublinear_tf=True)),
                ("characters", TfidfVectorizer(analyzer="char_wb", ngram_range=(2, 5), sublinear_tf=True)),
            ]
        )
        self._temperature = 1.0

    def fit(self, texts: Sequence[str], targets: NDArray[np.float32]) -> "TfidfClassifier":
        """Fit on 0/1 `targets` (N, C) and return self; a label without a row is never answered."""
        self._labels = targets.shape[1]
        self._present = np.flatnonzero((targets > 0).any(axis=0))
        features = self._features.fit_transform(texts)
        linear = LinearSVC(random_state=self._seed)
        if self._kind is TaskKind.MULTI_LABEL:
            self._model = OneVsRestClassifier(linear).fit(features, targets[:, self._present])
        elif len(self._present) > 1:
            self._model = linear.fit(features, targets.argmax(axis=1))
        return self

    def calibrate(self, texts: Sequence[str], targets: NDArray[np.float32]) -> "TfidfClassifier":
        """Fit the temperature of the margins on dev rows and return self."""
        self._temperature = fit_temperature(self._kind, self.logits(texts), targets)
        return self

    def logits(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """Return margins over the fitted temperature (N, C)."""
        margins = self._margins(texts)
        if margins.ndim == 1:  # two labels share one separator
            margins = np.stack([-margins, margins], axis=1) if len(self._present) == 2 else margins[:, None]
        scores = np.full((len(texts), self._labels), _NEVER, np.float32)
        scores[:, self._present] = margins
        return np.asarray(scores / self._temperature, np.float32)

    def _margins(self, texts: Sequence[str]) -> NDArray[np.float32]:
        if self._kind is TaskKind.SINGLE_LABEL and len(self._present) == 1:  # nothing to separate
            return np.zeros((len(texts), 1), np.float32)
        return np.asarray(self._model.decision_function(self._features.transform(texts)), np.float32)

    def probs(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """Return calibrated probabilities (N, C)."""
        return ACTIVATIONS[self._kind](self.logits(texts))
