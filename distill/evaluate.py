"""The last look: every model of a run on the test rows, once, and what report.json says of it.

Nothing is chosen here. Thresholds and temperatures come from dev.
"""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from distill.ablation import AskedTeacher, ablate, ask_teacher
from distill.abstention import describe_abstention
from distill.audit import audit_labels
from distill.baselines import ANSWERS, read_answers
from distill.labelling import describe_labelling
from distill.measure import LATENCY
from distill.proof import compare_paired, recall_by_class
from distill.quality import (
    Answers,
    Floats,
    decide,
    decide_by,
    difference,
    fit_decisions,
    quality,
    reliability,
)
from distill.scores import HEADLINES
from distill.teach import TFIDF_ON_GOLD
from distill.train import read_metrics
from distill.trial import probabilities
from export.bundle import MODEL_FILES, BundleManifest, Precision, read_manifest
from export.machine import usable_cores
from export.metrics import ACTIVATIONS, f1_per_class, recall_per_class, row_scores
from export.report import render_html, render_markdown
from export.runtime import OnnxClassifier
from export.scope import describe_scope, familiarity
from teacher.calibrate import fit_temperature
from teacher.corpus import read_meta, read_part
from teacher.example import Example
from teacher.paid import PaidAnswers
from teacher.scorer import TextScorer
from teacher.task import Task, TaskKind

_WORST_CLASSES = 10
_DISAGREEMENTS = 20


@dataclass(frozen=True, slots=True)
class RunPaths:
    """The finished stage directories a report is made from."""

    corpus: Path
    teacher: Path
    labels: Path
    student: Path
    tuned: Path
    bundle: Path
    baselines: Path
    bench: Path
    audit: Path


def write_report(
    paths: RunPaths,
    task: Task,
    about: Mapping[str, Any],
    directory: Path,
    *,
    seed: int,
    paid: PaidAnswers | None = None,
) -> None:
    """Write report.json, report.md, report.html, probable label errors and the test answers to `directory`.

    `about` holds what only the conductor knows: name, stages, lineage, warnings and a search. What the teacher has
    answered before comes from `paid`, and what it has not, test rows among it, is paid into it.
    """
    test = read_part(paths.corpus, "test")
    targets = task.targets([example.labels or () for example in test])
    asked = ask_teacher(paths.teacher, paths.corpus, paid)
    answers = answer_test(paths, task, asked)
    labelling = describe_labelling(paths.labels, paths.corpus, task, answers["teacher"], seed=seed)
    report = {
        "name": about["name"],
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
        "task": {"kind": task.kind.value, "labels": list(task.labels)},
        "headline": HEADLINES[task.kind],
        "quality": {name: quality(task.kind, given, targets, seed) for name, given in answers.items()},
        **_compared(task, test, answers, targets, seed),
        **_promised(read_manifest(paths.bundle), task.kind, answers, targets, seed),
        "gold": _gold(paths.corpus),
        "size": _size(paths, asked.parameters or None),
        **json.loads((paths.bench / LATENCY).read_text(encoding="utf-8")),
        "cost": {
            "teacher_usd": (paid.spent_usd if paid else labelling["cost_usd"]) or None,
            "per_million_usd": None,
            "break_even": None,
        },
        "ablation": ablate(asked, paths.corpus, task, seed=seed),
        "labelling": labelling,
        "reliability": {
            name: reliability(task.kind, given.probs[given.rows], targets[given.rows])
            for name, given in answers.items()
            if name in (_student(answers), "teacher")
        },
        "label_errors": audit_labels(paths.corpus, paths.audit, task, answers["teacher"], directory),
        "vocabulary": read_metrics(paths.student)["vocabulary"],
        "corpus": read_meta(paths.corpus).model_dump(mode="json"),
        "stages": about["stages"],
        "lineage": about["lineage"],
        "warnings": about["warnings"],
        "search": about.get("search"),
    }
    np.savez_compressed(
        directory / "test_answers.npz", allow_pickle=False, **{name: given.probs for name, given in answers.items()}
    )
    text = json.dumps(report, indent=2, allow_nan=False)
    (directory / "report.json").write_text(text, encoding="utf-8")
    (directory / "report.md").write_text(render_markdown(report), encoding="utf-8")
    (directory / "report.html").write_text(render_html(report), encoding="utf-8")


def _promised(
    manifest: BundleManifest, kind: TaskKind, answers: Mapping[str, Answers], targets: Floats, seed: int
) -> dict[str, Any]:
    """Return what the bundle says of itself, and what has become of its promise on test."""
    given = student, _ = answers[_student(answers)], answers["teacher"]
    is_right = row_scores(student.decided, targets) > 0
    return {
        "abstain": describe_abstention(kind, given, targets, manifest.abstain, seed=seed),
        "scope": describe_scope(manifest.scope, familiarity(student.probs), is_right),
        "gates": [asdict(gate) for gate in manifest.gates],
        "export": manifest.export,
    }


def answer_test(paths: RunPaths, task: Task, asked: AskedTeacher | None = None) -> dict[str, Answers]:
    """Return the test answers of the teacher, the exported files and the baselines, under the report's names.

    `asked` are the teacher's, where they are at hand already.
    """
    dev, test = ([example.text for example in read_part(paths.corpus, part)] for part in ("dev", "test"))
    dev_targets = task.targets([example.labels or () for example in read_part(paths.corpus, "dev")])
    asked = asked or ask_teacher(paths.teacher, paths.corpus)
    answers = {"teacher": decide_by(task.kind, asked.dev, dev_targets, asked.test)}
    manifest = read_manifest(paths.bundle)
    for precision, file in MODEL_FILES.items():
        if file in manifest.files:
            answers[f"student_{precision}"] = _answer_exported(paths, manifest, precision, task, dev_targets)
    given = {"gold_only": _answer_checkpoint(paths.baselines / "gold_only", task, dev, test, dev_targets)}
    for name, path in (
        ("tfidf_gold", paths.teacher / TFIDF_ON_GOLD),
        ("tfidf_soft", paths.baselines / ANSWERS),
    ):
        saved = read_answers(path)
        given[name] = (saved["dev"], saved["test"])
    for name, (on_dev, on_test) in given.items():
        answers[name] = decide(task.kind, on_test, fit_decisions(task.kind, on_dev, dev_targets))
    return answers


def _answer_exported(
    paths: RunPaths, manifest: BundleManifest, precision: Precision, task: Task, dev_targets: Floats
) -> Answers:
    """Return what one file of the bundle answers in production; only what does not ship is still given thresholds."""
    files = paths.bundle / MODEL_FILES[precision], paths.bundle / "tokenizer.json"
    model = OnnxClassifier(*files, manifest.max_tokens, usable_cores())
    dev, test = ([example.text for example in read_part(paths.corpus, part)] for part in ("dev", "test"))
    thresholds = None
    if manifest.thresholds is not None:
        thresholds = np.array([manifest.thresholds[label] for label in task.labels], np.float32)
        if precision != manifest.precision:
            thresholds = fit_decisions(task.kind, probabilities(model, dev), dev_targets)
    return decide(task.kind, probabilities(model, test), thresholds)


def _answer_checkpoint(
    directory: Path, task: Task, dev: list[str], test: list[str], dev_targets: Floats
) -> tuple[Floats, Floats]:
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(directory)
    model = AutoModelForSequenceClassification.from_pretrained(directory)
    scorer = TextScorer(model, tokenizer, tokenizer.model_max_length)
    return _calibrated(task.kind, scorer.logits(dev), scorer.logits(test), dev_targets)


def _calibrated(kind: TaskKind, dev: Floats, test: Floats, dev_targets: Floats) -> tuple[Floats, Floats]:
    temperature = fit_temperature(kind, dev, dev_targets)
    return ACTIVATIONS[kind](dev / temperature), ACTIVATIONS[kind](test / temperature)


def _student(answers: Mapping[str, Answers]) -> str:
    return "student_int8" if "student_int8" in answers else "student_fp32"


def _compared(
    task: Task, test: list[Example], answers: Mapping[str, Answers], targets: Floats, seed: int
) -> dict[str, Any]:
    """Return everything that sets the student beside its teacher."""
    student, teacher = answers[_student(answers)], answers["teacher"]
    return {
        "gap": _gap(task.kind, answers, targets, seed),
        "paired": compare_paired(student, teacher, targets),
        "recall": recall_by_class(task, student, teacher, targets),
        "worst_classes": _worst_classes(task, answers, targets),
        "disagreements": _disagreements(task, test, answers),
    }


def _gap(kind: TaskKind, answers: Mapping[str, Answers], targets: Floats, seed: int) -> dict[str, Any]:
    gap = difference(kind, answers[_student(answers)], answers["teacher"], targets, seed)
    return {**asdict(gap), "metric": HEADLINES[kind]}


def _gold(corpus: Path) -> dict[str, Any]:
    """Count every gold label that shaped a model: gold rows train, dev rows choose, calibrate and gate."""
    rows = read_meta(corpus).rows
    used = rows["gold"] + rows["dev"]
    return {
        "teacher": used,
        "student": used,
        "dev": rows["dev"],
        "pool": rows["pool"],
        "share": used / max(rows["pool"] + rows["dev"], 1),
    }


def _size(paths: RunPaths, teacher_parameters: int | None) -> dict[str, Any]:
    manifest = read_manifest(paths.bundle)
    sizes = {name: entry.bytes for name, entry in manifest.files.items()}
    shipped = MODEL_FILES[manifest.precision]
    other = {name for name in MODEL_FILES.values() if name != shipped}
    return {
        "teacher_parameters": teacher_parameters,
        "student_parameters": read_metrics(paths.tuned)["parameters"],
        "model_bytes": sizes[shipped],
        "bundle_bytes": sum(size for name, size in sizes.items() if name not in other),
        "fp32_bytes": sizes[MODEL_FILES["fp32"]],
        "ratio": None if teacher_parameters is None else teacher_parameters * 4 / sizes[shipped],
    }


def _worst_classes(task: Task, answers: Mapping[str, Answers], targets: Floats) -> list[dict[str, Any]]:
    student, teacher = answers[_student(answers)].decided, answers["teacher"].decided
    recall, f1 = recall_per_class(student, targets), f1_per_class(student, targets)
    of_teacher = recall_per_class(teacher, targets)
    order = [column for column in np.argsort(f1, kind="stable") if np.isfinite(recall[column])]
    return [
        {
            "label": task.labels[column],
            "n": int(targets[:, column].sum()),
            "recall": float(recall[column]),
            "f1": float(f1[column]),
            "teacher_recall": float(of_teacher[column]),
            "mistaken_for": _mistaken_for(task, student, targets, column),
        }
        for column in order[:_WORST_CLASSES]
    ]


def _mistaken_for(task: Task, decided: NDArray[np.bool_], targets: Floats, column: int) -> str | None:
    missed = (targets[:, column] > 0) & ~decided[:, column]
    instead = decided[missed].sum(axis=0)
    return task.labels[int(instead.argmax())] if instead.any() else None


def _disagreements(task: Task, test: list[Example], answers: Mapping[str, Answers]) -> list[dict[str, Any]]:
    """Return the rows where student and teacher decide differently, the most confident student first."""
    student, teacher = answers[_student(answers)], answers["teacher"]
    rows = np.flatnonzero((student.decided != teacher.decided).any(axis=1) & teacher.rows)
    rows = rows[np.argsort(-student.probs[rows].max(axis=1), kind="stable")][:_DISAGREEMENTS]

    def names(decided: NDArray[np.bool_]) -> str:
        return ", ".join(task.labels[column] for column in np.flatnonzero(decided)) or "(none)"

    return [
        {
            "text": test[row].text,
            "gold": ", ".join(test[row].labels or ()) or "(none)",
            "teacher": names(teacher.decided[row]),
            "student": names(student.decided[row]),
            "teacher_probability": float(teacher.probs[row].max()),
            "student_probability": float(student.probs[row].max()),
        }
        for row in rows
    ]
