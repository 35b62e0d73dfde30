"""Export a tuned student: fp32 and int8 files, calibrated each on its own answers, gated, and bundled."""

import shutil
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from transformers import AutoTokenizer

import student.static  # noqa: F401  (transformers opens a static student from here on)
from export.bundle import BundleManifest, Precision, write_bundle
from export.gate import Comparison, Gate, judge_int8
from export.graph import export_graph, prove_parity
from export.metrics import ACTIVATIONS, decode, macro_f1, row_scores
from export.quantize import quantize_int8
from export.runtime import OnnxClassifier
from export.spec import ExportSpec
from teacher.calibrate import fit_temperature, fit_thresholds
from teacher.corpus import iterate_part, read_part
from teacher.task import Task, TaskKind

_POOL_TEXTS = 2000  # unlabelled texts on which int8 is compared with fp32
Floats = NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Calibrated:
    """The answers of one exported file with the temperature and thresholds fitted on its own dev logits."""

    dev: Floats
    pool: Floats
    temperature: float
    thresholds: Floats | None


def package(
    student: Path, corpus: Path, task: Task, spec: ExportSpec, directory: Path, *, lineage: dict[str, str]
) -> None:
    """Fill `directory` with the bundle of the checkpoint `student`.

    int8 ships when every gate passes; otherwise fp32 ships and the manifest keeps the gates that failed.
    Raises ExportError when the graph does not answer as torch does.
    """
    for leftover in (".onnx", ".bundle", "onnx"):  # of an interrupted run
        shutil.rmtree(directory / leftover, ignore_errors=True)
    models = _export(student, corpus, spec, directory / ".onnx")
    dev = read_part(corpus, "dev")
    targets = task.targets([example.labels or () for example in dev])
    texts = [example.text for example in dev]
    pool = _pool_sample(corpus)
    answers = {
        precision: _calibrate(_open(student, path), task.kind, texts, targets, pool)
        for precision, path in models.items()
    }
    gates = _judge(task, targets, answers, spec) if "int8" in answers else []
    precision: Precision = "int8" if gates and all(gate.passed for gate in gates) else "fp32"
    shipped = answers[precision]
    manifest = BundleManifest(
        name=directory.parent.name,
        kind=task.kind.value,
        labels=task.labels,
        max_tokens=_max_tokens(student),
        precision=precision,
        temperature=shipped.temperature,
        thresholds=None
        if shipped.thresholds is None
        else dict(zip(task.labels, shipped.thresholds.tolist(), strict=True)),
        too_long=spec.too_long,
        gates=tuple(gates),
        lineage=dict(lineage),
    )
    kept = {name: path for name, path in models.items() if name == "fp32" or precision == "int8"}
    bundle = directory / ".bundle"
    write_bundle(
        student, kept, bundle, manifest, _test_quality(_open(student, models[precision]), corpus, task, shipped)
    )
    shutil.rmtree(directory / ".onnx")
    for path in bundle.iterdir():
        path.rename(directory / path.name)
    bundle.rmdir()


def _export(student: Path, corpus: Path, spec: ExportSpec, folder: Path) -> dict[Precision, Path]:
    models: dict[Precision, Path] = {"fp32": folder / "model.onnx"}
    export_graph(student, models["fp32"])
    prove_parity(student, models["fp32"], [example.text for example in read_part(corpus, "dev")])
    if spec.precision == "int8":
        models["int8"] = folder / "model_quantized.onnx"
        quantize_int8(models["fp32"], models["int8"])
    return models


def _calibrate(
    classifier: OnnxClassifier, kind: TaskKind, texts: list[str], targets: Floats, pool: list[str]
) -> Calibrated:
    # One text at a time: int8 answers shift with their batch-mates, and production asks one by one.
    logits = np.stack([classifier.logits_one(text) for text in texts])
    temperature = fit_temperature(kind, logits, targets)
    probs = ACTIVATIONS[kind](logits / temperature)
    pool_logits = np.stack([classifier.logits_one(text) for text in pool])
    return Calibrated(
        dev=probs,
        pool=ACTIVATIONS[kind](pool_logits / temperature),
        temperature=temperature,
        thresholds=fit_thresholds(probs, targets) if kind is TaskKind.MULTI_LABEL else None,
    )


def _test_quality(classifier: OnnxClassifier, corpus: Path, task: Task, shipped: Calibrated) -> dict[str, float]:
    """Return what the model card says of the file that ships; every choice has been made by now."""
    test = read_part(corpus, "test")
    targets = task.targets([example.labels or () for example in test])
    logits = np.stack([classifier.logits_one(example.text) for example in test])
    probs = ACTIVATIONS[task.kind](logits / shipped.temperature)
    decided = decode(task.kind.value, probs, shipped.thresholds)
    return {"accuracy": float(row_scores(decided, targets).mean()), "f1": macro_f1(decided, targets)}


def _judge(task: Task, targets: Floats, answers: dict[Precision, Calibrated], spec: ExportSpec) -> list[Gate]:
    fp32, int8 = answers["fp32"], answers["int8"]
    return judge_int8(
        Comparison(
            kind=task.kind.value,
            labels=task.labels,
            targets=targets,
            fp32=fp32.dev,
            int8=int8.dev,
            pool_fp32=fp32.pool,
            pool_int8=int8.pool,
            fp32_thresholds=fp32.thresholds,
            int8_thresholds=int8.thresholds,
        ),
        spec,
    )


def _open(student: Path, model: Path) -> OnnxClassifier:
    return OnnxClassifier(model, student / "tokenizer.json", _max_tokens(student))


def _max_tokens(student: Path) -> int:
    return int(AutoTokenizer.from_pretrained(student).model_max_length)


def _pool_sample(corpus: Path) -> list[str]:
    sample: list[str] = []
    for chunk in iterate_part(corpus, "pool"):
        sample.extend(example.text for example in chunk)
        if len(sample) >= _POOL_TEXTS:
            break
    return sample[:_POOL_TEXTS]
