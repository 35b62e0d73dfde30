"""Fit the teacher, say how good it is before anything is distilled, and let it label the corpus."""

import json
from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from distill.baselines import fit_tfidf_on_gold, save_answers
from distill.data import VARIANTS
from distill.quality import fill
from distill.scores import HEADLINES, dev_score
from teacher.base import Progress, Teacher, read_card
from teacher.corpus import iterate_part, read_meta, read_part
from teacher.encoder import Gold
from teacher.example import Example
from teacher.kinds import encoder_of, fit_teacher, load_teacher
from teacher.label import label_corpus
from teacher.paid import PaidAnswers
from teacher.partial import log_scores
from teacher.parts import PartWriter
from teacher.processes import is_first_process, wait_for_all
from teacher.select import iterate_ids, select_pool
from teacher.soft_labels import LabelStore, read_store
from teacher.spec import LabelSpec, TeacherSpec
from teacher.task import Task, TaskKind
from teacher.variants import make_variants, word_neighbours

DEV_SCORES = "dev_scores.json"
TFIDF_ON_GOLD = "tfidf_on_gold.npz"
_MOST_COPIES, _MOST_VARIANTS = 10, 150_000
_MANY_TEXTS = 40_000  # a student of a larger pool hardly sees a text of its own twice


@dataclass(frozen=True, slots=True)
class LabelInputs:
    """What the stages that ask a teacher share; `paid` is None where no answer is bought or kept."""

    corpus: Path
    task: Task
    seed: int = 0
    progress: Progress = field(default=lambda rows: None)
    paid: PaidAnswers | None = None


def teach(spec: TeacherSpec, inputs: LabelInputs, directory: Path) -> None:
    """Fit and calibrate the teacher in `directory`, and write how it and TF-IDF on gold score on dev."""
    corpus, task, paid = inputs.corpus, inputs.task, inputs.paid
    dev = read_part(corpus, "dev")
    parts, pool = (read_part(corpus, "gold"), dev), partial(iterate_part, corpus, "pool")
    gold = Gold(task, *parts, dev_score(task.kind), inputs.seed, inputs.progress, pool)
    fit_teacher(spec, gold, directory, paid)
    if is_first_process():
        targets, texts = gold.targets(dev), [example.text for example in dev]
        rival = fit_tfidf_on_gold(corpus, task, inputs.seed)
        save_answers(rival, corpus, directory / TFIDF_ON_GOLD)
        scores = {
            "metric": HEADLINES[task.kind],
            "rows": len(dev),
            "teacher": _dev_score(directory, texts, targets, paid),
            "tfidf_gold": dev_score(task.kind)(rival.logits(texts), targets),
        }
        (directory / DEV_SCORES).write_text(json.dumps(scores, indent=2), encoding="utf-8")
    wait_for_all()


def label(teacher: Path, spec: LabelSpec, inputs: LabelInputs, directory: Path) -> None:
    """Label the pool of the corpus, or what is selected of it, and variants of its texts with the fitted teacher.

    Fills a store in `directory` and, where there are variants, one beside their texts in `directory`/variants.
    """
    fitted, corpus = load_teacher(teacher, inputs.paid), inputs.corpus
    store = _fill(fitted, _chosen(spec, inputs, directory), directory, spec.shard_rows, inputs.progress)
    rows = store.finish(corpus=read_meta(corpus).digest).rows
    encoder = encoder_of(teacher)
    copies = spec.variants
    if copies is None:
        is_varied = encoder and rows <= _MANY_TEXTS
        copies = min(_MOST_COPIES, _MOST_VARIANTS // max(rows, 1)) if is_varied else 0
    if copies:
        folder = directory / VARIANTS
        folder.mkdir(exist_ok=True)
        variants = _make_variants(corpus, directory, copies, encoder, inputs.seed)
        with PartWriter(folder, VARIANTS) as writer:
            writer.write(variants)
        _fill(fitted, [variants], folder, spec.shard_rows, inputs.progress).finish(corpus=writer.digest)


def _chosen(spec: LabelSpec, inputs: LabelInputs, directory: Path) -> Iterable[list[Example]]:
    """Return the pool in chunks, or what is selected of it, in that order."""
    if spec.select is None:
        return iterate_part(inputs.corpus, "pool")
    selection = select_pool(spec.select, inputs.corpus, inputs.task, seed=inputs.seed)
    selection.write(directory)
    return iterate_ids(inputs.corpus, selection.ids)


def _fill(
    teacher: Teacher, chunks: Iterable[list[Example]], directory: Path, shard_rows: int, progress: Progress
) -> LabelStore:
    store = LabelStore(directory, teacher.task, teacher.fingerprint)
    label_corpus(teacher, chunks, store, shard_rows=shard_rows, progress=progress)
    return store


def _make_variants(corpus: Path, labels: Path, copies: int, encoder: Path | None, seed: int) -> list[Example]:
    """Return variants of the pool texts that have a label in the store `labels`, none of them in dev or test."""
    store = read_store(labels)
    texts = [
        example.text
        for chunk in iterate_part(corpus, "pool")
        for example, is_answered in zip(chunk, store.answered([one.id for one in chunk]), strict=True)
        if is_answered
    ]
    judged = {example.id for name in ("dev", "test") for example in read_part(corpus, name)}
    neighbours = word_neighbours(str(encoder), texts) if encoder else None
    return make_variants(texts, copies, neighbours, seed=seed, avoided=judged)


def _dev_score(directory: Path, texts: list[str], targets: NDArray[np.float32], paid: PaidAnswers | None) -> float:
    """Score the teacher on dev, or return the score it had before it learned dev."""
    known = read_card(directory).dev_score
    return _score(load_teacher(directory, paid), texts, targets) if known is None else known


def _score(teacher: Teacher, texts: list[str], targets: NDArray[np.float32]) -> float:
    """Return the dev score; a text that the teacher rejects counts as wrong."""
    kind, given = teacher.task.kind, fill(teacher.label(texts), texts)
    score = dev_score(kind)
    if kind is TaskKind.MULTI_LABEL:  # where nothing was answered nothing is decided
        return score(log_scores(kind, given.probs), targets)
    kept = given.answered
    return score(log_scores(kind, given.probs[kept]), targets[kept]) * float(kept.mean()) if kept.any() else 0.0
