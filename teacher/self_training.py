"""Self-training: an encoder that learns the pool as another teacher answers it, then as it answers the pool itself.

What comes out is an encoder teacher like any other. Knows nothing of what the first teacher is.
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from teacher.base import Teacher
from teacher.calibrate import fit_temperature
from teacher.encoder import ACTIVATIONS, Gold, calibrate_and_save, fine_tune, load_tokenizer
from teacher.errors import TeacherError
from teacher.example import Example
from teacher.partial import answered_mask
from teacher.scorer import TextScorer
from teacher.spec import SelfTrainingSpec

Floats = NDArray[np.float32]


def fit_self_training(spec: SelfTrainingSpec, gold: Gold, first: Teacher, directory: Path) -> None:
    """Train `spec.model` for `spec.rounds` rounds, each time from its own start, and save the last one.

    A round learns the gold labels and, for every pool text, the mean of what `first` and the encoders of earlier
    rounds say, each calibrated on dev. Averaging the rounds keeps one of them from confirming its own mistakes
    (Laine & Aila 2017, "Temporal Ensembling for Semi-Supervised Learning"). Raises TeacherError without a pool.
    """
    texts, said = _ask(first, _draw(gold, spec.pool_rows))
    known = [example.text for example in gold.train]
    tokenizer = load_tokenizer(spec.model)
    answers = [said]
    for number in range(spec.rounds):
        start = spec.model_copy(update={"seed": (gold.seed if spec.seed is None else spec.seed) + number})
        lesson = [*known, *texts], np.concatenate([gold.targets(gold.train), np.mean(answers, axis=0)])
        model = fine_tune(tokenizer, start, gold, lesson, directory / "checkpoints")
        if number + 1 < spec.rounds:
            answers.append(_calibrated(TextScorer(model, tokenizer, spec.max_tokens), gold, texts))
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


def _ask(teacher: Teacher, pool: Sequence[Example]) -> tuple[list[str], Floats]:
    """Return the texts that `teacher` answers, and its answers (N, C)."""
    given = teacher.label([example.text for example in pool])
    mask = answered_mask([example.id for example in pool], given)
    return [pool[row].text for row in np.flatnonzero(mask).tolist()], given.probs


def _calibrated(scorer: TextScorer, gold: Gold, texts: Sequence[str]) -> Floats:
    kind, dev = gold.task.kind, [example.text for example in gold.dev]
    temperature = fit_temperature(kind, scorer.logits(dev), gold.targets(gold.dev))
    probs: Floats = ACTIVATIONS[kind](torch.from_numpy(scorer.logits(texts) / temperature)).numpy()
    return probs
