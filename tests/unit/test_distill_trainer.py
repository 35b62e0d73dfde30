from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import AutoModelForSequenceClassification, AutoTokenizer, PreTrainedModel

from distill.data import Transfer
from distill.losses import distillation_objective, hidden_loss, soft_cross_entropy
from distill.trainer import DistillationTrainer
from teacher.finetune import Collator, Recipe, Run
from teacher.task import TaskKind

RECIPE = Recipe(6, 1e-2, 1e-2, batch_size=16, bf16=False)
TEXTS = [f"{'please ' * (row // 3 % 4)}{('parcel late', 'card declined', 'shirt small')[row % 3]}" for row in range(48)]


@pytest.fixture
def model(tiny_classifier: Path) -> PreTrainedModel:
    return AutoModelForSequenceClassification.from_pretrained(tiny_classifier)


@pytest.fixture
def run(tiny_classifier: Path, tmp_path: Path) -> Run:
    soft = (np.eye(3, dtype=np.float32)[np.arange(48) % 3] * 0.7 + 0.1).astype(np.float32)
    hidden = np.random.default_rng(0).normal(size=(3, 16))[np.arange(48) % 3].astype(np.float16)
    transfer = Transfer(TEXTS, soft, np.zeros_like(soft), np.zeros(48, bool), hidden)
    rows = transfer.rows(AutoTokenizer.from_pretrained(tiny_classifier), 16)
    objective = distillation_objective(TaskKind.SINGLE_LABEL, "cross_entropy", temperature=1.0, gold_weight=0.0)
    return Run(tmp_path / "checkpoints", rows, None, objective, padding_id=0, score=lambda logits, targets: 0.0)


def batch_of(run: Run) -> dict[str, torch.Tensor]:
    return Collator(0)([run.train[row] for row in range(12)])


def distance(model: PreTrainedModel, run: Run) -> float:
    batch = batch_of(run)
    with torch.no_grad():
        states = model.eval().base_model(batch["input_ids"], batch["attention_mask"]).last_hidden_state
    return hidden_loss(states[:, 0], batch["hidden"].float()).item()


def test_a_student_comes_closer_to_the_answers_of_its_teacher(model: PreTrainedModel, run: Run) -> None:
    def loss() -> float:
        batch = batch_of(run)
        with torch.no_grad():
            logits = model.eval()(batch["input_ids"], batch["attention_mask"]).logits
        return soft_cross_entropy(logits, batch["soft"], 1.0).item()

    before = loss()
    DistillationTrainer(model, replace(RECIPE, epochs=12), run).fit()
    assert loss() < before - 0.1


def test_the_hidden_term_is_added_to_the_loss_while_training(model: PreTrainedModel, run: Run) -> None:
    trainer = DistillationTrainer(model.train(), RECIPE, run, hidden_weight=3.0)
    for module in model.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.0
    batch = batch_of(run)
    outputs = model(batch["input_ids"], batch["attention_mask"], output_hidden_states=True)
    wanted = soft_cross_entropy(outputs.logits, batch["soft"], 1.0) + 3 * hidden_loss(
        outputs.hidden_states[-1][:, 0], batch["hidden"].float()
    )
    torch.testing.assert_close(trainer.compute_loss(model, batch), wanted)


def test_the_hidden_term_leaves_the_loss_on_dev_alone(model: PreTrainedModel, run: Run) -> None:
    trainer = DistillationTrainer(model.eval(), RECIPE, run, hidden_weight=3.0)
    batch = batch_of(run)
    logits = model(batch["input_ids"], batch["attention_mask"]).logits
    del batch["hidden"]  # dev rows carry none
    torch.testing.assert_close(trainer.compute_loss(model, batch), soft_cross_entropy(logits, batch["soft"], 1.0))


def test_the_hidden_term_draws_the_student_to_the_teachers_embeddings(tiny_classifier: Path, run: Run) -> None:
    distances = []
    for weight in (0.0, 5.0):
        model = AutoModelForSequenceClassification.from_pretrained(tiny_classifier)
        folder = run.directory / str(weight)
        DistillationTrainer(model, RECIPE, replace(run, directory=folder), hidden_weight=weight).fit()
        distances.append(distance(model, run))
    assert distances[1] < 0.5 * distances[0]


def test_without_the_term_no_hidden_states_are_asked_for(model: PreTrainedModel, run: Run) -> None:
    asked: list[Any] = []
    model.register_forward_pre_hook(lambda module, args, given: asked.append(given), with_kwargs=True)
    DistillationTrainer(model, RECIPE, run).compute_loss(model.train(), batch_of(run))
    assert [set(given) for given in asked] == [{"input_ids", "attention_mask"}]
