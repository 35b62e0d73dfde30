"""How far an exported student is from its teacher on the dev rows, which a search may choose by. Test is never read.

Thresholds of a multi-label task are fitted on the same rows, for student and teacher alike. No interval of a gap is
narrower than so many rows allow: that no row differs among N leaves 3 / N (the rule of three, Hanley & Lippman-Hand
1983), where a bootstrap would see no noise at all.
"""

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from distill.quality import Answers, Floats, Given, decide, decide_by, difference, fill, fit_decisions, headline
from distill.scores import HEADLINES
from distill.trial import probabilities
from export.bundle import MODEL_FILES, read_manifest
from export.classifier import OnnxClassifier
from export.machine import usable_cores
from export.metrics import Interval
from teacher.corpus import read_part
from teacher.kinds import load_teacher
from teacher.paid import PaidAnswers
from teacher.task import Task

_ANSWERS = "dev.npz"
_SCORE = "score.json"


def ask_on_dev(teacher: Path, corpus: Path, paid: PaidAnswers | None, directory: Path) -> None:
    """Keep in `directory` what the teacher in `teacher` says of the dev rows."""
    texts = [example.text for example in read_part(corpus, "dev")]
    given = fill(load_teacher(teacher, paid).label(texts), texts)
    np.savez(directory / _ANSWERS, allow_pickle=False, probs=given.probs, answered=given.answered)


def score_on_dev(bundle: Path, asked: Path, corpus: Path, task: Task, seed: int, directory: Path) -> None:
    """Write to `directory` how good the file that `bundle` ships is on dev, and its gap to the teacher, paired."""
    dev = read_part(corpus, "dev")
    targets = task.targets([example.labels or () for example in dev])
    teacher = _read_answers(asked, task, targets)
    probs = _answer(bundle, [example.text for example in dev])
    student = decide(task.kind, probs, fit_decisions(task.kind, probs, targets))
    score = {
        "metric": HEADLINES[task.kind],
        "rows": len(dev),
        "score": asdict(headline(task.kind, student, targets, seed)),
        "teacher": headline(task.kind, teacher, targets, seed).estimate,
        "gap": asdict(_widened(difference(task.kind, student, teacher, targets, seed), 3 / len(dev))),
    }
    (directory / _SCORE).write_text(json.dumps(score, indent=2), encoding="utf-8")


def read_score(directory: Path) -> dict[str, Any]:
    """Return what `score_on_dev` wrote."""
    score: dict[str, Any] = json.loads((directory / _SCORE).read_text(encoding="utf-8"))
    return score


def _widened(gap: Interval, least: float) -> Interval:
    low, high = min(gap.low, gap.estimate - least), max(gap.high, gap.estimate + least)
    return Interval(gap.estimate, low, high)


def _read_answers(directory: Path, task: Task, targets: Floats) -> Answers:
    with np.load(directory / _ANSWERS, allow_pickle=False) as arrays:
        given = Given(arrays["probs"], arrays["answered"])
    return decide_by(task.kind, given, targets, given)


def _answer(bundle: Path, texts: list[str]) -> Floats:
    manifest = read_manifest(bundle)
    model = bundle / MODEL_FILES[manifest.precision]
    classifier = OnnxClassifier(model, bundle / "tokenizer.json", manifest.max_tokens, usable_cores())
    return probabilities(classifier, texts)
