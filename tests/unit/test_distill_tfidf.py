from pathlib import Path

import numpy as np
import pytest

from distill.tfidf import TfidfClassifier
from teacher.corpus import read_part
from teacher.task import Task, TaskKind


def parts(corpus: Path, task: Task) -> list[tuple[list[str], np.ndarray]]:
    read = [read_part(corpus, part) for part in ("gold", "dev")]
    return [([one.text for one in rows], task.targets([one.labels or () for one in rows])) for rows in read]


def test_words_and_characters_learn_the_small_corpus(small_corpus: Path, small_task: Task) -> None:
    (texts, targets), (dev, truth) = parts(small_corpus, small_task)
    model = TfidfClassifier(small_task.kind).fit(texts, targets).calibrate(dev, truth)
    assert (model.logits(dev).argmax(axis=1) == truth.argmax(axis=1)).mean() > 0.9
    np.testing.assert_allclose(model.probs(dev).sum(axis=1), 1, rtol=1e-5)


def test_calibration_lowers_the_loss_and_moves_no_decision(small_corpus: Path, small_task: Task) -> None:
    (texts, targets), (dev, truth) = parts(small_corpus, small_task)
    model = TfidfClassifier(small_task.kind).fit(texts, targets)
    before = model.probs(dev)
    after = model.calibrate(dev, truth).probs(dev)
    assert -(truth * np.log(after)).sum() < -(truth * np.log(before)).sum()
    assert (before.argmax(axis=1) == after.argmax(axis=1)).all()


def test_several_labels_are_answered_independently(multi_corpus: Path, multi_task: Task) -> None:
    (texts, targets), (dev, truth) = parts(multi_corpus, multi_task)
    probs = TfidfClassifier(multi_task.kind).fit(texts, targets).calibrate(dev, truth).probs(dev)
    assert ((probs >= 0.5) == (truth > 0)).mean() > 0.9


@pytest.mark.parametrize("kind", list(TaskKind))
def test_two_labels_that_share_a_separator_get_a_column_each(kind: TaskKind) -> None:
    targets = np.array([[1, 0], [1, 0], [0, 1], [0, 1]], np.float32)
    model = TfidfClassifier(kind).fit(["good day", "good night", "bad day", "bad night"], targets)
    assert model.probs(["good", "bad"]).argmax(axis=1).tolist() == [0, 1]


@pytest.mark.parametrize("kind", list(TaskKind))
@pytest.mark.parametrize("present", [[0, 2], [2], [0, 1, 2]])
def test_a_label_without_a_row_is_never_answered(kind: TaskKind, present: list[int]) -> None:
    targets = np.eye(4, dtype=np.float32)[[present[row % len(present)] for row in range(6)]]
    texts = [f"word{row % len(present)} text{row}" for row in range(6)]
    model = TfidfClassifier(kind).fit(texts, targets)
    logits = model.logits(texts)
    assert set(logits.argmax(axis=1).tolist()) == set(present)
    assert (logits[:, [column for column in range(4) if column not in present]] == -10).all()


def test_the_same_seed_gives_the_same_answers(small_corpus: Path, small_task: Task) -> None:
    (texts, targets), (dev, _) = parts(small_corpus, small_task)
    one, other = (TfidfClassifier(small_task.kind, seed=3).fit(texts, targets).probs(dev) for _ in range(2))
    np.testing.assert_array_equal(one, other)
