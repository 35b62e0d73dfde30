"""The committee: a weighted mean of other teachers, with one weight per member and class learned on dev."""

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from teacher.base import Teacher, TeacherCard, read_card
from teacher.calibrate import fit_temperature
from teacher.encoder import ACTIVATIONS
from teacher.example import content_id
from teacher.soft_labels import SoftLabels
from teacher.task import TaskKind

_PULL = 0.02  # how strongly weights are pulled to equal shares; dev is small
_STEPS = 60


def fit_committee(
    members: Sequence[Teacher], texts: Sequence[str], targets: NDArray[np.float32], directory: Path
) -> None:
    """Learn the weights of fitted `members` on labelled dev `texts` (targets (N, C)) and save them."""
    task = members[0].task
    answers = np.stack([member.label(texts).probs for member in members])
    weights = learn_weights(task.kind, answers, targets)
    mixed = mix(task.kind, answers, weights)
    temperature = fit_temperature(task.kind, _logits(task.kind, mixed), targets)
    identity = json.dumps([[member.fingerprint for member in members], weights.tolist(), temperature])
    TeacherCard(
        kind="committee",
        task_kind=task.kind,
        labels=list(task.labels),
        fingerprint=hashlib.sha256(identity.encode()).hexdigest(),
        temperature=temperature,
        details={"weights": weights.tolist()},
    ).write(directory)


class CommitteeTeacher:
    """Fitted members under one set of weights."""

    def __init__(self, directory: Path, members: Sequence[Teacher]) -> None:
        """Read the weights that `fit_committee` wrote for the same members."""
        card = read_card(directory)
        self.task = card.task()
        self.fingerprint = card.fingerprint
        self.parameters = sum(member.parameters for member in members)
        self._members = members
        self._weights = np.asarray(card.details["weights"], np.float32)
        self._temperature = card.temperature

    def label(self, texts: Sequence[str]) -> SoftLabels:
        """Return the calibrated weighted mean of the members' probabilities."""
        answers = np.stack([member.label(texts).probs for member in self._members])
        logits = _logits(self.task.kind, mix(self.task.kind, answers, self._weights)) / self._temperature
        probs = ACTIVATIONS[self.task.kind](torch.from_numpy(logits.astype(np.float32))).numpy()
        ids = tuple(content_id(text) for text in texts)
        return SoftLabels(ids, probs, np.zeros(len(ids), np.float32), "committee")


def member_directory(directory: Path, position: int) -> Path:
    """Return where the member at `position` of a committee lives."""
    return directory / f"member-{position}"


def mix(kind: TaskKind, answers: NDArray[np.float32], weights: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return the mean (N, C) of `answers` (M, N, C) under `weights` (M, C); single-label rows sum to 1."""
    mixed = (answers * weights[:, None, :]).sum(axis=0)
    if kind is TaskKind.SINGLE_LABEL:
        mixed = mixed / np.maximum(mixed.sum(axis=1, keepdims=True), 1e-12)
    return np.asarray(mixed, np.float32)


def learn_weights(kind: TaskKind, answers: NDArray[np.float32], targets: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return weights (M, C), each column summing to 1, that minimise the negative log-likelihood on dev.

    A quadratic pull towards equal shares keeps a class with few dev rows from trusting one member by luck.
    """
    probs, truth = torch.from_numpy(answers).double(), torch.from_numpy(targets).double()
    scores = torch.zeros(answers.shape[0], answers.shape[2], dtype=torch.float64, requires_grad=True)
    optimizer = torch.optim.LBFGS([scores], max_iter=_STEPS, line_search_fn="strong_wolfe")

    def closure() -> torch.Tensor:
        optimizer.zero_grad()
        mixed = (probs * torch.softmax(scores, dim=0)[:, None, :]).sum(dim=0).clamp(1e-9, 1 - 1e-9)
        if kind is TaskKind.SINGLE_LABEL:
            loss = -(truth * (mixed / mixed.sum(dim=1, keepdim=True)).log()).sum(dim=1).mean()
        else:
            loss = torch.nn.functional.binary_cross_entropy(mixed, truth)
        loss = loss + _PULL * scores.pow(2).mean()
        loss.backward()  # type: ignore[no-untyped-call]
        return loss

    optimizer.step(closure)  # type: ignore[no-untyped-call]
    return torch.softmax(scores.detach(), dim=0).float().numpy()


def _logits(kind: TaskKind, probs: NDArray[np.float32]) -> NDArray[np.float32]:
    clipped = np.clip(probs, 1e-9, 1 - 1e-7)
    if kind is TaskKind.MULTI_LABEL:
        return np.asarray(np.log(clipped) - np.log1p(-clipped), np.float32)
    return np.asarray(np.log(clipped), np.float32)
