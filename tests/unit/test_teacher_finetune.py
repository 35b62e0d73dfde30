"""Facts about the one training loop: batches, learning rates, what dev decides, resuming, and stopping at NaN."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from safetensors.torch import load_file
from transformers import AutoTokenizer

from teacher.errors import TeacherError
from teacher.finetune import (
    Collator,
    FineTuner,
    Recipe,
    Run,
    TokenRows,
    epochs_for,
    hard_label_objective,
    last_whole_checkpoint,
    pad,
)
from teacher.pooled import PooledClassifier, load_encoder
from teacher.task import TaskKind

WORDS = ("parcel late again", "card was declined", "shirt too small")
TEXTS = [f"{'please ' * (row // 3 % 5)}{WORDS[row % 3]} {'help ' * (row % 4)}" for row in range(48)]
TARGETS = np.eye(3, dtype=np.float32)[np.arange(48) % 3]
RECIPE = Recipe(4, 5e-3, 1e-2, batch_size=16, bf16=False)
STEPS, EVERY = 12, 3  # 48 rows in batches of 16 for four epochs; dev is looked at after each epoch


@pytest.fixture(autouse=True)
def frequent(monkeypatch: pytest.MonkeyPatch) -> None:
    """Look at dev and save after each of these short epochs."""
    monkeypatch.setattr("teacher.finetune._ROWS_AT_RISK", len(TEXTS))
    monkeypatch.setattr("teacher.finetune._JUDGED_SHARE", 1.0)


@pytest.fixture
def model(tiny_encoder: Path) -> PooledClassifier:
    torch.manual_seed(0)
    return PooledClassifier(load_encoder(str(tiny_encoder)), 3)


@pytest.fixture
def run(tiny_encoder: Path, tmp_path: Path) -> Run:
    rows = TokenRows(AutoTokenizer.from_pretrained(tiny_encoder), TEXTS, 32, targets=TARGETS)
    objective = hard_label_objective(TaskKind.SINGLE_LABEL)
    return Run(tmp_path / "checkpoints", rows, rows, objective, padding_id=0, score=accuracy)


def accuracy(logits: NDArray[np.float32], targets: NDArray[np.float32]) -> float:
    return float((logits.argmax(axis=1) == targets.argmax(axis=1)).mean())


def script(scores: Sequence[float], watch: Callable[[], Any]) -> tuple[Callable[..., float], list[Any]]:
    """Return a score that reads its values from `scores`, and a list that gets what `watch` gives each time."""
    left, seen = iter(scores), []

    def score(logits: NDArray[np.float32], targets: NDArray[np.float32]) -> float:
        seen.append(watch())
        return next(left)

    return score, seen


def weights(model: torch.nn.Module) -> dict[str, torch.Tensor]:
    return {name: tensor.detach().clone() for name, tensor in model.state_dict().items()}


def are_equal(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(tensor, other[name]) for name, tensor in one.items())


def poison(model: PooledClassifier, step: int, number: float, column: int | None = None) -> None:
    """Put `number` into the logits of one training step, in one column or in all."""
    calls = []

    def hook(module: torch.nn.Module, given: Any, output: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        if module.training:
            calls.append(1)
            if len(calls) == step + 1:
                mask = torch.zeros_like(output["logits"], dtype=torch.bool)
                mask[:, slice(None) if column is None else column] = True
                return {"logits": output["logits"].masked_fill(mask, number)}
        return output

    model.register_forward_hook(hook)


def test_token_rows_are_what_the_tokenizer_gives(tiny_encoder: Path) -> None:
    tokenizer = AutoTokenizer.from_pretrained(tiny_encoder)
    rows = TokenRows(tokenizer, TEXTS, 32, targets=TARGETS)
    assert [rows.tokens(row).tolist() for row in range(48)] == tokenizer(TEXTS)["input_ids"]
    assert rows.lengths.tolist() == [len(ids) for ids in tokenizer(TEXTS)["input_ids"]]
    assert rows[5]["targets"].tolist() == TARGETS[5].tolist()
    assert len(rows) == 48


def test_token_rows_are_cut_and_keep_the_last_special_token(tiny_encoder: Path) -> None:
    tokenizer = AutoTokenizer.from_pretrained(tiny_encoder)
    row = TokenRows(tokenizer, ["my parcel has not arrived and my card was declined"], 5).tokens(0)
    assert len(row) == 5
    assert row[-1] == tokenizer.sep_token_id


def test_padding_goes_to_the_right_up_to_the_longest_row() -> None:
    batch = pad([np.array([5, 6], np.int32), np.array([7, 8, 9], np.int32)], padding_id=4)
    assert batch["input_ids"].tolist() == [[5, 6, 4], [7, 8, 9]]
    assert batch["attention_mask"].tolist() == [[1, 1, 0], [1, 1, 1]]
    assert batch["input_ids"].dtype == batch["attention_mask"].dtype == torch.int64


def test_the_collator_stacks_what_travels_with_the_tokens() -> None:
    examples = [
        {"input_ids": np.array([1], np.int32), "targets": np.array([0, 1], np.float32), "has_gold": np.bool_(True)},
        {"input_ids": np.array([1, 2], np.int32), "targets": np.array([1, 0], np.float32), "has_gold": np.bool_(False)},
    ]
    batch = Collator(0)(examples)
    assert batch["targets"].tolist() == [[0, 1], [1, 0]]
    assert batch["has_gold"].tolist() == [True, False]
    assert batch["input_ids"].tolist() == [[1, 0], [1, 2]]


def test_head_and_body_have_their_own_learning_rate_and_biases_do_not_decay(model: PooledClassifier, run: Run) -> None:
    optimizer = FineTuner(model, RECIPE, run).create_optimizer()
    found = {
        id(one): (group["lr"], group["weight_decay"]) for group in optimizer.param_groups for one in group["params"]
    }
    named = {name: found.pop(id(parameter)) for name, parameter in model.named_parameters()}
    assert not found
    assert named["head.weight"] == (1e-2, 0.01)
    assert named["head.bias"] == (1e-2, 0.0)
    assert named["encoder.encoder.layer.0.output.dense.weight"] == (5e-3, 0.01)
    assert named["encoder.encoder.layer.0.output.LayerNorm.weight"] == (5e-3, 0.0)


def test_training_learns_a_task_that_words_decide(model: PooledClassifier, run: Run) -> None:
    log = FineTuner(model, replace(RECIPE, epochs=10, learning_rate=1e-2), run).fit()
    assert max(entry["eval_score"] for entry in log if "eval_score" in entry) > 0.9


def test_with_patience_the_checkpoint_that_dev_liked_best_is_the_result(model: PooledClassifier, run: Run) -> None:
    score, seen = script([0.1, 0.9, 0.2, 0.3, 0.9], lambda: weights(model))
    FineTuner(model, replace(RECIPE, patience=9), replace(run, score=score)).fit()
    assert len(seen) == 5
    assert are_equal(weights(model), seen[1])
    assert not are_equal(seen[1], seen[3])


def test_without_patience_the_end_of_the_schedule_is_the_result(model: PooledClassifier, run: Run) -> None:
    score, seen = script([0.1, 0.9, 0.2, 0.3, 0.4], lambda: weights(model))
    log = FineTuner(model, RECIPE, replace(run, score=score)).fit()
    assert are_equal(weights(model), seen[3])
    assert [entry["eval_score"] for entry in log if "eval_score" in entry][-1] == 0.4


def test_looks_at_dev_and_checkpoints_are_spared_where_nothing_hangs_on_them(
    model: PooledClassifier, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.undo()
    tuner = FineTuner(model, RECIPE, run)
    log = tuner.fit()
    assert sum("eval_score" in entry for entry in log) == 2  # the end of the schedule, and what is returned
    assert [path.name for path in run.directory.glob("checkpoint-*")] in ([], [f"checkpoint-{STEPS}"])


def test_a_recipe_of_one_long_epoch_says_how_often_dev_is_looked_at(model: PooledClassifier, run: Run) -> None:
    score, seen = script([0.1] * 9, lambda: None)
    FineTuner(model, replace(RECIPE, epochs=1, looks=3, patience=9), replace(run, score=score)).fit()
    assert len(seen) == 4  # the last one is at the checkpoint that won


def test_without_dev_the_last_step_is_the_result(model: PooledClassifier, run: Run) -> None:
    tuner = FineTuner(model, RECIPE, replace(run, dev=None))
    log = tuner.fit()
    assert tuner.state.global_step == STEPS
    assert not any("eval_score" in entry for entry in log)


def test_training_stops_when_dev_gains_nothing_for_as_long_as_patience(model: PooledClassifier, run: Run) -> None:
    score, seen = script([0.9, 0.5, 0.4, 0.9], lambda: None)
    tuner = FineTuner(model, replace(RECIPE, patience=2), replace(run, score=score))
    tuner.fit()
    assert (len(seen), tuner.state.global_step) == (4, 3 * EVERY)  # the last look is at the checkpoint that won


def test_progress_counts_the_rows_of_every_step(model: PooledClassifier, run: Run) -> None:
    counts: list[int] = []
    FineTuner(model, RECIPE, replace(run, progress=counts.append)).fit()
    assert counts == [16] * STEPS


def test_the_same_seed_gives_the_same_weights_and_another_seed_others(tiny_encoder: Path, run: Run) -> None:
    results = []
    for seed, folder in ((1, "a"), (1, "b"), (2, "c")):
        torch.manual_seed(0)
        model = PooledClassifier(load_encoder(str(tiny_encoder)), 3)
        FineTuner(model, replace(RECIPE, seed=seed, epochs=2), replace(run, directory=run.directory / folder)).fit()
        results.append(weights(model))
    assert are_equal(results[0], results[1])
    assert not are_equal(results[0], results[2])


def test_an_interrupted_run_goes_on_from_its_checkpoint_to_the_same_weights(tiny_encoder: Path, run: Run) -> None:
    def fresh() -> PooledClassifier:
        torch.manual_seed(0)
        return PooledClassifier(load_encoder(str(tiny_encoder)), 3)

    def interrupt(rows: int) -> None:
        steps.append(rows)
        if len(steps) == 8:
            raise KeyboardInterrupt

    steps: list[int] = []
    whole, resumed = fresh(), fresh()
    FineTuner(whole, RECIPE, replace(run, directory=run.directory / "whole", dev=None)).fit()
    parted = replace(run, directory=run.directory / "parted", dev=None)
    with pytest.raises(KeyboardInterrupt):
        FineTuner(fresh(), RECIPE, replace(parted, progress=interrupt)).fit()
    steps.clear()
    FineTuner(resumed, RECIPE, replace(parted, progress=steps.append)).fit()
    assert len(steps) == STEPS - 2 * EVERY
    for name, tensor in weights(whole).items():
        torch.testing.assert_close(weights(resumed)[name], tensor, atol=1e-5, rtol=1e-4)


def test_a_checkpoint_whose_saving_was_interrupted_is_passed_over(tmp_path: Path) -> None:
    for step, state in ((5, "{}"), (90, "{}"), (100, '{"epo'), (110, None)):
        (tmp_path / f"checkpoint-{step}").mkdir()
        if state is not None:
            (tmp_path / f"checkpoint-{step}" / "trainer_state.json").write_text(state)
    assert last_whole_checkpoint(tmp_path) == str(tmp_path / "checkpoint-90")
    assert last_whole_checkpoint(tmp_path / "nowhere") is None


@pytest.mark.parametrize("step", [0, 4])
@pytest.mark.parametrize("number", [float("nan"), float("inf"), float("-inf")])
@pytest.mark.parametrize("place", ["loss", "logits"])
def test_a_number_that_is_none_stops_training_at_once_and_the_last_checkpoint_is_good(
    model: PooledClassifier, run: Run, place: str, number: float, step: int
) -> None:
    calls: list[int] = []

    def objective(logits: torch.Tensor, batch: Any) -> torch.Tensor:
        if model.training:
            calls.append(1)
        loss = run.objective(logits, batch)
        return loss * 0 + number if place == "loss" and model.training and len(calls) == step + 1 else loss

    if place == "logits":
        poison(model, step, number)
    with pytest.raises(TeacherError, match=rf"at step {step}: training stopped; the last good checkpoint"):
        FineTuner(model, RECIPE, replace(run, objective=objective)).fit()
    assert len(calls) == step + 1
    last = last_whole_checkpoint(run.directory)
    if step == 0:
        assert last is None
        return
    assert last == str(run.directory / f"checkpoint-{EVERY}")
    saved = load_file(Path(last) / "model.safetensors")
    assert all(bool(torch.isfinite(tensor).all()) for tensor in saved.values())
    assert model.load_state_dict(saved)


def test_an_infinite_logit_that_the_loss_ignores_stops_training_too(
    model: PooledClassifier, run: Run, tiny_encoder: Path
) -> None:
    rows = TokenRows(
        AutoTokenizer.from_pretrained(tiny_encoder), TEXTS, 32, targets=np.eye(3, dtype=np.float32)[np.arange(48) % 2]
    )
    poison(model, 1, float("-inf"), column=2)
    with pytest.raises(TeacherError, match="at step 1"):
        FineTuner(model, RECIPE, replace(run, train=rows)).fit()
    assert all(bool(torch.isfinite(tensor).all()) for tensor in weights(model).values())


def test_multi_label_gold_is_learned_label_by_label() -> None:
    logits, targets = torch.tensor([[2.0, -1.0], [0.0, 3.0]]), torch.tensor([[1.0, 1.0], [0.0, 1.0]])
    found = hard_label_objective(TaskKind.MULTI_LABEL)(logits, {"targets": targets})
    cells = torch.log1p(torch.exp(-torch.tensor([2.0, -1.0, 0.0, 3.0])))
    torch.testing.assert_close(found, cells.sum() / 2)


def test_single_label_gold_is_learned_by_cross_entropy() -> None:
    logits = torch.tensor([[2.0, -1.0, 0.5]])
    found = hard_label_objective(TaskKind.SINGLE_LABEL)(logits, {"targets": torch.tensor([[0.0, 0.0, 1.0]])})
    torch.testing.assert_close(found, torch.logsumexp(logits[0], 0) - 0.5)


def test_epochs_shrink_as_rows_grow_and_never_below_two() -> None:
    def epochs(rows: int) -> float:
        return epochs_for(rows, reference_rows=10_000, reference_epochs=5, power=0.46)

    assert epochs(10_000) == 5
    assert epochs(770) == 20
    assert epochs(10_000_000) == 2
