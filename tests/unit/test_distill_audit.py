"""Facts about the look for wrong labels in a corpus: whose probabilities count, and what is written."""

import csv
from pathlib import Path

import numpy as np
import pytest

from distill.audit import LABEL_ERRORS, PROBABILITIES, audit_labels, cross_validate_gold, out_of_fold
from distill.quality import Answers, decide
from teacher.corpus import prepare_corpus, read_part
from teacher.spec import DataSpec, TaskSpec
from teacher.task import Task, TaskKind
from tests.conftest import LABELS, write_csv

TASK = Task(TaskKind.SINGLE_LABEL, LABELS)
_WRONG = "hello my card was declined"


@pytest.fixture(scope="module")
def corpus(small_corpus: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a corpus in which one gold text stands under another label than the texts like it."""
    folder = tmp_path_factory.mktemp("audit")
    rows = {
        part: [(one.text, (one.labels or ("",))[0]) for one in read_part(small_corpus, part) if one.text != _WRONG]
        for part in ("gold", "dev", "test")
    }
    rows["gold"].append((_WRONG, "size"))
    for part, written in rows.items():
        write_csv(folder / f"{part}.csv", ["text", "label"], [*written])
    data = DataSpec(gold="gold.csv", dev="dev.csv", test="test.csv")
    prepare_corpus(data, TaskSpec(), folder, folder / "corpus", seed=0)
    return folder / "corpus"


@pytest.fixture(scope="module")
def audit(corpus: Path, tiny_encoder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("probabilities")
    cross_validate_gold(corpus, TASK, str(tiny_encoder), directory, 0, lambda rows: None)
    return directory


@pytest.fixture(scope="module")
def teacher(corpus: Path) -> Answers:
    """Return answers to test that are right, but for the first row."""
    targets = TASK.targets([example.labels or () for example in read_part(corpus, "test")])
    targets[0] = np.roll(targets[0], 1)
    return decide(TASK.kind, 0.9 * targets + 0.1 / 3, None)


def test_gold_and_dev_rows_are_judged_by_heads_that_did_not_see_them(corpus: Path, audit: Path) -> None:
    with np.load(audit / PROBABILITIES) as arrays:
        assert arrays["ids"].tolist() == [one.id for part in ("gold", "dev") for one in read_part(corpus, part)]
        np.testing.assert_allclose(arrays["probs"].sum(axis=1), 1, atol=1e-5)


def test_a_row_cannot_defend_its_own_label() -> None:
    generator = np.random.default_rng(0)
    embeddings = generator.normal(size=(60, 40)).astype(np.float32)  # says nothing of the labels
    targets = np.eye(3, dtype=np.float32)[generator.integers(0, 3, 60)]
    probs = out_of_fold(TaskKind.SINGLE_LABEL, embeddings, targets, 0)
    assert (probs.argmax(axis=1) == targets.argmax(axis=1)).mean() < 0.6  # a fit on the row itself is right on all


def test_labels_that_a_fold_lacks_have_no_probability_there() -> None:
    embeddings = np.random.default_rng(0).normal(size=(9, 4)).astype(np.float32)
    targets = np.eye(4, dtype=np.float32)[[0, 0, 0, 0, 1, 1, 1, 1, 2]]
    assert out_of_fold(TaskKind.SINGLE_LABEL, embeddings, targets, 0)[8, 2] == 0
    sets = np.eye(4, dtype=np.float32)[[0, 0, 0, 0, 1, 1, 1, 1, 2]]
    assert out_of_fold(TaskKind.MULTI_LABEL, embeddings, sets, 0).shape == (9, 4)


def test_suspects_of_test_rest_on_the_teacher_and_are_written_with_those_of_gold(
    corpus: Path, audit: Path, teacher: Answers, tmp_path: Path
) -> None:
    found = audit_labels(corpus, audit, TASK, teacher, tmp_path)
    counts = {part["part"]: part["suspects"] for part in found["parts"]}
    rows = [*csv.DictReader((tmp_path / LABEL_ERRORS).open(encoding="utf-8", newline=""))]
    assert counts["test"] == 1
    assert [row["text"] for row in rows if row["part"] == "test"] == [read_part(corpus, "test")[0].text]
    assert {part: sum(row["part"] == part for row in rows) for part in counts} == counts
    assert any(row["text"] == _WRONG and row["suggested"] == "payment" for row in rows)


def test_gold_too_small_to_be_held_out_is_not_judged(tmp_path: Path, tiny_encoder: Path) -> None:
    rows = [(f"{label} text", label) for label in LABELS]
    for part, shown in (("gold", rows), ("dev", rows[:1]), ("test", rows)):
        write_csv(tmp_path / f"{part}.csv", ["text", "label"], [(f"{part} {text}", label) for text, label in shown])
    data = DataSpec(gold="gold.csv", dev="dev.csv", test="test.csv")
    prepare_corpus(data, TaskSpec(), tmp_path, tmp_path / "corpus", seed=0)
    cross_validate_gold(tmp_path / "corpus", TASK, str(tiny_encoder), tmp_path, 0, lambda rows: None)
    teacher = decide(TASK.kind, np.eye(3, dtype=np.float32), None)
    found = audit_labels(tmp_path / "corpus", tmp_path, TASK, teacher, tmp_path)
    assert {part["part"]: part["rows"] for part in found["parts"]} == {"test": 3, "gold": 0, "dev": 0}
