"""Tune a trained student on gold; dev decides whether the tuned or the untuned one goes on."""

from pathlib import Path

from transformers import AutoModelForSequenceClassification, AutoTokenizer

from distill.data import labelled_rows, read_transfer
from distill.losses import distillation_objective
from distill.scores import dev_score
from distill.spec import TrainSpec, TuneSpec
from distill.train import CHECKPOINTS, Draft, TrainInputs, last_score, read_metrics, save_student
from distill.trainer import DistillationTrainer
from student.coding import embed_by_codes, read_codes
from student.first_position import compute_first_position
from teacher.corpus import read_part
from teacher.finetune import Recipe, Run


def tune_student(inputs: TrainInputs, student: Path, train: TrainSpec, tune: TuneSpec | None, directory: Path) -> None:
    """Train the student in `student` on gold for a few epochs and save the better of before and after.

    A tuned student must score higher on dev than the untuned one; with `tune` None nothing is trained.
    """
    before = read_metrics(student)
    draft = _open(student)
    log: list[dict[str, float]] = []
    if tune is not None:
        log = _tune(inputs, draft, train, tune, directory / CHECKPOINTS)
    tuned = last_score(log)
    keeps_tuned = tuned is not None and tuned > before["dev_score"]
    if not keeps_tuned:
        draft = _open(student)
    facts = {
        "dev_score": tuned if keeps_tuned else before["dev_score"],
        "dev_score_untuned": before["dev_score"],
        "dev_score_tuned": tuned,
        "kept": "tuned" if keeps_tuned else "untuned",
    }
    save_student(draft, log, directory, facts)


def _open(student: Path) -> Draft:
    model, metrics = AutoModelForSequenceClassification.from_pretrained(student), read_metrics(student)
    if (coded := read_codes(student)) is not None:
        embed_by_codes(model, coded)
    compute_first_position(model)
    return Draft(model, AutoTokenizer.from_pretrained(student), metrics["max_tokens"], metrics["vocabulary"])


def _tune(
    inputs: TrainInputs, draft: Draft, train: TrainSpec, tune: TuneSpec, checkpoints: Path
) -> list[dict[str, float]]:
    gold = read_transfer(inputs.corpus, inputs.labels, inputs.task, "gold")
    recipe = Recipe(
        epochs=tune.epochs,
        learning_rate=tune.learning_rate,
        head_learning_rate=tune.learning_rate,
        batch_size=tune.batch_size,
        seed=inputs.seed,
    )
    run = Run(
        directory=checkpoints,
        train=gold.rows(draft.tokenizer, draft.max_tokens),
        dev=labelled_rows(read_part(inputs.corpus, "dev"), inputs.task, draft.tokenizer, draft.max_tokens),
        objective=distillation_objective(
            inputs.task.kind, train.loss, temperature=train.temperature, gold_weight=1 - tune.soft_weight
        ),
        padding_id=draft.padding_id,
        score=dev_score(inputs.task.kind),
        progress=inputs.progress,
    )
    return DistillationTrainer(draft.model, recipe, run).fit()
