"""What a speed report times: a bundle, or a PyTorch checkpoint beside it, each as callables over texts.

torch is loaded only for a checkpoint.
"""

import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from distill.errors import InputError

Answer = Callable[[str], object]
AnswerMany = Callable[[Sequence[str]], object]
_BATCH = 32
_THREAD_TRIAL_TEXTS = 30


@dataclass(frozen=True, slots=True)
class Contender:
    """Something that answers texts: one on `threads`, many at once on `bulk_threads`.

    `stages` are parts of an answer, for texts that `open_contender` was given.
    """

    kind: Literal["bundle", "checkpoint"]
    answer: Answer
    answer_many: AnswerMany
    threads: int
    bulk_threads: int
    stages: Mapping[str, Answer] = field(default_factory=dict)


def is_bundle(path: Path) -> bool:
    """Say whether `path` is a bundle's folder."""
    return (path / "potstill.json").is_file()


def check_contender(path: Path) -> None:
    """Raise InputError when `path` is no bundle, fitted teacher or Hugging Face classifier; opens nothing."""
    if not any((path / name).is_file() for name in ("potstill.json", "teacher.json", "config.json")):
        raise InputError(f"{path}: found no bundle, teacher or classifier (potstill.json, teacher.json or config.json)")


def open_contender(path: Path, texts: Sequence[str]) -> Contender:
    """Open a bundle, a fitted teacher or a Hugging Face classifier; raise InputError when `path` is none of them."""
    check_contender(path)
    if is_bundle(path):
        return _open_bundle(path, texts)
    if (path / "teacher.json").is_file():
        from teacher.kinds import load_teacher

        teacher = load_teacher(path)
        threads = best_threads(lambda text: teacher.label([text]), texts)
        return Contender("checkpoint", lambda text: teacher.label([text]), teacher.label, threads, threads)
    answer_many = _open_classifier(path)
    threads = best_threads(lambda text: answer_many([text]), texts)
    return Contender("checkpoint", lambda text: answer_many([text]), answer_many, threads, threads)


@contextmanager
def same_threads_after() -> Iterator[None]:
    """Give torch the number of threads back that it had: what is timed takes the best for itself."""
    import torch

    before = torch.get_num_threads()
    try:
        yield
    finally:
        torch.set_num_threads(before)


def best_threads(answer: Answer, texts: Sequence[str]) -> int:
    """Set torch to the number of threads at which `answer` is fastest on single texts, and return it."""
    import torch

    most = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    seconds = {}
    for threads in sorted({1, most, max(most // 2, 1)}):
        torch.set_num_threads(threads)
        for text in texts[:3]:
            answer(text)
        started = time.perf_counter()
        for text in texts[:_THREAD_TRIAL_TEXTS]:
            answer(text)
        seconds[threads] = time.perf_counter() - started
    best = min(seconds, key=lambda threads: seconds[threads])
    torch.set_num_threads(best)
    return best


def _open_bundle(path: Path, texts: Sequence[str]) -> Contender:
    from export.bundle import MODEL_FILES, read_listed, read_manifest, refuse_strangers
    from export.machine import usable_cores
    from export.runtime import OnnxClassifier, Predictor

    manifest = read_manifest(path)
    refuse_strangers(path, manifest)
    model = read_listed(path, manifest, MODEL_FILES[manifest.precision])
    classifier = OnnxClassifier(model, read_listed(path, manifest, "tokenizer.json"), manifest.max_tokens)
    predictor = Predictor(manifest, classifier)
    encodings = {text: classifier.encode(text) for text in texts}
    stages: dict[str, Answer] = {
        "tokenize": classifier.encode,
        "model": lambda text: classifier.run_one(encodings[text]),
    }
    cores = usable_cores()
    return Contender("bundle", predictor.predict, Predictor.load(path, threads=cores).predict, 1, cores, stages)


def _open_classifier(path: Path) -> AnswerMany:
    import torch
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    model: Any = AutoModelForSequenceClassification.from_pretrained(path).eval()
    tokenizer: Any = AutoTokenizer.from_pretrained(path)

    def answer_many(texts: Sequence[str]) -> list[str]:
        labels = []
        with torch.inference_mode():
            for start in range(0, len(texts), _BATCH):
                rows = list(texts[start : start + _BATCH])
                given = tokenizer(rows, padding=True, truncation=True, return_tensors="pt")
                labels += [model.config.id2label[int(best)] for best in model(**given).logits.argmax(-1)]
        return labels

    return answer_many
