"""Fit the teacher, say how good it is before anything is distilled, and let it label the corpus."""

import json
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy.special import logit

from distill.baselines import fit_tfidf_on_gold, save_answers
from distill.scores import HEADLINES, dev_score
from teacher.base import Progress, Teacher
from teacher.corpus import iterate_part, read_meta, read_part
from teacher.encoder import Gold
from teacher.kinds import fit_teacher, load_teacher
from teacher.label import label_corpus
from teacher.processes import is_first_process, wait_for_all
from teacher.soft_labels import LabelStore
from teacher.spec import LabelSpec, TeacherSpec
from teacher.task import Task

DEV_SCORES = "dev_scores.json"
TFIDF_ON_GOLD = "tfidf_on_gold.npz"


def teach(spec: TeacherSpec, corpus: Path, task: Task, directory: Path, *, seed: int, progress: Progress) -> None:
    """Fit and calibrate the teacher in `directory`, and write how it and TF-IDF on gold score on dev."""
    dev = read_part(corpus, "dev")
    gold = Gold(task, read_part(corpus, "gold"), dev, dev_score(task.kind), seed, progress)
    fit_teacher(spec, gold, directory)
    if is_first_process():
        targets, texts = gold.targets(dev), [example.text for example in dev]
        rival = fit_tfidf_on_gold(corpus, task, seed)
        save_answers(rival, corpus, directory / TFIDF_ON_GOLD)
        scores = {
            "metric": HEADLINES[task.kind],
            "rows": len(dev),
            "teacher": _score(load_teacher(directory), texts, targets),
            "tfidf_gold": dev_score(task.kind)(rival.logits(texts), targets),
        }
        (directory / DEV_SCORES).write_text(json.dumps(scores, indent=2), encoding="utf-8")
    wait_for_all()


def label(teacher: Path, corpus: Path, spec: LabelSpec, directory: Path, *, progress: Progress) -> None:
    """Label every pool text of `corpus` with the fitted teacher into a store in `directory`."""
    fitted = load_teacher(teacher)
    store = LabelStore(directory, fitted.task, fitted.fingerprint)
    chunks = iterate_part(corpus, "pool")
    label_corpus(fitted, chunks, store, shard_rows=spec.shard_rows, progress=progress)
    store.finish(corpus=read_meta(corpus).digest)


def _score(teacher: Teacher, texts: list[str], targets: NDArray[np.float32]) -> float:
    probs = teacher.label(texts).probs
    return dev_score(teacher.task.kind)(logit(np.clip(probs, 1e-9, 1 - 1e-7)), targets)
