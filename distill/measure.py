"""The quick benchmark of a run: student against its PyTorch teacher, text in to label out, interleaved."""

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from distill.contenders import Answer, best_threads, same_threads_after
from distill.errors import CheckFailedError
from distill.teach import LabelInputs
from distill.timing import is_answered
from export.bench import (
    cold_start,
    latency_by_tokens,
    measure_interleaved,
    paired_ratio,
    percentile_curve,
    summarise,
)
from export.machine import machine
from export.runtime import Predictor
from export.spec import BenchSpec
from teacher.corpus import read_part
from teacher.kinds import is_bought, load_teacher
from teacher.parts import PartName

LATENCY = "latency.json"
_CONTROL = "control"
_WARMUP = 20


def measure(bundle: Path, teacher: Path, inputs: LabelInputs, spec: BenchSpec, directory: Path) -> None:
    """Write latency.json and the raw samples of every contender to `directory`.

    A teacher without a model here is not timed: an answer over a network is mostly somebody else's queue. Nor is one
    that finds its answers in the run's file, so it is loaded without that.
    """
    students = {
        f"student_{precision}": Predictor.load(bundle, precision, spec.threads) for precision in _precisions(bundle)
    }
    contenders: dict[str, Answer] = {name: student.predict for name, student in students.items()}
    shipped = next(iter(contenders))
    texts = draw_texts(inputs.corpus, "test", students[shipped], spec.texts, inputs.seed)
    threads = dict.fromkeys(contenders, spec.threads)
    contenders[_CONTROL] = contenders[shipped]
    with same_threads_after():
        if not is_bought(teacher) and (fitted := load_teacher(teacher)).parameters:
            contenders["teacher"] = lambda text: fitted.label([text])
            threads["teacher"] = best_threads(contenders["teacher"], texts)
        samples = measure_interleaved(contenders, texts, spec.repeats, _WARMUP, inputs.seed)
    tokens = [answer.tokens for answer in students[shipped].predict(texts)]
    speedup = paired_ratio(samples["teacher"], samples[shipped]) if "teacher" in samples else None
    control = paired_ratio(samples.pop(_CONTROL), samples[shipped])
    latency: dict[str, Any] = {name: asdict(summarise(taken, threads[name])) for name, taken in samples.items()}
    if speedup is not None:
        latency |= {"speedup_p50": speedup.estimate, "speedup_low": speedup.low, "speedup_high": speedup.high}
    latency |= {
        "control_low": control.low,
        "control_high": control.high,
        "by_tokens": {name: latency_by_tokens(taken, tokens) for name, taken in samples.items()},
        "percentiles": {name: percentile_curve(taken) for name, taken in samples.items()},
    }
    report = {"latency": latency, "cold_start": asdict(cold_start(bundle, texts[0])), "machine": machine()}
    np.savez_compressed(directory / "samples.npz", allow_pickle=False, **samples)
    (directory / LATENCY).write_text(json.dumps(report, indent=2), encoding="utf-8")


def draw_texts(corpus: Path, part: PartName, student: Predictor, count: int, seed: int) -> list[str]:
    """Draw texts of `part` that `student` answers, with repetition where they are few."""
    texts = [example.text for example in read_part(corpus, part) if is_answered(student, example.text)]
    if not texts:
        raise CheckFailedError(
            f"every {part} text is longer than the {student.manifest.max_tokens} tokens the student takes, and "
            "export.too_long is refuse: there is nothing to measure; raise student.max_tokens"
        )
    return [texts[row] for row in np.random.default_rng(seed).choice(len(texts), count, replace=count > len(texts))]


def _precisions(bundle: Path) -> list[Any]:
    """Return the precisions a bundle holds, the shipped one first."""
    from export.bundle import MODEL_FILES, read_manifest

    manifest = read_manifest(bundle)
    there = [precision for precision, name in MODEL_FILES.items() if name in manifest.files]
    return sorted(there, key=lambda precision: precision != manifest.precision)
