"""Facts about choosing what to label: never gold, never twice, the same every time, and better than chance."""

from pathlib import Path

import numpy as np
import pytest

from teacher.errors import StoreError, TeacherError
from teacher.parts import read_part
from teacher.select import SELECTION, Selection, iterate_ids, read_selection, select_pool
from teacher.spec import LabelSpec, SelectSpec
from teacher.task import Task

STRATEGIES = ("random", "uncertainty", "diversity", "both")


def spec(strategy: str, **more: object) -> SelectSpec:
    return SelectSpec.model_validate({"strategy": strategy, "budget_rows": 20, **more})


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_gold_rows_are_never_chosen_and_no_text_twice(small_corpus: Path, small_task: Task, strategy: str) -> None:
    chosen = select_pool(spec(strategy), small_corpus, small_task, seed=0)
    gold = {example.id for example in read_part(small_corpus, "gold")}
    pool = {example.id for example in read_part(small_corpus, "pool")}
    assert len(chosen.ids) == len(set(chosen.ids)) == 20
    assert set(chosen.ids) <= pool - gold
    assert (chosen.pool, chosen.candidates) == (len(pool - gold), len(pool - gold))


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_the_first_texts_of_a_budget_are_the_choice_of_a_smaller_one(
    small_corpus: Path, small_task: Task, strategy: str
) -> None:
    large = select_pool(spec(strategy), small_corpus, small_task, seed=0)
    small = select_pool(spec(strategy, budget_rows=7), small_corpus, small_task, seed=0)
    assert large.ids[:7] == small.ids


def test_another_seed_draws_other_texts_and_the_same_seed_the_same(small_corpus: Path, small_task: Task) -> None:
    first, again, other = (select_pool(spec("random"), small_corpus, small_task, seed=seed).ids for seed in (0, 0, 1))
    assert first == again
    assert set(first) != set(other)


def test_strategies_choose_differently(small_corpus: Path, small_task: Task) -> None:
    orders = {select_pool(spec(strategy), small_corpus, small_task, seed=0).ids for strategy in STRATEGIES}
    assert len(orders) == len(STRATEGIES)


def test_a_budget_larger_than_the_pool_takes_all_of_it(small_corpus: Path, small_task: Task) -> None:
    for strategy in STRATEGIES:
        chosen = select_pool(spec(strategy, budget_rows=10**6), small_corpus, small_task, seed=0)
        assert len(chosen.ids) == chosen.pool == len(set(chosen.ids))


def test_a_pool_larger_than_the_candidates_is_thinned_first_and_the_choice_says_so(
    small_corpus: Path, small_task: Task
) -> None:
    chosen = select_pool(spec("diversity", budget_rows=5, candidates=12), small_corpus, small_task, seed=0)
    assert (len(chosen.ids), chosen.candidates) == (5, 12)
    assert chosen.pool > 12


@pytest.mark.parametrize("strategy", ["uncertainty", "both"])
def test_several_labels_a_text_can_be_chosen_for_too(multi_corpus: Path, multi_task: Task, strategy: str) -> None:
    for measure in ("margin", "entropy"):
        chosen = select_pool(spec(strategy, uncertainty=measure), multi_corpus, multi_task, seed=0)
        assert len(set(chosen.ids)) == 20


def test_an_encoder_s_embeddings_can_decide(small_corpus: Path, small_task: Task, tiny_encoder: Path) -> None:
    by_encoder = select_pool(spec("both", encoder=str(tiny_encoder)), small_corpus, small_task, seed=0)
    by_words = select_pool(spec("both"), small_corpus, small_task, seed=0)
    assert len(set(by_encoder.ids)) == 20
    assert by_encoder.ids != by_words.ids


def test_an_encoder_that_is_not_there_is_named(small_corpus: Path, small_task: Task, tmp_path: Path) -> None:
    with pytest.raises(TeacherError, match="nowhere"):
        select_pool(spec("both", encoder=str(tmp_path / "nowhere")), small_corpus, small_task, seed=0)


def test_diversity_reaches_farther_from_gold_than_chance_does(small_corpus: Path, small_task: Task) -> None:
    def coverage(strategy: str, seed: int) -> float:
        ids = select_pool(spec(strategy, budget_rows=8), small_corpus, small_task, seed=seed).ids
        texts = {example.id: set(example.text.split()) for example in read_part(small_corpus, "pool")}
        held = [set(example.text.split()) for example in read_part(small_corpus, "gold")]
        held += [texts[one] for one in ids]
        nearest = [max(len(words & one) / len(words | one) for one in held) for words in texts.values()]
        return float(np.mean(nearest))

    assert coverage("diversity", 0) > np.mean([coverage("random", seed) for seed in range(5)])


def test_texts_come_in_the_order_chosen_whatever_the_block(
    small_corpus: Path, small_task: Task, monkeypatch: pytest.MonkeyPatch
) -> None:
    ids = select_pool(spec("random"), small_corpus, small_task, seed=0).ids
    monkeypatch.setattr("teacher.select._BLOCK", 6)
    blocks = list(iterate_ids(small_corpus, ids))
    assert [len(block) for block in blocks] == [6, 6, 6, 2]
    assert tuple(example.id for block in blocks for example in block) == ids


def test_a_selection_of_another_pool_is_refused(small_corpus: Path) -> None:
    with pytest.raises(StoreError, match="1 of the texts selected"):
        list(iterate_ids(small_corpus, ["0" * 16]))


def test_a_selection_is_read_back_as_it_was_written(tmp_path: Path) -> None:
    assert read_selection(tmp_path) is None
    chosen = Selection(("00000000000000aa", "00000000000000bb"), "both", 10, 5)
    chosen.write(tmp_path)
    assert read_selection(tmp_path) == chosen


@pytest.mark.parametrize("harm", ["flip", "cut"])
def test_a_damaged_selection_is_named(tmp_path: Path, harm: str) -> None:
    Selection(tuple(f"{row:016x}" for row in range(500)), "random", 500, 500).write(tmp_path)
    path = tmp_path / SELECTION
    data = bytearray(path.read_bytes())
    data[len(data) // 3] ^= 4
    path.write_bytes(bytes(data) if harm == "flip" else bytes(data[: len(data) // 2]))
    with pytest.raises(StoreError, match=r"selection\.parquet is damaged"):
        read_selection(tmp_path)


def test_a_config_without_a_selection_labels_the_whole_pool() -> None:
    assert LabelSpec().select is None
    assert LabelSpec.model_validate({"select": {"budget_rows": 5}}).select == spec("both", budget_rows=5)
