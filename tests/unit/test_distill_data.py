import shutil
from pathlib import Path

import numpy as np
import pytest
from transformers import AutoTokenizer

from distill.data import Transfer, labelled_rows, needed_tokens, read_transfer
from teacher.corpus import read_meta, read_part
from teacher.errors import StoreError
from teacher.soft_labels import LabelStore, Rejected, SoftLabels, read_store
from teacher.task import Task


def test_texts_meet_the_answers_that_were_stored_under_their_ids(
    small_corpus: Path, small_labels: Path, small_task: Task
) -> None:
    transfer = read_transfer(small_corpus, small_labels, small_task, "pool")
    examples, store = read_part(small_corpus, "pool"), read_store(small_labels)
    assert transfer.texts == [example.text for example in examples]
    for example, soft in zip(examples, transfer.soft, strict=True):
        np.testing.assert_array_equal(soft, store.probs([example.id])[0])


def test_only_gold_texts_of_the_pool_carry_a_gold_label(
    small_corpus: Path, small_labels: Path, small_task: Task
) -> None:
    transfer = read_transfer(small_corpus, small_labels, small_task, "pool")
    gold = {example.text: example.labels for example in read_part(small_corpus, "gold")}
    assert int(transfer.has_gold.sum()) == len(gold) < len(transfer.texts)
    for text, known, targets in zip(transfer.texts, transfer.has_gold, transfer.targets, strict=True):
        assert known == (text in gold)
        assert targets.tolist() == small_task.targets([gold.get(text) or ()])[0].tolist()


def test_a_store_of_another_corpus_is_refused(small_labels: Path, small_task: Task, multi_corpus: Path) -> None:
    with pytest.raises(StoreError, match="another corpus"):
        read_transfer(multi_corpus, small_labels, small_task, "pool")


@pytest.fixture
def partial_labels(small_corpus: Path, small_labels: Path, small_task: Task, tmp_path: Path) -> Path:
    """Return a store in which the teacher answered every third pool text and rejected the rest."""
    pool, whole = read_part(small_corpus, "pool"), read_store(small_labels)
    asked, refused = pool[::3], [one for row, one in enumerate(pool) if row % 3]
    ids = tuple(one.id for one in asked)
    store = LabelStore(tmp_path, small_task, "someone")
    rejected = tuple(Rejected(one.id, "no answer") for one in refused)
    store.append(SoftLabels(ids, whole.probs(ids), np.zeros(len(ids), np.float32), "test", rejected=rejected))
    store.finish(corpus=read_meta(small_corpus).digest)
    return tmp_path


def test_rejected_texts_stay_out_unless_gold_knows_them(
    small_corpus: Path, partial_labels: Path, small_task: Task
) -> None:
    transfer = read_transfer(small_corpus, partial_labels, small_task, "pool")
    pool, gold = read_part(small_corpus, "pool"), {one.id for one in read_part(small_corpus, "gold")}
    assert transfer.texts == [one.text for row, one in enumerate(pool) if row % 3 == 0 or one.id in gold]
    assert len(transfer.texts) < len(pool)


def test_a_gold_label_stands_in_for_a_missing_answer_without_being_certain(
    small_corpus: Path, partial_labels: Path, small_task: Task
) -> None:
    transfer, store = read_transfer(small_corpus, partial_labels, small_task, "gold"), read_store(partial_labels)
    answered = store.answered([one.id for one in read_part(small_corpus, "gold")])
    assert not answered.all()
    assert (transfer.soft.argmax(axis=1) == transfer.targets.argmax(axis=1))[~answered].all()
    assert transfer.soft[~answered].max() < 0.98
    np.testing.assert_allclose(transfer.soft.sum(axis=1), 1, atol=1e-5)


def test_a_damaged_store_is_refused_before_training(
    small_corpus: Path, small_labels: Path, small_task: Task, tmp_path: Path
) -> None:
    copied = Path(shutil.copytree(small_labels, tmp_path / "labels"))
    (copied / "part-00001.parquet").unlink()
    with pytest.raises(StoreError, match=r"part-00001\.parquet is missing"):
        read_transfer(small_corpus, copied, small_task, "pool")


def test_rows_carry_what_the_objective_reads(tiny_encoder: Path) -> None:
    soft = np.array([[0.2, 0.8], [0.6, 0.4]], np.float32)
    transfer = Transfer(["my parcel", "the shirt does not fit"], soft, soft.round(), np.array([True, False]))
    rows = transfer.rows(AutoTokenizer.from_pretrained(tiny_encoder), 16)
    assert rows[1]["soft"].tolist() == soft[1].tolist()
    assert rows[1]["targets"].tolist() == [1, 0]
    assert (bool(rows[0]["has_gold"]), bool(rows[1]["has_gold"])) == (True, False)
    assert "hidden" not in rows[0]


def test_rows_carry_the_teachers_embeddings_where_there_are_any(tiny_encoder: Path) -> None:
    soft = np.array([[0.2, 0.8]], np.float32)
    hidden = np.array([[0.5, -0.5, 1.0]], np.float16)
    transfer = Transfer(["my parcel"], soft, soft, np.array([False]), hidden)
    rows = transfer.rows(AutoTokenizer.from_pretrained(tiny_encoder), 16)
    assert rows[0]["hidden"].tolist() == [0.5, -0.5, 1.0]


def test_the_gold_label_stands_in_for_the_soft_one(small_corpus: Path, small_task: Task, tiny_encoder: Path) -> None:
    examples = read_part(small_corpus, "dev")
    rows = labelled_rows(examples, small_task, AutoTokenizer.from_pretrained(tiny_encoder), 16)
    for row, example in enumerate(examples):
        assert rows[row]["soft"].tolist() == rows[row]["targets"].tolist()
        assert small_task.labels[rows[row]["targets"].argmax()] == (example.labels or ())[0]
        assert bool(rows[row]["has_gold"])


def test_the_length_covers_the_corpus_in_steps_of_sixteen(tiny_encoder: Path) -> None:
    tokenizer = AutoTokenizer.from_pretrained(tiny_encoder)
    short, long = "my parcel", "my parcel " * 12
    assert len(tokenizer(long)["input_ids"]) == 26
    assert needed_tokens(tokenizer, [short] * 10, 64) == 16
    assert needed_tokens(tokenizer, [short, long], 64) == 32
    assert needed_tokens(tokenizer, [short, long], 20) == 20
    assert needed_tokens(tokenizer, [short] * 9999 + [long], 64) == 16
