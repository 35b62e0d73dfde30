"""Self-training: an encoder that learns the pool as another teacher answers it, then as it answers the pool itself.

Before each lesson the answers spread over nearest neighbours, so that a text is answered as texts like it are. What
comes out is an encoder teacher like any other. Knows nothing of what the first teacher is.
"""

from collections.abc import Callable, Sequence
from dataclasses import replace
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
from teacher.neighbours import spread_answers
from teacher.partial import answered_mask, fit_partial_temperature, log_scores, temper
from teacher.scorer import TextScorer
from teacher.spec import SelfTrainingSpec

Floats = NDArray[np.float32]


def fit_self_training(
    spec: SelfTrainingSpec, gold: Gold, fit_first: Callable[[Gold], Teacher], directory: Path
) -> float | None:
    """Train `spec.model` for `spec.rounds` rounds, each time from its own start, and save the last one.

    A round learns the gold labels and, for every pool text, the mean of what the teacher that `fit_first` returns and
    the encoders of earlier rounds say, spread over its `spec.neighbours` among the embeddings of the untrained encoder
    and calibrated on dev. Averaging the rounds keeps one of them from confirming its own mistakes (Laine & Aila 2017,
    "Temporal Ensembling for Semi-Supervised Learning").

    With `spec.refit` the spread answers are judged and calibrated on dev as ever; then the first teacher is fitted
    again with dev among its gold, and no later answer can be judged on dev. Returns the score on dev that the answers
    of the first lesson had before that, None without `spec.refit`. Raises TeacherError without a pool.
    """
    first = fit_first(gold)
    dev, said_of_dev = _ask(first, gold.dev)
    pool, said = _ask(first, _draw(gold, spec.pool_rows))
    spread = _Spread(spec, [example.text for example in (*gold.train, *dev, *pool)], gold.targets(gold.train))
    held = spread(np.concatenate([said_of_dev, said]))[: len(dev)]
    kind, truth = gold.task.kind, gold.targets(dev)
    temperature, score = fit_partial_temperature(kind, held, truth), None
    if spec.refit:
        score = gold.score(log_scores(kind, held), truth)
        gold = replace(gold, train=[*gold.train, *gold.dev], dev=())
        pool, again = _ask(fit_first(gold), pool)
        said = temper(kind, again, fit_temperature(kind, log_scores(kind, again), said))
    _lessons(spec, gold, (pool, said), temperature, directory)
    return score


def _lessons(
    spec: SelfTrainingSpec, gold: Gold, said: tuple[list[Example], Floats], temperature: float, directory: Path
) -> None:
    tokenizer, sure = load_tokenizer(spec.model), gold.targets(gold.train)
    texts = [example.text for example in (*gold.train, *said[0])]
    spread, answers = _Spread(spec, texts, sure), [said[1]]
    for number in range(spec.rounds):
        taught = temper(gold.task.kind, spread(np.mean(answers, axis=0)), temperature)
        start = spec.model_copy(update={"seed": (gold.seed if spec.seed is None else spec.seed) + number})
        lesson = texts, np.concatenate([sure, taught])
        model = fine_tune(tokenizer, start, gold, lesson, directory / "checkpoints")
        if number + 1 < spec.rounds:
            answers.append(_calibrated(gold, TextScorer(model, tokenizer, spec.max_tokens), texts[len(sure) :]))
    calibrate_and_save(model, tokenizer, gold, spec.max_tokens, directory)


class _Spread:
    """Spreads answers among `texts`, the first of which have the labels `sure` (N, C)."""

    def __init__(self, spec: SelfTrainingSpec, texts: Sequence[str], sure: Floats) -> None:
        self._neighbours, self._sure = spec.neighbours, sure
        self._vectors = load_embedder(spec.model, spec.max_tokens).logits(texts) if spec.neighbours else None

    def __call__(self, probs: Floats) -> Floats:
        """Return the answers `probs` (M, C) to the other texts as their neighbours change them."""
        if self._vectors is None or self._neighbours is None:
            return probs
        spread = spread_answers(self._vectors, np.concatenate([self._sure, probs]), self._neighbours)
        return spread[len(self._sure) :]


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
