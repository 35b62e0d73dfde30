from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from teacher.example import Example, content_id
from teacher.label import label_corpus
from teacher.soft_labels import LabelStore, SoftLabels, read_store
from teacher.task import Task, TaskKind

TASK = Task(TaskKind.SINGLE_LABEL, ("short", "long"))
TEXTS = [f"text {'o' * number}" for number in range(50)]


class LengthTeacher:
    """Answers by length, counts what it is asked, and breaks after `patience` texts."""

    def __init__(self, patience: int = 1000) -> None:
        self.task = TASK
        self.fingerprint = "length"
        self.parameters = 0
        self.asked: list[str] = []
        self._patience = patience

    def label(self, texts: Sequence[str]) -> SoftLabels:
        if len(self.asked) + len(texts) > self._patience:
            raise ConnectionError("the teacher went away")
        self.asked.extend(texts)
        share = np.array([len(text) / 100 for text in texts], np.float32)
        probs = np.stack([1 - share, share], axis=1)
        return SoftLabels(tuple(content_id(text) for text in texts), probs, np.zeros(len(texts), np.float32), "length")


def chunks(size: int = 15) -> list[list[Example]]:
    examples = [Example(content_id(text), text) for text in TEXTS]
    return [examples[start : start + size] for start in range(0, len(examples), size)]


def run(teacher: LengthTeacher, directory: Path) -> tuple[LabelStore, list[int]]:
    store, counts = LabelStore(directory, TASK, teacher.fingerprint), []
    label_corpus(teacher, chunks(), store, shard_rows=10, progress=counts.append)
    return store, counts


def test_every_text_is_asked_once_and_stored_under_its_id(tmp_path: Path) -> None:
    teacher = LengthTeacher()
    store, counts = run(teacher, tmp_path)
    store.finish("corpus")
    assert (teacher.asked, sum(counts)) == (TEXTS, 50)
    stored = read_store(tmp_path).probs([content_id(text) for text in TEXTS])
    np.testing.assert_allclose(stored[:, 1], [len(text) / 100 for text in TEXTS], rtol=1e-6)


def test_shards_hold_the_rows_asked_for_across_chunks(tmp_path: Path) -> None:
    run(LengthTeacher(), tmp_path)
    assert [path.name for path in sorted(tmp_path.iterdir())] == [f"part-{shard:05d}.parquet" for shard in range(5)]


def test_after_an_exception_nothing_stored_is_asked_again(tmp_path: Path) -> None:
    first, second = LengthTeacher(patience=34), LengthTeacher()
    with pytest.raises(ConnectionError):
        run(first, tmp_path)
    store, counts = run(second, tmp_path)
    store.finish("corpus")
    assert first.asked == TEXTS[:30]
    assert second.asked == TEXTS[30:]
    assert sum(counts) == 50
    assert read_store(tmp_path).meta.rows == 50


def test_a_finished_corpus_is_not_asked_again(tmp_path: Path) -> None:
    run(LengthTeacher(), tmp_path)
    idle = LengthTeacher(patience=0)
    run(idle, tmp_path)
    assert idle.asked == []


def test_another_teacher_starts_over(tmp_path: Path) -> None:
    run(LengthTeacher(), tmp_path)
    other = LengthTeacher()
    other.fingerprint = "length, calibrated anew"
    run(other, tmp_path)
    assert other.asked == TEXTS
