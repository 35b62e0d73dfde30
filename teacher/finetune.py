"""One way to train a sequence classifier, for teachers on gold and for students on soft labels alike.

`FineTuner` is a `transformers.Trainer` with length-bucketed batches, an own learning rate for the head, looks at dev,
and a stop at the first loss that is not a number. It does not know where targets come from; an objective maps logits
and the batch to the loss.
"""

import json
import math
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from transformers import (
    EarlyStoppingCallback,
    PreTrainedTokenizerBase,
    Trainer,
    TrainerCallback,
    TrainingArguments,
)

from teacher.base import Progress
from teacher.errors import TeacherError
from teacher.processes import wait_for_all
from teacher.task import TaskKind

Score = Callable[[NDArray[np.float32], NDArray[np.float32]], float]  # (logits, targets) of dev -> quality
Objective = Callable[[torch.Tensor, Mapping[str, torch.Tensor]], torch.Tensor]  # (logits, batch) -> loss
_TOKENIZE_ROWS = 10_000
_DDP_TIMEOUT_SECONDS = 7 * 24 * 3600  # one process may label for hours while the others wait
_MOST_JUDGEMENTS = 10  # looks at dev in one run, and checkpoints
_JUDGED_SHARE = 0.15  # rows looked at on the way, as a share of the rows trained on, where nothing hangs on a look
_ROWS_AT_RISK = 4096  # rows between two checkpoints, at least: about a minute's work on two cores


@dataclass(frozen=True, slots=True)
class Recipe:
    """How long and how fast to train; learning rates are peaks of a warm-up and a linear decay."""

    epochs: float
    learning_rate: float
    head_learning_rate: float
    batch_size: int = 32
    weight_decay: float = 0.01
    warmup: float = 0.06
    patience: int | None = None
    bf16: bool | None = None
    seed: int = 0
    looks: int | None = None  # at dev, at most; None: one an epoch
    report_to: tuple[str, ...] = ()


class TokenRows(torch.utils.data.Dataset[dict[str, Any]]):
    """Token ids of N texts in one flat array, and arrays of equal length that travel with them."""

    def __init__(
        self, tokenizer: PreTrainedTokenizerBase, texts: Sequence[str], max_tokens: int, **arrays: NDArray[Any]
    ) -> None:
        """Tokenize `texts`, cut at `max_tokens`; each of `arrays` is (N, ...)."""
        pieces: list[NDArray[np.int32]] = []
        for start in range(0, len(texts), _TOKENIZE_ROWS):
            chunk = list(texts[start : start + _TOKENIZE_ROWS])
            rows = tokenizer(chunk, truncation=True, max_length=max_tokens)["input_ids"]
            pieces.extend(np.asarray(row, np.int32) for row in rows)
        self.lengths = np.array([len(piece) for piece in pieces], np.int64)
        self._offsets = np.concatenate([[0], np.cumsum(self.lengths)])
        self._tokens = np.concatenate(pieces) if pieces else np.empty(0, np.int32)
        self._arrays = arrays

    def all_tokens(self) -> list[NDArray[np.int32]]:
        """Return the token ids of every row, unpadded."""
        return [self.tokens(row) for row in range(len(self))]

    def token_ids(self) -> NDArray[np.int32]:
        """Return the tokens that occur, each once, rising."""
        return np.unique(self._tokens)

    def __len__(self) -> int:
        """Return N."""
        return len(self.lengths)

    def tokens(self, row: int) -> NDArray[np.int32]:
        """Return the token ids of one row, unpadded."""
        return self._tokens[self._offsets[row] : self._offsets[row + 1]]

    def __getitem__(self, row: int) -> dict[str, Any]:
        """Return one example for `Collator`."""
        return {"input_ids": self.tokens(row), **{name: array[row] for name, array in self._arrays.items()}}


@dataclass(frozen=True, slots=True)
class Collator:
    """Pad a batch to its longest row; everything but token ids is stacked as it is."""

    padding_id: int

    def __call__(self, examples: Sequence[Mapping[str, Any]]) -> dict[str, torch.Tensor]:
        """Return `input_ids` and `attention_mask` int64 (batch, longest), and the other arrays."""
        batch = pad([example["input_ids"] for example in examples], self.padding_id)
        for name in examples[0]:
            if name != "input_ids":
                batch[name] = torch.from_numpy(np.stack([example[name] for example in examples]))
        return batch


def pad(rows: Sequence[NDArray[np.int32]], padding_id: int) -> dict[str, torch.Tensor]:
    """Return `input_ids` and `attention_mask` int64 (len(rows), longest) on the right-padded rows."""
    longest = max(len(row) for row in rows)
    tokens = np.full((len(rows), longest), padding_id, np.int64)
    mask = np.zeros((len(rows), longest), np.int64)
    for position, row in enumerate(rows):
        tokens[position, : len(row)] = row
        mask[position, : len(row)] = 1
    return {"input_ids": torch.from_numpy(tokens), "attention_mask": torch.from_numpy(mask)}


@dataclass(frozen=True, slots=True)
class Run:
    """What one training run needs besides the model and the recipe."""

    directory: Path  # checkpoints go here; an interrupted run goes on from the last one
    train: torch.utils.data.Dataset[dict[str, Any]]
    dev: torch.utils.data.Dataset[dict[str, Any]] | None
    objective: Objective
    padding_id: int
    score: Score
    progress: Progress = field(default=lambda rows: None)
    share: float = 1.0  # of the schedule, after which training pauses with a checkpoint
    earlier: Path | None = None  # a checkpoint to go on from where `directory` holds none


class FineTuner(Trainer):  # type: ignore[misc]
    """Train `model` on `run.train` to the end of the schedule, where the learning rate is 0 and the model settles.

    With `recipe.patience` it stops after so many looks at dev without a gain and ends with the checkpoint that scored
    best there; without, a few hundred dev rows would pick a lucky checkpoint from the middle of the schedule.

    Examples carry `input_ids`, whatever the objective reads, and on dev `targets` (C,) to score against.
    """

    def __init__(self, model: torch.nn.Module, recipe: Recipe, run: Run) -> None:
        """Set the library's trainer up; nothing is trained yet."""
        self._run = run
        self._recipe = recipe
        self.forward_options: dict[str, bool] = {}
        callbacks: list[TrainerCallback] = [_ProgressCallback(run.progress, recipe.batch_size)]
        if _picks_best(recipe, run):
            callbacks.append(EarlyStoppingCallback(recipe.patience or 1))
        if run.share < 1:
            callbacks.append(_PauseCallback(run.share))
        super().__init__(
            model=model,
            args=_arguments(recipe, run),
            train_dataset=run.train,
            eval_dataset=run.dev,
            data_collator=Collator(run.padding_id),
            compute_metrics=self._measure,
            callbacks=callbacks,
        )
        for name in ("PrinterCallback", "ProgressCallback"):
            self._drop_callback(name)

    def fit(self) -> list[dict[str, float]]:
        """Train, going on from an earlier checkpoint when there is one, and return the log of the run.

        Its last `eval_score` belongs to the model that training ended with.
        """
        found = last_whole_checkpoint(self._run.directory) or self._run.earlier
        self.train(resume_from_checkpoint=None if found is None else str(found))
        if self._run.dev is not None:
            self.evaluate()
        wait_for_all()  # whoever is first removes the checkpoints, which the others may still be reading
        return list(self.state.log_history)

    def create_optimizer(self, model: torch.nn.Module | None = None) -> torch.optim.Optimizer:
        """Give the head its own learning rate and spare biases and norms the weight decay."""
        optimizer: torch.optim.Optimizer | None = getattr(self, "optimizer", None)
        if optimizer is None:
            decayed = set(self.get_decay_parameter_names(self.model))
            prefix = self.model.base_model_prefix + "."
            groups: dict[tuple[bool, bool], list[torch.nn.Parameter]] = {}
            for name, parameter in self.model.named_parameters():
                if parameter.requires_grad:
                    groups.setdefault((name.startswith(prefix), name in decayed), []).append(parameter)
            optimizer = torch.optim.AdamW(
                [
                    {
                        "params": parameters,
                        "lr": self._recipe.learning_rate if in_body else self._recipe.head_learning_rate,
                        "weight_decay": self._recipe.weight_decay if decays else 0.0,
                    }
                    for (in_body, decays), parameters in groups.items()
                ],
                fused=True,
            )
            self.optimizer = optimizer
        return optimizer

    def compute_loss(
        self,
        model: torch.nn.Module,
        inputs: dict[str, torch.Tensor],
        return_outputs: bool = False,
        num_items_in_batch: torch.Tensor | int | None = None,
    ) -> Any:
        """Return the objective's loss; raise TeacherError on the first one that is not a number."""
        options = self.forward_options if model.training else {}
        outputs = model(input_ids=inputs["input_ids"], attention_mask=inputs["attention_mask"], **options)
        loss = self._run.objective(outputs["logits"].float(), inputs) + self.extra_loss(outputs, inputs)
        if model.training and not torch.isfinite(loss):
            raise TeacherError(
                f"the loss became {loss.item()} at step {self.state.global_step}: training stopped; the last good "
                f"checkpoint is in {self._run.directory}; lower the learning rate or turn bf16 off"
            )
        return (loss, outputs) if return_outputs else loss

    def extra_loss(self, outputs: Any, inputs: Mapping[str, torch.Tensor]) -> torch.Tensor | float:
        """Return what a subclass adds to the objective; nothing here."""
        return 0.0

    def _measure(self, prediction: Any) -> dict[str, float]:
        logits = np.asarray(prediction.predictions, np.float32)
        targets = np.asarray(prediction.label_ids, np.float32)
        return {"score": self._run.score(logits, targets)}

    def _drop_callback(self, name: str) -> None:
        for callback in list(self.callback_handler.callbacks):
            if type(callback).__name__ == name:
                self.remove_callback(callback)


def last_whole_checkpoint(directory: Path) -> str | None:
    """Return the newest checkpoint in `directory` that was saved to its end, or None.

    The library writes a checkpoint in place and its trainer_state.json last, so a process killed meanwhile leaves
    one that does not load.
    """
    whole = [path for path in directory.glob("checkpoint-*") if _is_json(path / "trainer_state.json")]
    return str(max(whole, key=lambda path: int(path.name.rpartition("-")[2]))) if whole else None


def bf16_is_native() -> bool:
    """Say whether this machine multiplies bfloat16 in hardware (CPU, or the GPU where there is one)."""
    if torch.cuda.is_available():
        return bool(torch.cuda.is_bf16_supported())
    return any(
        getattr(torch.cpu, check)()
        for check in ("_is_avx512_bf16_supported", "_is_amx_tile_supported")
        if hasattr(torch.cpu, check)
    )


def hard_label_objective(kind: TaskKind) -> Objective:
    """Return the cross-entropy against `targets` (batch, C), for multi-label summed over the labels."""
    return _HARD_OBJECTIVES[kind]


def epochs_for(rows: int, *, reference_rows: int, reference_epochs: float, power: float) -> float:
    """Return epochs such that rows seen grow as rows ** power through the reference point, at least 2."""
    seen = reference_rows * reference_epochs * (rows / reference_rows) ** power
    return float(max(2, round(seen / max(rows, 1))))


def gold_epochs(rows: int) -> float:
    """Return the epochs of a classifier that trains on `rows` gold rows: 5 at 10,000, 10 at 770, 25 at most."""
    return min(epochs_for(rows, reference_rows=10_000, reference_epochs=5, power=0.73), 25.0)


def _single_label_objective(logits: torch.Tensor, batch: Mapping[str, torch.Tensor]) -> torch.Tensor:
    return torch.nn.functional.cross_entropy(logits, batch["targets"])


def _multi_label_objective(logits: torch.Tensor, batch: Mapping[str, torch.Tensor]) -> torch.Tensor:
    loss = torch.nn.functional.binary_cross_entropy_with_logits(logits, batch["targets"], reduction="sum")
    return loss / len(logits)


_HARD_OBJECTIVES: dict[TaskKind, Objective] = {
    TaskKind.SINGLE_LABEL: _single_label_objective,
    TaskKind.MULTI_LABEL: _multi_label_objective,
}


def _arguments(recipe: Recipe, run: Run) -> TrainingArguments:
    on_cpu = not torch.cuda.is_available()
    world = int(os.environ.get("WORLD_SIZE", "1"))
    steps = math.ceil(len(run.train) / recipe.batch_size) * recipe.epochs  # type: ignore[arg-type]
    every = max(math.ceil(steps / _judgements(recipe, run)), 1)
    return TrainingArguments(
        output_dir=str(run.directory),
        num_train_epochs=recipe.epochs,
        per_device_train_batch_size=max(recipe.batch_size // world, 1),
        per_device_eval_batch_size=64,
        learning_rate=recipe.learning_rate,
        warmup_steps=int(recipe.warmup * steps),
        lr_scheduler_type="linear",
        weight_decay=recipe.weight_decay,
        max_grad_norm=1.0,
        bf16=bf16_is_native() if recipe.bf16 is None else recipe.bf16,
        use_cpu=on_cpu,
        seed=recipe.seed,
        data_seed=recipe.seed,
        train_sampling_strategy="group_by_length",
        eval_strategy="steps" if run.dev is not None else "no",
        eval_steps=every,
        save_strategy="steps",
        save_steps=every if _picks_best(recipe, run) else _steps_at_risk(steps, recipe.batch_size),
        save_total_limit=1,
        load_best_model_at_end=_picks_best(recipe, run),
        metric_for_best_model="score" if _picks_best(recipe, run) else None,
        greater_is_better=True if _picks_best(recipe, run) else None,
        label_names=["targets"],
        remove_unused_columns=False,
        disable_tqdm=True,
        logging_strategy="epoch",
        report_to=list(recipe.report_to) or "none",
        ddp_timeout=_DDP_TIMEOUT_SECONDS,
        dataloader_pin_memory=not on_cpu,
    )


def _steps_at_risk(steps: float, batch_size: int) -> int:
    return max(math.ceil(steps / _MOST_JUDGEMENTS), _ROWS_AT_RISK // batch_size)


def _judgements(recipe: Recipe, run: Run) -> int:
    """Return how often dev is looked at, the end included."""
    most = min(_MOST_JUDGEMENTS, recipe.looks or math.ceil(recipe.epochs))
    if _picks_best(recipe, run) or run.dev is None:
        return most
    rows_seen = len(run.train) * recipe.epochs  # type: ignore[arg-type]
    return max(min(most, int(_JUDGED_SHARE * rows_seen / len(run.dev))), 1)  # type: ignore[arg-type]


def _picks_best(recipe: Recipe, run: Run) -> bool:
    return recipe.patience is not None and run.dev is not None


def _is_json(path: Path) -> bool:
    try:
        json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return False
    return True


class _ProgressCallback(TrainerCallback):  # type: ignore[misc]
    def __init__(self, progress: Progress, batch_size: int) -> None:
        self._progress = progress
        self._batch_size = batch_size

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self._progress(self._batch_size)


class _PauseCallback(TrainerCallback):  # type: ignore[misc]
    """Stop after a share of the schedule with a checkpoint, from which the same schedule goes on."""

    def __init__(self, share: float) -> None:
        self._share = share

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if state.global_step >= self._share * state.max_steps:
            control.should_save = control.should_training_stop = True
