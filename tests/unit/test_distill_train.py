"""Facts about the training stage: what is drafted, what is saved, and what the rival on gold alone sees."""

import json
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import AutoModelForSequenceClassification, AutoTokenizer, RobertaConfig

from distill import train as module
from distill.data import VARIANTS, read_transfer, read_variants
from distill.scores import dev_score
from distill.spec import TrainSpec
from distill.train import (
    TrainInputs,
    _longest_input,
    draft_student,
    read_metrics,
    recipe_of,
    train_gold_only,
    train_student,
)
from distill.trainer import DistillationTrainer
from student.sharing import choose_owners
from student.spec import StudentSpec
from student.warm_start import states_alone
from teacher.corpus import read_part
from teacher.finetune import Recipe, Run
from teacher.scorer import TextScorer
from teacher.task import Task

QUICK = TrainSpec(epochs=2, learning_rate=1e-2, head_learning_rate=1e-2)


@pytest.fixture
def inputs(small_corpus: Path, small_labels: Path, small_task: Task) -> TrainInputs:
    return TrainInputs(small_corpus, small_labels, small_task)


def logits_on_dev(directory: Path, corpus: Path) -> np.ndarray:
    tokenizer = AutoTokenizer.from_pretrained(directory)
    model = AutoModelForSequenceClassification.from_pretrained(directory)
    return TextScorer(model, tokenizer, tokenizer.model_max_length).logits(
        [example.text for example in read_part(corpus, "dev")]
    )


def test_the_saved_student_is_a_standard_checkpoint_with_the_tasks_labels(
    small_student: Path, small_task: Task
) -> None:
    config = AutoModelForSequenceClassification.from_pretrained(small_student).config
    assert [config.id2label[index] for index in range(3)] == list(small_task.labels)
    assert (config.problem_type, config.num_hidden_layers) == ("single_label_classification", 2)
    assert not (small_student / "checkpoints").exists()


def test_the_dev_score_in_the_metrics_is_that_of_the_saved_student(
    small_student: Path, small_corpus: Path, small_task: Task
) -> None:
    targets = small_task.targets([example.labels or () for example in read_part(small_corpus, "dev")])
    found = dev_score(small_task.kind)(logits_on_dev(small_student, small_corpus), targets)
    # The trainer looks at dev in bf16 where the CPU has it: of 40 rows one may fall to the other side.
    assert read_metrics(small_student)["dev_score"] == pytest.approx(found, abs=1.5 / 40)
    assert found > 0.45  # three labels: chance has 0.33


def test_the_metrics_count_what_was_trained(small_student: Path, small_corpus: Path) -> None:
    metrics = read_metrics(small_student)
    model = AutoModelForSequenceClassification.from_pretrained(small_student)
    assert metrics["parameters"] == sum(parameter.numel() for parameter in model.parameters())
    assert metrics["rows"] == len(read_part(small_corpus, "pool"))
    assert metrics["vocabulary"]["after"] == model.config.vocab_size
    assert metrics["max_tokens"] == AutoTokenizer.from_pretrained(small_student).model_max_length == 16
    assert metrics["epochs"] == 8


def test_the_same_seed_trains_the_same_student(inputs: TrainInputs, small_teacher: Path, tmp_path: Path) -> None:
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        train_student(inputs, str(small_teacher), small_teacher, StudentSpec(layers=1), QUICK, tmp_path / name)
    assert (tmp_path / "a" / "model.safetensors").read_bytes() == (tmp_path / "b" / "model.safetensors").read_bytes()


def test_a_student_without_an_encoder_to_follow_learns_from_soft_labels_alone(
    inputs: TrainInputs, tiny_encoder: Path, tmp_path: Path
) -> None:
    train_student(inputs, str(tiny_encoder), None, StudentSpec(layers=1), QUICK, tmp_path)
    assert read_metrics(tmp_path)["dev_score"] is not None


def test_a_student_of_another_width_than_its_teacher_can_follow_it(
    inputs: TrainInputs, small_teacher: Path, tmp_path: Path
) -> None:
    narrow = StudentSpec(init="config", layers=1, width=8, heads=2)
    train_student(inputs, str(small_teacher), small_teacher, narrow, QUICK, tmp_path)
    assert AutoModelForSequenceClassification.from_pretrained(tmp_path).config.hidden_size == 8


def test_the_embeddings_of_texts_that_were_labelled_are_not_asked_for_again(
    inputs: TrainInputs, small_teacher: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[str] = []
    embedder = module.load_embedder

    def watched(model: str, max_tokens: int) -> TextScorer:
        scorer = embedder(model, max_tokens)
        monkeypatch.setattr(scorer, "logits", lambda texts: asked.extend(texts) or TextScorer.logits(scorer, texts))
        return scorer

    monkeypatch.setattr(module, "load_embedder", watched)
    known = [example.text for example in read_part(inputs.corpus, "pool")]
    known += [example.text for example in read_part(inputs.labels / VARIANTS, VARIANTS)]
    strange = ["nobody labelled this", "nor this"]
    found = module._embed(inputs, str(small_teacher), 32, [strange[0], *known, strange[1]])
    assert asked == strange
    wanted = embedder(str(small_teacher), 32).logits([strange[0], *known, strange[1]])
    # Many texts are answered in bf16 where the CPU has it; another text's embedding is ten times as far.
    np.testing.assert_allclose(found, wanted, atol=0.01)
    assert np.abs(wanted - np.roll(wanted, 1, axis=0)).max(axis=1).mean() > 0.1
    asked.clear()
    module._embed(inputs, str(small_teacher), 32, known)
    assert not asked


def test_progress_counts_rows(inputs: TrainInputs, small_teacher: Path, tmp_path: Path) -> None:
    counts: list[int] = []
    train_student(
        replace(inputs, progress=counts.append), str(small_teacher), None, StudentSpec(layers=1), QUICK, tmp_path
    )
    assert 2 * 112 <= sum(counts) <= 2 * 112 + 32  # two epochs of the pool, its variants among them, in whole batches


def test_where_there_is_no_time_for_all_texts_unsure_ones_are_shown(
    inputs: TrainInputs, small_teacher: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    runs: list[Run] = []

    class Watched(DistillationTrainer):
        def __init__(self, model: torch.nn.Module, recipe: Recipe, run: Run, *rest: Any) -> None:
            runs.append(run)
            super().__init__(model, recipe, run, *rest)

    monkeypatch.setattr(module, "DistillationTrainer", Watched)
    known = read_transfer(inputs.corpus, inputs.labels, inputs.task, "pool")
    if variants := read_variants(inputs.labels):
        known = known.joined(variants)
    pool = len(read_part(inputs.corpus, "pool"))
    for name, epochs in (("part", 0.5), ("twice", 2 * len(known.texts) / pool)):
        (tmp_path / name).mkdir()
        train = QUICK.model_copy(update={"epochs": epochs})
        train_student(inputs, str(small_teacher), None, StudentSpec(layers=1), train, tmp_path / name)
    part, twice = ([row["soft"].tobytes() for row in run.train] for run in runs)
    assert (len(part), len(set(part))) == (pool // 2, pool // 2)
    assert {twice.count(row.tobytes()) for row in known.soft} == {2}
    surest = [np.frombuffer(row, np.float32).max() for row in part]
    assert np.mean(surest) < known.soft.max(axis=1).mean() - 0.01


def test_the_rival_sees_gold_alone(
    inputs: TrainInputs, tiny_encoder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("distill.train.epochs_for", lambda rows, **reference: 2.0)
    missing = replace(inputs, labels=tmp_path / "nowhere")
    train_gold_only(missing, str(tiny_encoder), StudentSpec(layers=1), QUICK, tmp_path)
    metrics = read_metrics(tmp_path)
    assert metrics["rows"] == len(read_part(inputs.corpus, "gold"))
    assert metrics["dev_score"] is not None


def test_a_draft_keeps_the_tokens_the_corpus_needs_and_says_what_changed(
    inputs: TrainInputs, tiny_encoder: Path
) -> None:
    texts = [example.text for example in read_part(inputs.corpus, "pool")]
    trimmed, full = (
        draft_student(inputs, str(tiny_encoder), StudentSpec(layers=1, vocabulary=kind), texts)
        for kind in ("trimmed", "full")
    )
    assert full.vocabulary == {"before": 218, "after": 218, "changed_corpus": 0, "changed_heldout": 0}
    assert trimmed.vocabulary["before"] == 218
    assert trimmed.model.config.vocab_size == trimmed.vocabulary["after"] == len(trimmed.tokenizer)
    assert trimmed.tokenizer(texts[0])["input_ids"][0] == trimmed.tokenizer.cls_token_id


def test_tokens_without_a_row_read_that_of_the_one_the_encoder_makes_most_like_them(
    inputs: TrainInputs, tiny_encoder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    few = partial(choose_owners, fewest_others=0)
    monkeypatch.setattr("distill.train.choose_owners", lambda *given, least_rows: few(*given, least_rows=0))
    draft = draft_student(inputs, str(tiny_encoder), StudentSpec(kind="static"), ["my parcel is late"])
    places, tokenizer = draft.model.embedder.places, draft.tokenizer
    owners = sorted({*tokenizer("my parcel is late")["input_ids"], *tokenizer.all_special_ids})
    assert draft.model.config.word_rows == draft.vocabulary["after"] == len(owners)
    states = states_alone(str(tiny_encoder))
    likeness = torch.nn.functional.normalize(states - states.mean(dim=0), dim=-1)
    special = torch.tensor([owner in tokenizer.all_special_ids for owner in owners])
    nearest = (likeness @ likeness[owners].T).masked_fill(special, -1).argmax(dim=1)
    others = [token for token in range(218) if token not in owners]
    assert places[others].tolist() == nearest[others].tolist()


def test_the_length_asked_for_is_cut_at_what_the_encoder_takes(inputs: TrainInputs, tiny_encoder: Path) -> None:
    for asked, given in ((24, 24), (512, 64), (None, 16)):
        draft = draft_student(inputs, str(tiny_encoder), StudentSpec(layers=1, max_tokens=asked), ["my parcel is late"])
        assert draft.max_tokens == draft.tokenizer.model_max_length == given


def test_roberta_takes_fewer_tokens_than_it_has_positions(tiny_encoder: Path, tmp_path: Path) -> None:
    RobertaConfig(vocab_size=40, max_position_embeddings=34, pad_token_id=1).save_pretrained(tmp_path)
    assert _longest_input(str(tmp_path), AutoTokenizer.from_pretrained(tiny_encoder)) == 32


def test_the_recipe_is_the_section_and_epochs_follow_the_rows() -> None:
    train = TrainSpec(loss="kl", learning_rate=0.01, head_learning_rate=0.02, batch_size=8, patience=3, bf16=False)
    recipe = recipe_of(train, 8_600, 7)
    assert (recipe.epochs, recipe.seed) == (20, 7)
    assert (recipe.learning_rate, recipe.head_learning_rate, recipe.batch_size) == (0.01, 0.02, 8)
    assert (recipe.patience, recipe.bf16) == (3, False)
    assert recipe_of(train, 1_000_000, 0).epochs < 3 < recipe_of(train, 100, 0).epochs
    assert recipe_of(train.model_copy(update={"epochs": 1.5}), 100, 0).epochs == 1.5


def test_a_static_student_trains_longer_in_larger_steps_unless_told_otherwise() -> None:
    static, transformer = (recipe_of(TrainSpec(batch_size=None), 8_600, 0, kind) for kind in ("static", "transformer"))
    assert static.epochs > transformer.epochs
    assert static.batch_size > transformer.batch_size
    assert static.learning_rate > transformer.learning_rate
    assert recipe_of(TrainSpec(learning_rate=0.5, batch_size=3), 8_600, 0, "static").learning_rate == 0.5
    assert recipe_of(TrainSpec(learning_rate=0.5, batch_size=3), 8_600, 0, "static").batch_size == 3


def test_many_short_texts_are_shown_in_larger_batches_unless_told_otherwise() -> None:
    def batch(rows: int, max_tokens: int | None, asked: int | None = None) -> int:
        train = TrainSpec(batch_size=asked, epochs=4)
        return recipe_of(train, rows, 0, max_tokens=max_tokens).batch_size

    assert batch(12_000, 128) == 64
    assert batch(11_999, 128) == batch(12_000, 129) == batch(12_000, None) == 32
    assert batch(12_000, 128, 8) == 8


def test_a_student_of_short_texts_is_trained_in_those_batches(
    inputs: TrainInputs, small_teacher: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    taken = []

    class Watched(module.DistillationTrainer):
        def __init__(self, model: Any, recipe: Any, *rest: Any) -> None:
            super().__init__(model, recipe, *rest)
            taken.append(recipe.batch_size)

    monkeypatch.setattr(module, "DistillationTrainer", Watched)
    for rows, folder in ((1, "large"), (1_000_000, "small")):
        monkeypatch.setattr(module, "_ROWS_FOR_LARGE_BATCHES", rows)
        spec, train = StudentSpec(layers=1), TrainSpec(epochs=1)
        train_student(inputs, str(small_teacher), small_teacher, spec, train, tmp_path / folder)
    assert taken == [64, 32]


def test_a_static_student_sees_a_text_five_times_or_350_000_rows() -> None:
    def seen(rows: int, texts: int) -> float:
        return rows * recipe_of(TrainSpec(), rows, 0, "static", texts=texts).epochs

    assert seen(8_600, 88_000) == pytest.approx(5 * 88_000)
    assert seen(8_600, 20_000) == pytest.approx(350_000)
    assert seen(8_600, 400_000) == 100 * 8_600
    assert recipe_of(TrainSpec(), 8_600, 0, texts=10_000).epochs == 20


def test_a_static_student_can_follow_the_teachers_embeddings(
    inputs: TrainInputs, small_teacher: Path, tmp_path: Path
) -> None:
    train = QUICK.model_copy(update={"hidden_weight": 1.0, "batch_size": 16})
    spec = StudentSpec(kind="static", width=16, ngram_rows=100, ngram_width=8, intermediate=16)
    train_student(inputs, str(small_teacher), small_teacher, spec, train, tmp_path)
    assert AutoModelForSequenceClassification.from_pretrained(tmp_path).config.model_type == "potstill_static"


def test_a_static_rival_learns_from_gold_alone(inputs: TrainInputs, tiny_encoder: Path, tmp_path: Path) -> None:
    spec = StudentSpec(kind="static", width=16, ngram_rows=100, ngram_width=8, intermediate=16)
    train_gold_only(inputs, str(tiny_encoder), spec, TrainSpec(), tmp_path)
    assert read_metrics(tmp_path)["dev_score"] > 0.6


def test_a_narrower_student_is_measured_on_texts_of_the_pool(
    inputs: TrainInputs, small_teacher: Path, tmp_path: Path
) -> None:
    spec = StudentSpec(layers=2, width=8, heads=1)
    train_student(inputs, str(small_teacher), small_teacher, spec, QUICK, tmp_path)
    config = AutoModelForSequenceClassification.from_pretrained(tmp_path).config
    assert (config.hidden_size, config.num_attention_heads) == (8, 1)


def test_metrics_are_plain_json(small_student: Path) -> None:
    text = (small_student / "metrics.json").read_text(encoding="utf-8")
    assert json.loads(text, parse_constant=lambda name: pytest.fail(f"{name} is no JSON")) == read_metrics(
        small_student
    )


def test_no_weight_of_a_trained_student_is_broken(small_student: Path) -> None:
    model = AutoModelForSequenceClassification.from_pretrained(small_student)
    assert all(bool(torch.isfinite(parameter).all()) for parameter in model.parameters())


def test_a_drafted_student_computes_one_position_in_its_last_layer(inputs: TrainInputs, tiny_encoder: Path) -> None:
    texts = [example.text for example in read_part(inputs.corpus, "pool")]
    draft = draft_student(inputs, str(tiny_encoder), StudentSpec(layers=2), texts)
    states = draft.model(input_ids=torch.tensor([[2, 5, 9, 3]]), output_hidden_states=True).hidden_states
    assert [state.shape[1] for state in states] == [4, 4, 1]
