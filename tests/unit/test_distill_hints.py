"""Facts about hints: which states they are, of which tokens, and which students learn from them."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import AutoModel, AutoModelForSequenceClassification, AutoTokenizer

from distill import train as module
from distill.hints import Hints
from distill.losses import hint_loss
from distill.spec import TrainSpec
from distill.train import TrainInputs, draft_student, read_hints, train_student
from distill.trainer import DistillationTrainer
from student.model import layer_stack
from student.spec import StudentSpec
from teacher.corpus import read_part
from teacher.finetune import Recipe, Run, TokenRows
from teacher.task import Task

IDS, MASK = torch.tensor([[2, 7, 9, 3], [2, 8, 3, 0]]), torch.tensor([[1, 1, 1, 1], [1, 1, 1, 0]])
TWO_OF_FOUR = StudentSpec(layers=[1, 3])


@pytest.fixture
def inputs(small_corpus: Path, small_labels: Path, small_task: Task) -> TrainInputs:
    return TrainInputs(small_corpus, small_labels, small_task)


def all_states(encoder: Path, ids: torch.Tensor, mask: torch.Tensor) -> Any:
    with torch.no_grad():
        return AutoModel.from_pretrained(encoder).eval()(ids, mask, output_hidden_states=True).hidden_states


def test_they_are_the_states_after_the_layers_and_later_layers_are_not_run(tiny_encoder: Path) -> None:
    encoder = AutoModel.from_pretrained(tiny_encoder).train()
    hints = Hints(encoder, [0, 2])
    for _ in range(2):
        found = hints(IDS, MASK)
        for states, wanted in zip(found, (all_states(tiny_encoder, IDS, MASK)[place] for place in (1, 3)), strict=True):
            torch.testing.assert_close(states, wanted)
            assert not states.requires_grad
    assert len(layer_stack(AutoModel.from_pretrained(tiny_encoder))[1]) == 4
    assert len(encoder.encoder.layer) == 3


def test_tokens_of_a_trimmed_vocabulary_are_those_they_were(tiny_encoder: Path) -> None:
    source_ids = np.array([0, 2, 3, 7, 8, 9])
    trimmed = torch.tensor([[1, 3, 5, 2], [1, 4, 2, 0]])
    (found,) = Hints(AutoModel.from_pretrained(tiny_encoder), [1], source_ids)(trimmed, MASK)
    torch.testing.assert_close(found, all_states(tiny_encoder, IDS, MASK)[2])


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_training_has_them_in_its_own_precision(
    tiny_encoder: Path, tiny_classifier: Path, tmp_path: Path, dtype: torch.dtype
) -> None:
    model = AutoModelForSequenceClassification.from_pretrained(tiny_classifier)
    hints = Hints(AutoModel.from_pretrained(tiny_encoder), [1])
    rows = TokenRows(AutoTokenizer.from_pretrained(tiny_encoder), ["my parcel is late"], 8)
    run = Run(tmp_path, rows, None, lambda logits, batch: logits.sum(), 0, lambda logits, targets: 0.0)
    recipe = Recipe(1, 1e-3, 1e-3, bf16=dtype == torch.bfloat16)
    DistillationTrainer(model, recipe, run, hints=hints, hint_weight=1.0)
    (found,) = hints(IDS, MASK)
    assert found.dtype == dtype
    torch.testing.assert_close(found.float(), all_states(tiny_encoder, IDS, MASK)[2], rtol=0.03, atol=0.03)


@pytest.mark.parametrize("vocabulary", ["trimmed", "full"])
def test_a_draft_hears_of_the_layers_before_its_last(inputs: TrainInputs, small_teacher: Path, vocabulary: Any) -> None:
    texts = [example.text for example in read_part(inputs.corpus, "pool")]
    spec = StudentSpec(layers=[0, 2, 3], vocabulary=vocabulary)
    draft = draft_student(inputs, str(small_teacher), spec, texts)
    hints = read_hints(draft, spec, small_teacher)
    assert hints is not None
    batches = [
        tokenizer(texts[:5], padding=True, return_tensors="pt")
        for tokenizer in (draft.tokenizer, AutoTokenizer.from_pretrained(small_teacher))
    ]
    found = hints(batches[0]["input_ids"], batches[0]["attention_mask"])
    states = all_states(small_teacher, batches[1]["input_ids"], batches[1]["attention_mask"])
    assert len(found) == 2
    for one, wanted in zip(found, (states[1], states[3]), strict=True):
        torch.testing.assert_close(one, wanted)
    with torch.no_grad():  # layer 0 is a copy, and what it is told is what it says already
        says = draft.model.eval()(**batches[0], output_hidden_states=True).hidden_states[1]
    assert hint_loss(says, found[0], batches[0]["attention_mask"]).item() == pytest.approx(0, abs=1e-9)


@pytest.mark.parametrize(
    "spec",
    [
        StudentSpec(layers=1),
        StudentSpec(layers=2, width=8, heads=1),
        StudentSpec(layers=2, init="config"),
        StudentSpec(kind="static", width=16, ngram_rows=100, ngram_width=8, intermediate=16),
    ],
)
def test_there_are_none_without_copies_before_the_last_layer(
    inputs: TrainInputs, small_teacher: Path, spec: StudentSpec
) -> None:
    draft = draft_student(inputs, str(small_teacher), spec, ["my parcel is late"])
    assert read_hints(draft, spec, small_teacher) is None


def test_a_student_comes_nearer_to_the_teachers_states_by_them(
    inputs: TrainInputs, small_teacher: Path, tmp_path: Path
) -> None:
    distances = []
    for weight in (0.0, 40.0):
        folder = tmp_path / str(weight)
        folder.mkdir()
        train = TrainSpec(epochs=12, learning_rate=2e-3, head_learning_rate=1e-2, hint_weight=weight, bf16=False)
        train_student(inputs, str(small_teacher), small_teacher, TWO_OF_FOUR, train, folder)
        texts = [example.text for example in read_part(inputs.corpus, "dev")]
        batch = AutoTokenizer.from_pretrained(folder)(texts, padding=True, return_tensors="pt")
        with torch.no_grad():
            student = AutoModelForSequenceClassification.from_pretrained(folder).eval()
            found = student(**batch, output_hidden_states=True).hidden_states[1]
        source = AutoTokenizer.from_pretrained(small_teacher)(texts, padding=True, return_tensors="pt")
        wanted = all_states(small_teacher, source["input_ids"], source["attention_mask"])[2]
        distances.append(hint_loss(found, wanted, batch["attention_mask"]).item())
    assert distances[1] < 0.7 * distances[0]


@pytest.fixture
def trainers(monkeypatch: pytest.MonkeyPatch) -> list[DistillationTrainer]:
    """Return a list that every trainer which `train_student` makes is added to."""
    made: list[DistillationTrainer] = []

    def watched(*given: Any) -> DistillationTrainer:
        made.append(DistillationTrainer(*given))
        return made[-1]

    monkeypatch.setattr(module, "DistillationTrainer", watched)
    return made


def test_only_a_teacher_whose_layers_were_copied_gives_them(
    inputs: TrainInputs, small_teacher: Path, tiny_encoder: Path, tmp_path: Path, trainers: list[DistillationTrainer]
) -> None:
    for source, embedder, weight in (
        (small_teacher, small_teacher, None),
        (small_teacher, small_teacher, 0.0),
        (tiny_encoder, small_teacher, None),
        (tiny_encoder, None, None),
    ):
        train = TrainSpec(epochs=1, bf16=False, hint_weight=weight)
        train_student(inputs, str(source), embedder, TWO_OF_FOUR, train, tmp_path / str(len(trainers)))
    assert [trainer._hints is not None for trainer in trainers] == [True, False, False, False]
    assert trainers[0]._hint_weight == 40


def test_they_weigh_in_training_and_not_on_dev(
    inputs: TrainInputs, small_teacher: Path, tmp_path: Path, trainers: list[DistillationTrainer]
) -> None:
    train = TrainSpec(epochs=1, bf16=False, hidden_weight=0)
    train_student(inputs, str(small_teacher), small_teacher, TWO_OF_FOUR, train, tmp_path)
    (trainer,) = trainers
    batch, model = trainer.data_collator([trainer.train_dataset[row] for row in range(8)]), trainer.model.eval()
    ids, mask = batch["input_ids"], batch["attention_mask"]
    with torch.no_grad():
        states = model(ids, mask, output_hidden_states=True).hidden_states
        told = hint_loss(states[1], trainer._hints(ids, mask)[0], mask)
        on_dev, in_training = trainer.compute_loss(model, batch), trainer.compute_loss(model.train(), batch)
    assert told > 0
    torch.testing.assert_close(in_training - on_dev, 40 * told, rtol=1e-4, atol=1e-4)
