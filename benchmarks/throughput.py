"""How fast a fitted encoder teacher labels texts, beside `transformers.pipeline` in the same process.

The pipeline answers with an AutoModelForSequenceClassification of the same encoder body and as many labels, because
a mean-pooled teacher is no class it knows. Its head is untrained: the values of weights do not change the speed.
"""

import os
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from transformers import AutoModelForSequenceClassification, AutoTokenizer, pipeline

from distill.conductor import silence_libraries
from teacher.encoder import EncoderTeacher
from teacher.kinds import load_teacher

ROUNDS = 5
PIPELINE_BATCH = 32
_TRIAL_TEXTS = 320
Labeller = Callable[[Sequence[str]], object]


@dataclass(frozen=True, slots=True)
class Throughput:
    """Texts per second of both sides (medians over rounds), their median paired ratio, its range, threads of each."""

    ours: float
    pipeline: float
    ratio: float
    lowest: float
    highest: float
    our_threads: int
    pipeline_threads: int


def measure_throughput(teacher: Path, texts: Sequence[str]) -> Throughput:
    """Label `texts` with both sides, alternating, each round another fifth of them and the same for both."""
    silence_libraries()
    ours, theirs = _our_side(teacher), _pipeline_side(teacher)
    trial = texts[:: max(len(texts) // _TRIAL_TEXTS, 1)]
    our_threads, their_threads = _best_threads(ours, trial), _best_threads(theirs, trial)
    rates: list[tuple[float, float]] = []
    for number in range(ROUNDS):
        chosen = texts[number::ROUNDS]
        sides = [(ours, our_threads), (theirs, their_threads)]
        order = (0, 1) if number % 2 == 0 else (1, 0)
        found = {side: _rate(*sides[side], chosen) for side in order}
        rates.append((found[0], found[1]))
    ratios = [first / second for first, second in rates]
    return Throughput(
        ours=statistics.median(first for first, _ in rates),
        pipeline=statistics.median(second for _, second in rates),
        ratio=statistics.median(ratios),
        lowest=min(ratios),
        highest=max(ratios),
        our_threads=our_threads,
        pipeline_threads=their_threads,
    )


def _our_side(teacher: Path) -> Labeller:
    fitted = load_teacher(teacher)
    if not isinstance(fitted, EncoderTeacher):
        raise TypeError(f"{teacher} holds a {type(fitted).__name__}; wanted an encoder teacher")
    return fitted.label


def _pipeline_side(teacher: Path) -> Labeller:
    labels = len(load_teacher(teacher).task.labels)
    model = AutoModelForSequenceClassification.from_pretrained(teacher, num_labels=labels, dtype=torch.float32)
    classify = pipeline(
        "text-classification",
        model=model,
        tokenizer=AutoTokenizer.from_pretrained(teacher),
        batch_size=PIPELINE_BATCH,
        device="cpu",
    )
    return lambda texts: classify(list(texts), top_k=None)


def _best_threads(label: Labeller, texts: Sequence[str]) -> int:
    most = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    label(texts)  # warm up, and let the teacher find out whether bf16 agrees
    return max({1, most}, key=lambda threads: max(_rate(label, threads, texts) for _ in range(2)))


def _rate(label: Labeller, threads: int, texts: Sequence[str]) -> float:
    """Return the texts per second of `label`."""
    torch.set_num_threads(threads)
    started = time.perf_counter()
    label(texts)
    return len(texts) / (time.perf_counter() - started)
