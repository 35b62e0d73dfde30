"""The generative label model: how good voters are, estimated from where they agree, and what is true given their votes.

Voters are taken to err independently of each other given the truth (Dawid and Skene 1979, "Maximum Likelihood
Estimation of Observer Error-Rates Using the EM Algorithm"; with abstention as in Ratner et al. 2016, "Data
Programming"). Known labels are evidence like a very good voter's, so a gold label that all voters deny is doubted.
Knows nothing of texts and of who votes.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.special import expit, log_softmax, logit

from teacher.task import TaskKind

_ROUNDS = 500
_STILL = 1e-6  # the largest change of an estimate that ends the rounds
# What voters are taken for before any vote is seen, and how many rows that opinion is worth.
_ACCURACY = (0.7, 2.0)
_COMMON_WORTH = 5.0  # votes after which a voter's own record counts as much as that of all voters together
_NAMES_TRUE, _NAMES_FALSE = (0.3, 2.0), (0.05, 2.0)
_ANCHOR = 0.95  # how sure a known label is
_LIMITS = (0.005, 0.995)
Doubles = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Votes:
    """Votes one by one: `voters[i]` of M says that `labels[i]` of C holds for text `rows[i]` of N."""

    rows: NDArray[np.int64]
    voters: NDArray[np.int64]
    labels: NDArray[np.int64]
    shape: tuple[int, int, int]  # (N, M, C)

    def by_text(self, worth: Doubles) -> Doubles:
        """Return the sum (N, C) of what each vote is `worth` for its label."""
        texts, _, labels = self.shape
        sums = np.bincount(self.rows * labels + self.labels, worth, minlength=texts * labels)
        return np.asarray(sums.reshape(texts, labels))

    def by_voter(self, worth: Doubles) -> Doubles:
        """Return the sum (M, C) of what each vote is `worth`, by voter and label."""
        _, voters, labels = self.shape
        sums = np.bincount(self.voters * labels + self.labels, worth, minlength=voters * labels)
        return np.asarray(sums.reshape(voters, labels))

    def counts(self) -> NDArray[np.int64]:
        """Return how many voters voted on each text (N,)."""
        pairs = np.unique(self.rows * self.shape[1] + self.voters)
        return np.bincount(pairs // self.shape[1], minlength=self.shape[0])

    def coverage(self) -> Doubles:
        """Return the share of the texts on which each voter votes (M,)."""
        pairs = np.unique(self.rows * self.shape[1] + self.voters)
        return np.asarray(np.bincount(pairs % self.shape[1], minlength=self.shape[1]) / max(self.shape[0], 1))

    def accuracy(self, truth: NDArray[np.floating]) -> Doubles:
        """Return the share (M,) of each voter's votes that `truth` (N, C), 0/1 or probable, bears out; NaN for none."""
        right = self.by_voter(truth[self.rows, self.labels].astype(np.float64)).sum(axis=1)
        cast = self.by_voter(np.ones(len(self.rows))).sum(axis=1)
        return np.asarray(np.where(cast > 0, right / np.maximum(cast, 1), np.nan))


@dataclass(frozen=True, slots=True)
class LabelModel:
    """Fitted voters.

    Single-label: `hit` (M, 1) is the share of a voter's votes that are right, `miss` (M, 1) the probability that a
    wrong one falls on a certain other label; silence says nothing. Multi-label: one binary model a label, in which
    `hit` (M, C) is how often a voter names a label that holds and `miss` (M, C) one that does not; the silence of a
    voter that ever names the label (`speaks`) counts against it. `prior` (C,) is how frequent each label is.
    """

    kind: TaskKind
    prior: Doubles
    hit: Doubles
    miss: Doubles
    speaks: NDArray[np.bool_]

    def posterior(self, votes: Votes, known: NDArray[np.float32] | None = None) -> Doubles:
        """Return the probabilities (N, C) of the labels given `votes`, and given 0/1 `known` labels (N, C)."""
        return _KINDS[self.kind].posterior(self, votes, known)


def fit_label_model(
    kind: TaskKind, votes: Votes, prior: NDArray[np.floating], known: NDArray[np.float32] | None = None
) -> LabelModel:
    """Return the voters that explain `votes` best, by expectation maximisation; the same votes give the same model.

    `prior` (C,) stays as it is; `known` 0/1 labels (N, C) are soft anchors, None leaves it to agreement alone.
    """
    steps = _KINDS[kind]
    model = steps.start(votes, np.asarray(prior, np.float64))
    for _ in range(_ROUNDS):
        improved = steps.improve(model, votes, model.posterior(votes, known))
        change = max(np.abs(improved.hit - model.hit).max(), np.abs(improved.miss - model.miss).max())
        model = improved
        if change < _STILL:
            break
    return model


def smoothed_prior(kind: TaskKind, targets: NDArray[np.floating]) -> Doubles:
    """Return how frequent each label is (C,) in 0/1 `targets` (N, C), each possible answer counted once more."""
    hits = targets.sum(axis=0, dtype=np.float64) + 1
    return np.asarray(hits / (len(targets) + (targets.shape[1] if kind is TaskKind.SINGLE_LABEL else 2)))


@dataclass(frozen=True, slots=True)
class _Steps:
    start: Callable[[Votes, Doubles], LabelModel]
    posterior: Callable[[LabelModel, Votes, NDArray[np.float32] | None], Doubles]
    improve: Callable[[LabelModel, Votes, Doubles], LabelModel]


def _single(prior: Doubles, accuracy: Doubles) -> LabelModel:
    hit = np.clip(accuracy, *_LIMITS)[:, None]
    return LabelModel(TaskKind.SINGLE_LABEL, prior, hit, (1 - hit) / (len(prior) - 1), np.ones(hit.shape, bool))


def _start_single(votes: Votes, prior: Doubles) -> LabelModel:
    return _single(prior, np.full(votes.shape[1], _ACCURACY[0]))


def _posterior_single(model: LabelModel, votes: Votes, known: NDArray[np.float32] | None) -> Doubles:
    worth = np.log(model.hit[:, 0]) - np.log(model.miss[:, 0])
    scores = np.log(model.prior) + votes.by_text(worth[votes.voters])
    if known is not None:
        scores = scores + known * (np.log(_ANCHOR) - np.log((1 - _ANCHOR) / (len(model.prior) - 1)))
    return np.asarray(np.exp(log_softmax(scores, axis=1)))


def _improve_single(model: LabelModel, votes: Votes, truth: Doubles) -> LabelModel:
    right = votes.by_voter(truth[votes.rows, votes.labels]).sum(axis=1)
    cast = votes.by_voter(np.ones(len(votes.rows))).sum(axis=1)
    common = float(_drawn(right.sum(), cast.sum(), _ACCURACY))
    return _single(model.prior, _drawn(right, cast, (common, _COMMON_WORTH)))


def _start_multi(votes: Votes, prior: Doubles) -> LabelModel:
    shape = votes.shape[1:]
    speaks = votes.by_voter(np.ones(len(votes.rows))) > 0
    hit, miss = np.full(shape, _NAMES_TRUE[0]), np.full(shape, _NAMES_FALSE[0])
    return LabelModel(TaskKind.MULTI_LABEL, prior, hit, miss, speaks)


def _posterior_multi(model: LabelModel, votes: Votes, known: NDArray[np.float32] | None) -> Doubles:
    named = np.log(model.hit) - np.log(model.miss)
    silent = np.where(model.speaks, np.log1p(-model.hit) - np.log1p(-model.miss), 0.0)
    scores = logit(model.prior) + silent.sum(axis=0)
    scores = scores + votes.by_text((named - silent)[votes.voters, votes.labels])
    if known is not None:
        scores = scores + (2 * known - 1) * logit(_ANCHOR)
    return np.asarray(expit(scores))


def _improve_multi(model: LabelModel, votes: Votes, truth: Doubles) -> LabelModel:
    held = truth[votes.rows, votes.labels]
    hit = _drawn(votes.by_voter(held), truth.sum(axis=0), _NAMES_TRUE)
    miss = _drawn(votes.by_voter(1 - held), (1 - truth).sum(axis=0), _NAMES_FALSE)
    # A voter that never names a label keeps what it was taken for.
    hit, miss = np.where(model.speaks, hit, model.hit), np.where(model.speaks, miss, model.miss)
    return LabelModel(model.kind, model.prior, np.clip(hit, *_LIMITS), np.clip(miss, *_LIMITS), model.speaks)


def _drawn(hits: Doubles | np.floating, rows: Doubles | np.floating, belief: tuple[float, float]) -> Doubles:
    """Return hits / rows, drawn to a belief that is worth some rows."""
    share, worth = belief
    return np.asarray((hits + share * worth) / (rows + worth))


_KINDS = {
    TaskKind.SINGLE_LABEL: _Steps(_start_single, _posterior_single, _improve_single),
    TaskKind.MULTI_LABEL: _Steps(_start_multi, _posterior_multi, _improve_multi),
}
