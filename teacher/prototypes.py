"""The prototypes teacher: frozen mean-pooled embeddings and a calibrated linear head, for a handful of gold.

Once fitted it is an encoder teacher like any other, with a head that reads unit-length embeddings.
"""

from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.linear_model import LogisticRegression

from teacher.calibrate import fit_temperature
from teacher.encoder import Fitted, Gold, load_embedder, save_fitted
from teacher.pooled import PooledClassifier
from teacher.spec import PrototypesSpec
from teacher.task import TaskKind

_STRENGTHS = (1.0, 10.0, 100.0)  # inverse regularisation; dev picks one
_SURE = 5.0  # the logit of a label that all gold rows carry


def fit_prototypes(spec: PrototypesSpec, gold: Gold, directory: Path) -> None:
    """Embed gold with the frozen encoder, fit a linear head, calibrate it on dev, save to `directory`."""
    embedder = load_embedder(spec.model, spec.max_tokens)
    train = embedder.logits([example.text for example in gold.train])
    gold.progress(len(gold.train))
    dev = embedder.logits([example.text for example in gold.dev])
    targets, dev_targets = gold.targets(gold.train), gold.targets(gold.dev)
    heads = [_fit_head(gold.task.kind, train, targets, strength) for strength in _STRENGTHS]
    weight, bias = max(heads, key=lambda head: gold.score(dev @ head[0].T + head[1], dev_targets))
    temperature = fit_temperature(gold.task.kind, dev @ weight.T + bias, dev_targets)
    classifier = PooledClassifier(embedder.model.encoder, len(bias), unit_length=True)
    classifier.head.load_state_dict({"weight": torch.from_numpy(weight), "bias": torch.from_numpy(bias)})
    fitted = Fitted("prototypes", gold.task, temperature, spec.max_tokens)
    save_fitted(classifier, embedder.tokenizer, fitted, directory)


def _fit_head(
    kind: TaskKind, embeddings: NDArray[np.float32], targets: NDArray[np.float32], strength: float
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    linear = LogisticRegression(C=strength, max_iter=1000, class_weight="balanced")
    if kind is TaskKind.MULTI_LABEL:
        planes = [_fit_plane(linear, embeddings, truth) for truth in targets.T]
        weight, bias = (np.stack(arrays) for arrays in zip(*planes, strict=True))
        return weight.astype(np.float32), bias.astype(np.float32)
    linear.fit(embeddings, targets.argmax(axis=1))
    weight, bias = linear.coef_, linear.intercept_
    if len(bias) == 1:  # two classes share one separating plane
        weight, bias = np.concatenate([-weight, weight]) / 2, np.concatenate([-bias, bias]) / 2
    return np.ascontiguousarray(weight, np.float32), np.ascontiguousarray(bias, np.float32)


def _fit_plane(
    linear: LogisticRegression, embeddings: NDArray[np.float32], truth: NDArray[np.float32]
) -> tuple[NDArray[np.float64], float]:
    if truth.min() == truth.max():  # nothing to separate
        return np.zeros(embeddings.shape[1]), _SURE if truth[0] else -_SURE
    linear.fit(embeddings, truth)
    return linear.coef_[0], float(linear.intercept_[0])
