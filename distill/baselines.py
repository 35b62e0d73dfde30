"""What the student is measured against besides its teacher: the same student on gold alone, and TF-IDF twice."""

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from distill.spec import TrainSpec
from distill.tfidf import TfidfClassifier
from distill.train import TrainInputs, train_gold_only
from export.metrics import decode
from student.spec import StudentSpec
from teacher.corpus import read_part
from teacher.parts import PartName
from teacher.processes import is_first_process, wait_for_all
from teacher.soft_labels import read_store
from teacher.task import Task, TaskKind

ANSWERS = "answers.npz"
_ANSWERED: tuple[PartName, PartName] = ("dev", "test")
_SOFT_ROWS = 50_000  # a linear model gains nothing from more


def fit_baselines(inputs: TrainInputs, source: str, student: StudentSpec, train: TrainSpec, directory: Path) -> None:
    """Fill `directory` with `gold_only/` and the answers of TF-IDF on the teacher's labels."""
    gold_only = directory / "gold_only"
    gold_only.mkdir(exist_ok=True)
    train_gold_only(inputs, source, student, train, gold_only)
    if is_first_process():
        soft = _fit_on_soft_labels(inputs)
        save_answers(soft, inputs.corpus, directory / ANSWERS)
    wait_for_all()


def fit_tfidf_on_gold(corpus: Path, task: Task, seed: int) -> TfidfClassifier:
    """Return TF-IDF trained on the gold rows of `corpus` and calibrated on its dev rows."""
    gold, dev = read_part(corpus, "gold"), read_part(corpus, "dev")
    targets = [task.targets([example.labels or () for example in part]) for part in (gold, dev)]
    model = TfidfClassifier(task.kind, seed).fit([example.text for example in gold], targets[0])
    return model.calibrate([example.text for example in dev], targets[1])


def save_answers(model: TfidfClassifier, corpus: Path, path: Path) -> None:
    """Write the probabilities of `model` on dev and test (N, C) to one .npz file."""
    dev, test = ([example.text for example in read_part(corpus, part)] for part in _ANSWERED)
    np.savez(path, dev=model.probs(dev), test=model.probs(test))


def read_answers(path: Path) -> dict[str, NDArray[np.float32]]:
    """Return what `save_answers` wrote, by part."""
    with np.load(path, allow_pickle=False) as arrays:
        return {part: arrays[part] for part in _ANSWERED}


def _fit_on_soft_labels(inputs: TrainInputs) -> TfidfClassifier:
    """Fit TF-IDF on what the teacher decided about pool texts."""
    task = inputs.task
    store = read_store(inputs.labels)
    pool, dev = read_part(inputs.corpus, "pool"), read_part(inputs.corpus, "dev")
    pool = [pool[row] for row in np.flatnonzero(store.answered([example.id for example in pool]))]
    generator = np.random.default_rng(inputs.seed)
    if len(pool) > _SOFT_ROWS:
        pool = [pool[row] for row in sorted(generator.choice(len(pool), _SOFT_ROWS, replace=False))]
    probs = store.probs([example.id for example in pool])
    dev_targets = task.targets([example.labels or () for example in dev])
    thresholds = None
    if task.kind is TaskKind.MULTI_LABEL:
        # The store holds no dev rows; the rate at which gold carries each label sets the cut instead.
        rates = task.targets([example.labels or () for example in read_part(inputs.corpus, "gold")]).mean(axis=0)
        thresholds = np.array([np.quantile(probs[:, column], 1 - rate) for column, rate in enumerate(rates)])
    decided = decode(task.kind, probs, thresholds).astype(np.float32)
    model = TfidfClassifier(task.kind, inputs.seed).fit([example.text for example in pool], decided)
    return model.calibrate([example.text for example in dev], dev_targets)
