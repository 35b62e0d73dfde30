"""The prototypes teacher: frozen mean-pooled embeddings and a calibrated linear head, for a handful of gold.

Once fitted it is an encoder teacher like any other, with a head that reads unit-length embeddings.
"""

from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.linear_model import LogisticRegression
from sklearn.multiclass import OneVsRestClassifier

from teacher.calibrate import fit_temperature
from teacher.encoder import Fitted, Gold, load_tokenizer, save_fitted
from teacher.pooled import PooledClassifier, PooledEncoder, load_encoder
from teacher.scorer import TextScorer
from teacher.spec import PrototypesSpec
from teacher.task import TaskKind

_STRENGTHS = (1.0, 10.0, 100.0)  # inverse regularisation; dev picks one


def fit_prototypes(spec: PrototypesSpec, gold: Gold, directory: Path) -> None:
    """Embed gold with the frozen encoder, fit a linear head, calibrate it on dev, save to `directory`."""
    tokenizer, encoder = load_tokenizer(spec.model), load_encoder(spec.model)
    embedder = TextScorer(PooledEncoder(encoder), tokenizer, spec.max_tokens)
    train = embedder.logits([example.text for example in gold.train])
    gold.progress(len(gold.train))
    dev = embedder.logits([example.text for example in gold.dev])
    targets, dev_targets = gold.targets(gold.train), gold.targets(gold.dev)
    heads = [_fit_head(gold.task.kind, train, targets, strength) for strength in _STRENGTHS]
    weight, bias = max(heads, key=lambda head: gold.score(dev @ head[0].T + head[1], dev_targets))
    temperature = fit_temperature(gold.task.kind, dev @ weight.T + bias, dev_targets)
    classifier = PooledClassifier(encoder, len(bias), unit_length=True)
    classifier.head.load_state_dict({"weight": torch.from_numpy(weight), "bias": torch.from_numpy(bias)})
    save_fitted(classifier, tokenizer, Fitted("prototypes", gold.task, temperature, spec.max_tokens), directory)


def _fit_head(
    kind: TaskKind, embeddings: NDArray[np.float32], targets: NDArray[np.float32], strength: float
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    linear = LogisticRegression(C=strength, max_iter=1000, class_weight="balanced")
    if kind is TaskKind.MULTI_LABEL:
        fitted = OneVsRestClassifier(linear).fit(embeddings, targets)
        weight = np.stack([estimator.coef_[0] for estimator in fitted.estimators_])
        bias = np.array([estimator.intercept_[0] for estimator in fitted.estimators_])
        return weight.astype(np.float32), bias.astype(np.float32)
    linear.fit(embeddings, targets.argmax(axis=1))
    weight, bias = linear.coef_, linear.intercept_
    if len(bias) == 1:  # two classes share one separating plane
        weight, bias = np.concatenate([-weight, weight]) / 2, np.concatenate([-bias, bias]) / 2
    return np.ascontiguousarray(weight, np.float32), np.ascontiguousarray(bias, np.float32)
