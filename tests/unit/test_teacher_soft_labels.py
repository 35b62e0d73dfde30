"""Facts about the store of soft labels: resume, lookup by id, and what happens to a damaged one."""

import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from numpy.typing import NDArray

from teacher.errors import StoreError
from teacher.example import content_id
from teacher.soft_labels import DENSE_LABELS, LabelStore, Rejected, SoftLabels, read_embeddings, read_store
from teacher.task import Task, TaskKind

TASK = Task(TaskKind.SINGLE_LABEL, ("delivery", "payment", "size"))
MULTI = Task(TaskKind.MULTI_LABEL, ("delivery", "payment", "size"))
Damage = Callable[[bytes, int], bytes]


def ids(start: int, stop: int) -> tuple[str, ...]:
    return tuple(content_id(f"text {number}") for number in range(start, stop))


def probs(rows: int, labels: int = 3, seed: int = 0) -> NDArray[np.float32]:
    return np.random.default_rng(seed).dirichlet(np.ones(labels), rows).astype(np.float32)


def answers(start: int, stop: int, labels: int = 3) -> SoftLabels:
    rows = stop - start
    return SoftLabels(ids(start, stop), probs(rows, labels, start), np.zeros(rows, np.float32), "encoder")


def finished(directory: Path, shards: int = 3) -> Path:
    store = LabelStore(directory, TASK, "a teacher")
    for shard in range(shards):
        store.append(answers(10 * shard, 10 * shard + 10))
    store.finish("a corpus")
    return directory


def flip(content: bytes, seed: int) -> bytes:
    position = int(np.random.default_rng(seed).integers(len(content) * 8))
    damaged = bytearray(content)
    damaged[position // 8] ^= 1 << position % 8
    return bytes(damaged)


def cut(content: bytes, seed: int) -> bytes:
    return content[: int(np.random.default_rng(seed).integers(len(content)))]


def test_a_finished_store_gives_back_what_was_stored(tmp_path: Path) -> None:
    stored = read_store(finished(tmp_path))
    np.testing.assert_array_equal(stored.probs(ids(10, 20)), answers(10, 20).probs)
    assert (stored.meta.rows, stored.meta.teacher, stored.meta.corpus) == (30, "a teacher", "a corpus")


def test_the_price_of_a_rejected_answer_is_part_of_the_cost_of_the_store(tmp_path: Path) -> None:
    store, (id,) = LabelStore(tmp_path, TASK, "a teacher"), ids(90, 91)
    refused = Rejected(id, "outside the label set", cost_usd=0.25)
    paid = replace(answers(0, 2), cost_usd=np.array([0.5, 1.0]), rejected=(refused,))
    store.append(paid)
    assert sum(paid.spent_usd) == LabelStore(tmp_path, TASK, "a teacher").finish("a corpus").cost_usd == 1.75


def test_answers_are_found_by_id_whatever_the_order(tmp_path: Path) -> None:
    stored = read_store(finished(tmp_path))
    wanted = ids(0, 30)
    np.testing.assert_array_equal(stored.probs(wanted[::-1]), stored.probs(wanted)[::-1])
    assert stored.probs([]).shape == (0, 3)


def test_a_text_that_was_never_labelled_is_named(tmp_path: Path) -> None:
    stored = read_store(finished(tmp_path))
    with pytest.raises(StoreError, match=f"2 of 12 texts have no soft label .first: {ids(30, 31)[0]}"):
        stored.probs(ids(20, 32))


def test_a_store_without_meta_is_refused(tmp_path: Path) -> None:
    LabelStore(tmp_path, TASK, "a teacher").append(answers(0, 10))
    with pytest.raises(StoreError, match=r"no meta\.json"):
        read_store(tmp_path)


def test_an_empty_store_can_be_finished_and_read(tmp_path: Path) -> None:
    LabelStore(tmp_path, TASK, "a teacher").finish("a corpus")
    with pytest.raises(StoreError, match="1 of 1 texts"):
        read_store(tmp_path).probs(ids(0, 1))


def test_an_interrupted_store_goes_on_where_it_stopped(tmp_path: Path) -> None:
    LabelStore(tmp_path, TASK, "a teacher").append(answers(0, 10))
    resumed = LabelStore(tmp_path, TASK, "a teacher")
    assert resumed.rows == 10
    assert resumed.has(ids(8, 12)).tolist() == [True, True, False, False]
    resumed.append(answers(10, 20))
    resumed.finish("a corpus")
    np.testing.assert_array_equal(read_store(tmp_path).probs(ids(0, 10)), answers(0, 10).probs)


def test_a_fresh_store_has_nothing(tmp_path: Path) -> None:
    assert LabelStore(tmp_path / "new", TASK, "a teacher").has(ids(0, 3)).tolist() == [False] * 3


@pytest.mark.parametrize(
    ("task", "teacher"),
    [
        (TASK, "another teacher"),
        (Task(TaskKind.SINGLE_LABEL, ("delivery", "payment", "colour")), "a teacher"),
        (Task(TaskKind.SINGLE_LABEL, ("size", "payment", "delivery")), "a teacher"),
    ],
    ids=["teacher", "labels", "order"],
)
def test_shards_of_another_teacher_or_other_labels_are_removed(tmp_path: Path, task: Task, teacher: str) -> None:
    LabelStore(tmp_path, TASK, "a teacher").append(answers(0, 10))
    store = LabelStore(tmp_path, task, teacher)
    assert store.rows == 0
    assert list(tmp_path.iterdir()) == []


def test_shards_behind_a_gap_are_removed(tmp_path: Path) -> None:
    finished(tmp_path)
    (tmp_path / "part-00001.parquet").unlink()
    assert LabelStore(tmp_path, TASK, "a teacher").rows == 10
    assert not (tmp_path / "part-00002.parquet").exists()


@pytest.mark.parametrize("damage", [flip, cut])
def test_a_damaged_shard_is_never_adopted_with_other_answers(tmp_path: Path, damage: Damage) -> None:
    finished(tmp_path / "whole", shards=2)
    wrong = []
    for seed in range(50):
        folder = Path(shutil.copytree(tmp_path / "whole", tmp_path / "copy", dirs_exist_ok=True))
        (folder / "meta.json").unlink()
        shard = folder / "part-00001.parquet"
        shard.write_bytes(damage(shard.read_bytes(), seed))
        store = LabelStore(folder, TASK, "a teacher")
        kept = ids(0, 20) if store.rows == 20 else ids(0, 10)
        store.finish("a corpus")
        same = np.array_equal(
            read_store(folder).probs(kept), np.concatenate([answers(0, 10).probs, answers(10, 20).probs])[: len(kept)]
        )
        wrong += [] if same and store.rows == len(kept) else [seed]
    assert wrong == []


@pytest.mark.parametrize("damage", [flip, cut])
def test_fifty_damaged_copies_are_found_and_the_file_is_named(tmp_path: Path, damage: Damage) -> None:
    whole = finished(tmp_path / "whole")
    names = sorted(path.name for path in whole.iterdir())
    assert len(names) == 4
    named = 0
    for seed in range(50):
        folder = Path(shutil.copytree(whole, tmp_path / "copy", dirs_exist_ok=True))
        name = names[seed % len(names)]
        (folder / name).write_bytes(damage((folder / name).read_bytes(), seed))
        with pytest.raises(StoreError) as found:
            read_store(folder)
        named += name in str(found.value)
    assert named == 50


def test_a_missing_shard_is_named(tmp_path: Path) -> None:
    finished(tmp_path)
    (tmp_path / "part-00001.parquet").unlink()
    with pytest.raises(StoreError, match=r"part-00001\.parquet is missing"):
        read_store(tmp_path)


@pytest.mark.parametrize("number", [np.nan, np.inf, -0.1, 1.1])
def test_a_number_that_is_no_probability_is_refused(number: float) -> None:
    broken = probs(2)
    broken[1, 2] = number
    with pytest.raises(StoreError, match="no probabilities"):
        SoftLabels(ids(0, 2), broken, np.zeros(2, np.float32), "encoder")


def test_ids_and_rows_must_be_equally_many() -> None:
    with pytest.raises(StoreError, match="found 3 ids, 2 rows of probabilities and 2 of outside mass"):
        SoftLabels(ids(0, 3), probs(2), np.zeros(2, np.float32), "encoder")


def test_a_single_label_row_must_sum_to_one(tmp_path: Path) -> None:
    off = SoftLabels(ids(0, 2), probs(2) * 0.9, np.zeros(2, np.float32), "encoder")
    with pytest.raises(StoreError, match=r"off 1 by 0\.1000"):
        LabelStore(tmp_path, TASK, "a teacher").append(off)
    LabelStore(tmp_path, MULTI, "a teacher").append(off)
    assert (tmp_path / "part-00000.parquet").is_file()


def test_answers_over_other_labels_are_refused(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="wanted 3 columns"):
        LabelStore(tmp_path, TASK, "a teacher").append(answers(0, 2, labels=4))


def test_the_largest_dense_row_is_stored_exactly(tmp_path: Path) -> None:
    task = Task(TaskKind.SINGLE_LABEL, tuple(map(str, range(DENSE_LABELS))))
    store = LabelStore(tmp_path, task, "a teacher")
    store.append(answers(0, 4, DENSE_LABELS))
    store.finish("a corpus")
    np.testing.assert_array_equal(read_store(tmp_path).probs(ids(0, 4)), answers(0, 4, DENSE_LABELS).probs)


def test_above_the_dense_limit_the_top_is_exact_and_the_rest_shares_its_mass(tmp_path: Path) -> None:
    labels = DENSE_LABELS + 88
    task = Task(TaskKind.SINGLE_LABEL, tuple(map(str, range(labels))))
    store = LabelStore(tmp_path, task, "a teacher")
    given = answers(0, 6, labels)
    store.append(given)
    store.finish("a corpus")
    found = read_store(tmp_path).probs(ids(0, 6))
    np.testing.assert_allclose(found.sum(axis=1), 1, atol=1e-5)
    for row, wanted in zip(found, given.probs, strict=True):
        order = np.argsort(-wanted)
        np.testing.assert_array_equal(row[order[:DENSE_LABELS]], wanted[order[:DENSE_LABELS]])
        np.testing.assert_allclose(row[order[DENSE_LABELS:]], wanted[order[DENSE_LABELS:]].mean(), rtol=1e-3)
    assert "top" in pq.read_schema(tmp_path / "part-00000.parquet").names


def test_a_full_disk_leaves_the_earlier_shards_and_the_store_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    store = LabelStore(tmp_path, TASK, "a teacher")
    store.append(answers(0, 10))
    monkeypatch.setattr("os.fsync", fail)
    with pytest.raises(OSError, match="No space"):
        store.append(answers(10, 20))
    monkeypatch.undo()
    store = LabelStore(tmp_path, TASK, "a teacher")
    assert store.rows == 10
    store.append(answers(10, 20))
    store.finish("a corpus")
    np.testing.assert_array_equal(read_store(tmp_path).probs(ids(10, 20)), answers(10, 20).probs)


def embedded(start: int, stop: int) -> SoftLabels:
    vectors = np.random.default_rng(start).normal(size=(stop - start, 5)).astype(np.float16)
    rejected = (Rejected(content_id(f"refused {start}"), "no answer"),)
    return replace(answers(start, stop), embeddings=vectors, rejected=rejected)


def test_embeddings_are_found_by_id_in_several_stores(tmp_path: Path) -> None:
    for number, name in enumerate(("pool", "variants")):
        store = LabelStore(tmp_path / name, TASK, "a teacher")
        store.append(embedded(10 * number, 10 * number + 10))
        store.finish("a corpus")
    wanted = (*ids(15, 17), content_id("refused 0"), content_id("never asked"), *ids(3, 4))
    vectors, found = read_embeddings([tmp_path / "pool", tmp_path / "variants"], wanted)
    assert found.tolist() == [True, True, False, False, True]
    assert vectors.dtype == np.float16
    np.testing.assert_array_equal(vectors[:2], embedded(10, 20).embeddings[5:7])  # type: ignore[index]
    np.testing.assert_array_equal(vectors[4], embedded(0, 10).embeddings[3])  # type: ignore[index]
    assert not vectors[2:4].any()
    np.testing.assert_array_equal(read_store(tmp_path / "pool").probs(ids(0, 10)), answers(0, 10).probs)


def test_a_store_without_embeddings_has_none(tmp_path: Path) -> None:
    vectors, found = read_embeddings([finished(tmp_path)], ids(0, 4))
    assert vectors.shape == (4, 0)
    assert not found.any()


def test_a_store_that_was_begun_without_embeddings_goes_on_with_them(tmp_path: Path) -> None:
    LabelStore(tmp_path, TASK, "a teacher").append(answers(0, 10))
    store = LabelStore(tmp_path, TASK, "a teacher")
    store.append(embedded(10, 20))
    store = LabelStore(tmp_path, TASK, "a teacher")
    assert store.rows == 20
    store.finish("a corpus")
    assert read_embeddings([tmp_path], ids(8, 12))[1].tolist() == [False, False, True, True]
