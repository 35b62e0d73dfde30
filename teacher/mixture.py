"""Mix the answers of several teachers: weights per member and class, how far members disagree, and what mixing gains.

Arrays: `probs` (M, N, C) of M members, `presence` (M, N), 0 where a member has no answer, else the mass it puts on the
labels at all. Knows nothing of texts and of what the members are.
"""

from collections.abc import Callable

import numpy as np
import torch
from numpy.typing import NDArray

from teacher.task import TaskKind

# How far a member is believed to be above or below equal shares (in log-odds), and a class apart from its member:
# two rows of luck must not decide, two hundred may.
_MEMBER_SPREAD, _CLASS_SPREAD = 1.0, 0.5
_STEPS = 100
_LEAST = 1e-9
Floats = NDArray[np.float32]


def mix(kind: TaskKind, probs: Floats, weights: Floats, presence: Floats | None = None) -> Floats:
    """Return the mean (N, C) of `probs` under `weights` (M, C); single-label rows sum to 1.

    The weights of the members that answered a row share what the others leave; without `presence` all did. A row
    that nobody answered is meaningless.
    """
    shares = _row_weights(weights, presence if presence is not None else np.ones(probs.shape[:2], np.float32))
    mixed = (probs * shares).sum(axis=0)
    if kind is TaskKind.SINGLE_LABEL:
        mixed = mixed / np.maximum(mixed.sum(axis=1, keepdims=True), 1e-12)
    return np.asarray(mixed, np.float32)


def learn_weights(kind: TaskKind, probs: Floats, targets: Floats, presence: Floats | None = None) -> Floats:
    """Return weights (M, C), each column summing to 1, that minimise the negative log-likelihood of 0/1 `targets`.

    A member has a log-odds of its own and each class departs from it; both are drawn to nothing by Gaussian priors
    that count once, not once a row. So a handful of rows moves the weights a little, a class with few rows follows
    its member, and a member without answers keeps an equal share. Rows that nobody answered do not count.
    """
    there = np.ones(probs.shape[:2], np.float32) if presence is None else presence
    kept = there.max(axis=0) > 0
    members, _, classes = probs.shape
    answers, truth, mass = (torch.from_numpy(part).double() for part in (probs[:, kept], targets[kept], there[:, kept]))
    scores = torch.zeros(members, 1 + classes, dtype=torch.float64, requires_grad=True)
    optimizer = torch.optim.LBFGS([scores], max_iter=_STEPS, line_search_fn="strong_wolfe")

    def closure() -> torch.Tensor:
        optimizer.zero_grad()
        shares = mass[:, :, None] * torch.softmax(scores[:, :1] + scores[:, 1:], dim=0)[:, None, :]
        mixed = (answers * shares).sum(dim=0) / shares.sum(dim=0).clamp_min(1e-12)
        drawn = (scores[:, 0] / _MEMBER_SPREAD).pow(2).sum() + (scores[:, 1:] / _CLASS_SPREAD).pow(2).sum()
        loss = _LOSSES[kind](mixed, truth) + drawn / 2
        loss.backward()  # type: ignore[no-untyped-call]
        return loss

    optimizer.step(closure)  # type: ignore[no-untyped-call]
    return torch.softmax(scores[:, :1] + scores[:, 1:], dim=0).detach().float().numpy()


def cross_fitted(kind: TaskKind, probs: Floats, targets: Floats, presence: Floats, folds: int = 5) -> Floats:
    """Return the mixture (N, C) of each row under weights learned on the other rows, one fold of `folds` left out."""
    rows = np.arange(probs.shape[1])
    mixed = np.empty(targets.shape, np.float32)
    for fold in range(folds):
        out = rows % folds == fold
        weights = learn_weights(kind, probs[:, ~out], targets[~out], presence[:, ~out])
        mixed[out] = mix(kind, probs[:, out], weights, presence[:, out])
    return mixed


def disagreement(kind: TaskKind, probs: Floats, weights: Floats, presence: Floats, outside: Floats) -> Floats:
    """Return how far the members of each row disagree (N,), in nats: the generalised Jensen-Shannon divergence.

    That is the entropy of the mixture less the mean entropy of the members (Lin 1991, "Divergence Measures Based on
    the Shannon Entropy"), 0 where one member answered alone. A single-label member's mass `outside` (M, N) is one more
    outcome; of several labels a text the divergences of the labels are added up.
    """
    answered = (presence > 0).astype(np.float64)
    if kind is TaskKind.MULTI_LABEL:
        shares = _row_weights(weights, answered)
        outcomes = np.stack([probs, 1 - probs], axis=-1).astype(np.float64)
        return np.asarray(_divergence(outcomes, shares[..., None]).sum(axis=1), np.float32)
    shares = _row_weights(weights.mean(axis=1, keepdims=True), answered)
    outcomes = np.concatenate([probs * (1 - outside)[..., None], outside[..., None]], axis=-1).astype(np.float64)
    return np.asarray(_divergence(outcomes, shares), np.float32)


def mean_outside(weights: Floats, presence: Floats, outside: Floats) -> Floats:
    """Return the mean mass (N,) that the members who answered a row put outside the labels."""
    shares = _row_weights(weights.mean(axis=1, keepdims=True), (presence > 0).astype(np.float64))[..., 0]
    return np.asarray((shares * outside).sum(axis=0), np.float32)


def _row_weights(weights: NDArray[np.floating], presence: NDArray[np.floating]) -> NDArray[np.float64]:
    """Return the weights (M, N, C) of each row: those of the members there, made to sum to 1."""
    shares = presence.astype(np.float64)[:, :, None] * weights[:, None, :]
    return np.asarray(shares / np.maximum(shares.sum(axis=0, keepdims=True), 1e-12))


def _divergence(outcomes: NDArray[np.float64], shares: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the divergence of distributions over the last axis, across members (the first), weighted by `shares`."""
    mixture = _entropy((shares * outcomes).sum(axis=0))
    own = (shares[..., 0] * _entropy(outcomes)).sum(axis=0)
    return np.asarray(np.maximum(mixture - own, 0.0))


def _entropy(probs: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.asarray(-(probs * np.log(np.clip(probs, 1e-300, None))).sum(axis=-1))


def _single_label_loss(mixed: torch.Tensor, truth: torch.Tensor) -> torch.Tensor:
    return -(truth * (mixed / mixed.sum(dim=1, keepdim=True)).clamp_min(_LEAST).log()).sum()


def _multi_label_loss(mixed: torch.Tensor, truth: torch.Tensor) -> torch.Tensor:
    return torch.nn.functional.binary_cross_entropy(mixed.clamp(_LEAST, 1 - _LEAST), truth, reduction="sum")


_LOSSES: dict[TaskKind, Callable[[torch.Tensor, torch.Tensor], torch.Tensor]] = {
    TaskKind.SINGLE_LABEL: _single_label_loss,
    TaskKind.MULTI_LABEL: _multi_label_loss,
}
