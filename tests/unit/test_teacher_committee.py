from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from teacher.committee import CommitteeTeacher, fit_committee, learn_weights, mix
from teacher.example import content_id
from teacher.soft_labels import SoftLabels
from teacher.task import Task, TaskKind

TASK = Task(TaskKind.SINGLE_LABEL, ("delivery", "payment", "size"))
ROWS = 240
TRUTH = np.arange(ROWS) % 3
TARGETS = np.eye(3, dtype=np.float32)[TRUTH]
TEXTS = [f"text {row}" for row in range(ROWS)]
Floats = NDArray[np.float32]


class TableTeacher:
    """Answers from a table, so that a test decides how good a member is."""

    def __init__(self, probs: Floats, fingerprint: str, task: Task = TASK) -> None:
        self.task = task
        self.fingerprint = fingerprint
        self.parameters = 10
        self._table = dict(zip(TEXTS, probs, strict=True))

    def label(self, texts: Sequence[str]) -> SoftLabels:
        probs = np.stack([self._table[text] for text in texts])
        return SoftLabels(tuple(content_id(text) for text in texts), probs, np.zeros(len(texts), np.float32), "table")


def member(good: set[int], seed: int) -> Floats:
    """Return answers that find the classes `good` and take every other text for one of the other two classes."""
    generator = np.random.default_rng(seed)
    logits = generator.normal(scale=0.5, size=(ROWS, 3))
    for row, label in enumerate(TRUTH):
        logits[row, label if label in good else (label + generator.integers(1, 3)) % 3] += 3
    shares = np.exp(logits)
    return (shares / shares.sum(axis=1, keepdims=True)).astype(np.float32)


def test_each_column_of_weights_sums_to_one() -> None:
    answers = np.stack([member({0}, 1), member({1, 2}, 2), member({0, 1, 2}, 3)])
    for kind in TaskKind:
        weights = learn_weights(kind, answers, TARGETS)
        assert weights.shape == (3, 3)
        np.testing.assert_allclose(weights.sum(axis=0), 1, rtol=1e-5)
        assert (weights >= 0).all()


def test_a_better_member_gets_more_weight_in_every_class() -> None:
    weights = learn_weights(TaskKind.SINGLE_LABEL, np.stack([member({0, 1, 2}, 1), member(set(), 2)]), TARGETS)
    assert (weights[0] > 0.6).all()


def test_weights_follow_who_is_right_about_each_label() -> None:
    generator = np.random.default_rng(0)
    targets = (generator.random((ROWS, 3)) < 0.5).astype(np.float32)
    sure, blind = 0.1 + 0.8 * targets, np.full((ROWS, 3), 0.5, np.float32)
    first, second = blind.copy(), blind.copy()
    first[:, 0], second[:, 1:] = sure[:, 0], sure[:, 1:]
    weights = learn_weights(TaskKind.MULTI_LABEL, np.stack([first, second]), targets)
    assert weights[0, 0] > 0.7
    assert (weights[1, 1:] > 0.7).all()


def test_equal_members_share_equally() -> None:
    answers = np.stack([member({0, 1}, 1)] * 2)
    np.testing.assert_allclose(learn_weights(TaskKind.SINGLE_LABEL, answers, TARGETS), 0.5, atol=1e-4)


def test_a_single_label_mixture_is_a_distribution() -> None:
    answers = np.stack([member({0}, 1), member({1}, 2)])
    mixed = mix(TaskKind.SINGLE_LABEL, answers, np.array([[0.9, 0.1, 0.5], [0.1, 0.9, 0.5]], np.float32))
    np.testing.assert_allclose(mixed.sum(axis=1), 1, rtol=1e-5)


def test_a_multi_label_mixture_is_the_weighted_mean_of_each_label() -> None:
    answers = np.array([[[0.2, 0.8]], [[0.6, 0.4]]], np.float32)
    mixed = mix(TaskKind.MULTI_LABEL, answers, np.array([[0.25, 0.5], [0.75, 0.5]], np.float32))
    np.testing.assert_allclose(mixed, [[0.5, 0.6]], rtol=1e-6)


@pytest.mark.parametrize("kind", list(TaskKind))
def test_a_committee_is_at_least_as_good_as_its_members(tmp_path: Path, kind: TaskKind) -> None:
    task = Task(kind, TASK.labels)
    members = [TableTeacher(member({0, 1}, 1), "one", task), TableTeacher(member({1, 2}, 2), "two", task)]
    fit_committee(members, TEXTS, TARGETS, tmp_path)

    def loss(probs: Floats) -> float:
        return float(-np.log(np.clip(probs[np.arange(ROWS), TRUTH], 1e-9, 1)).mean())

    committee = CommitteeTeacher(tmp_path, members)
    answers = committee.label(TEXTS)
    assert loss(answers.probs) < min(loss(one.label(TEXTS).probs) for one in members)
    assert (committee.parameters, answers.method) == (20, "committee")


def test_a_loaded_committee_answers_with_the_mean_at_the_fitted_temperature(tmp_path: Path) -> None:
    members = [TableTeacher(member({0, 1, 2}, 1), "one"), TableTeacher(member({0, 1, 2}, 2), "two")]
    fit_committee(members, TEXTS, TARGETS, tmp_path)
    committee = CommitteeTeacher(tmp_path, members)
    answers = np.stack([one.label(TEXTS).probs for one in members])
    tempered = mix(TaskKind.SINGLE_LABEL, answers, committee._weights) ** (1 / committee._temperature)
    wanted = tempered / tempered.sum(axis=1, keepdims=True)
    np.testing.assert_allclose(committee.label(TEXTS).probs, wanted, rtol=1e-4)
    assert committee._temperature != 1


def test_the_fingerprint_follows_the_members(tmp_path: Path) -> None:
    prints = []
    for name in ("one", "two", "one"):
        fit_committee([TableTeacher(member({0}, 1), name), TableTeacher(member({1}, 2), "x")], TEXTS, TARGETS, tmp_path)
        prints.append(CommitteeTeacher(tmp_path, []).fingerprint)
    assert prints[0] == prints[2] != prints[1]
