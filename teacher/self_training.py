"""Self-training: an encoder that learns the pool as another teacher answers it, then as it answers the pool itself.

Before each lesson the answers spread over nearest neighbours, so that a text is answered as texts like it are. What
comes out is an encoder teacher like any other. Knows nothing of what the first teacher is.
"""

from collections.abc import Sequence
from itertools import compress
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from teacher.base import Teacher
from teacher.calibrate import fit_temperature
from teacher.encoder import ACTIVATIONS, Gold, calibrate_and_save, fine_tune, load_embedder, load_tokenizer
from teacher.errors import TeacherError
from teacher.example import Example
from teacher.neighbours import spread_answers, unit
from teacher.partial import answered_mask, fit_partial_temperature, temper
from teacher.pooled import PooledClassifier, PooledEncoder
from teacher.scorer import TextScorer
from teacher.spec import SelfTrainingSpec

Floats = NDArray[np.float32]


def fit_self_training(spec: SelfTrainingSpec, gold: Gold, first: Teacher, directory: Path) -> None:
    """Train `spec.model` for `spec.rounds` rounds, each time from its own start, and save the last one.

    A round learns the gold labels and, for every pool text, the mean of what `first` and the encoders of earlier
    rounds say, spread over its `spec.neighbours` and calibrated on dev. Averaging the rounds keeps one of them from
    confirming its own mistakes (Laine & Aila 2017, "Temporal Ensembling for Semi-Supervised Learning"). Neighbours
    are those of the untrained encoder, and from the second round on of the trained one as well. Raises TeacherError
    without a pool.
    """
    tokenizer = load_tokenizer(spec.model)
    dev, said_of_dev = _ask(first, gold.dev)
    pool, said_of_pool = _ask(first, _draw(gold, spec.pool_rows))
    texts = [example.text for example in (*gold.train, *dev, *pool)]
    known, held = len(gold.train), len(gold.train) + len(dev)
    sure, truth = gold.targets(gold.train), gold.targets(dev)
    answers = [np.concatenate([said_of_dev, said_of_pool])]
    views = [unit(load_embedder(spec.model, spec.max_tokens).logits(texts))] if spec.neighbours else []
    for number in range(spec.rounds):
        labels = np.concatenate([sure, np.mean(answers, axis=0)])
        if spec.neighbours:
            labels = spread_answers(np.concatenate(views, axis=1), labels, spec.neighbours)
        temperature = fit_partial_temperature(gold.task.kind, labels[known:held], truth)
        taught = temper(gold.task.kind, labels[held:], temperature)
        start = spec.model_copy(update={"seed": (gold.seed if spec.seed is None else spec.seed) + number})
        lesson = [*texts[:known], *texts[held:]], np.concatenate([sure, taught])
        model = fine_tune(tokenizer, start, gold, lesson, directory / "checkpoints")
        if number + 1 < spec.rounds:
            scorer = TextScorer(model, tokenizer, spec.max_tokens)
            answers.append(_calibrated(gold, scorer, texts[known:]))
            views = [*views[:1], *_view(spec, model, scorer, texts)]
    calibrate_and_save(model, tokenizer, gold, spec.max_tokens, directory)


def _draw(gold: Gold, rows: int) -> list[Example]:
    """Return up to `rows` pool texts that are neither gold nor dev."""
    held = {example.id for example in (*gold.train, *gold.dev)}
    pool = [example for chunk in gold.pool() for example in chunk if example.id not in held]
    if not pool:
        raise TeacherError("self_training found no pool text besides gold; name some in data.unlabeled")
    if len(pool) <= rows:
        return pool
    return [pool[row] for row in sorted(np.random.default_rng(gold.seed).choice(len(pool), rows, replace=False))]


def _ask(teacher: Teacher, examples: Sequence[Example]) -> tuple[list[Example], Floats]:
    """Return those of `examples` that `teacher` answers, and its answers (N, C)."""
    given = teacher.label([example.text for example in examples])
    return list(compress(examples, answered_mask([example.id for example in examples], given))), given.probs


def _calibrated(gold: Gold, scorer: TextScorer, texts: Sequence[str]) -> Floats:
    kind, dev = gold.task.kind, [example.text for example in gold.dev]
    temperature = fit_temperature(kind, scorer.logits(dev), gold.targets(gold.dev))
    probs: Floats = ACTIVATIONS[kind](torch.from_numpy(scorer.logits(texts) / temperature)).numpy()
    return probs


def _view(spec: SelfTrainingSpec, model: PooledClassifier, scorer: TextScorer, texts: Sequence[str]) -> list[Floats]:
    """Return what the encoder of `model` makes of `texts`, as a list of one; of none where nobody looks."""
    if not spec.neighbours:
        return []
    return [unit(TextScorer(PooledEncoder(model.encoder), scorer.tokenizer, spec.max_tokens).logits(texts))]
