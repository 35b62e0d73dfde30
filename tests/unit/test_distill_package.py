"""Facts about the export stage: what ships, what a failed gate does, and what an interruption leaves behind."""

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import numpy_helper
from transformers import AutoModelForSequenceClassification, AutoTokenizer

from distill import package as module
from distill.package import package
from export.bundle import read_manifest, verify_bundle
from export.metrics import decode, softmax
from export.quantize import Coverage, quantize_int8
from export.runtime import OnnxClassifier, Predictor
from export.selective import certainty, fit_abstention
from export.spec import AbstainSpec, ExportSpec
from teacher.calibrate import fit_temperature, fit_thresholds
from teacher.corpus import iterate_part, read_part
from teacher.task import Task

LENIENT = ExportSpec(max_drop=1, max_kl=9, max_class_drop=1, max_calibration_rise=1)


def logits_of(model: Path, bundle: Path, texts: list[str]) -> np.ndarray:
    classifier = OnnxClassifier(model, bundle / "tokenizer.json", read_manifest(bundle).max_tokens)
    return np.stack([classifier.logits_one(text) for text in texts])


def dev_of(corpus: Path, task: Task) -> tuple[list[str], np.ndarray]:
    dev = read_part(corpus, "dev")
    return [example.text for example in dev], task.targets([example.labels or () for example in dev])


def ruin(source: Path, target: Path) -> Coverage:
    """Quantize, then turn the classifier's weights over, as no sane quantizer would."""
    coverage = quantize_int8(source, target)
    model = onnx.load(target)
    for tensor in model.graph.initializer:
        if tensor.data_type == onnx.TensorProto.INT8 and tensor.dims[-1:] == [3]:
            turned = numpy_helper.from_array(-np.clip(numpy_helper.to_array(tensor), -127, 127), tensor.name)
            tensor.CopyFrom(turned)
    onnx.save(model, target)
    return coverage


def test_a_sound_student_ships_as_int8_beside_fp32(small_bundle: Path, small_task: Task) -> None:
    manifest = read_manifest(small_bundle)
    assert verify_bundle(small_bundle) == []
    assert (manifest.precision, manifest.labels, manifest.kind) == ("int8", small_task.labels, "single_label")
    assert {"onnx/model.onnx", "onnx/model_quantized.onnx"} <= set(manifest.files)
    assert len(manifest.gates) == 5
    assert all(gate.passed for gate in manifest.gates)
    assert manifest.lineage == {"tune": "key"}
    assert not [path.name for path in small_bundle.iterdir() if path.name.startswith(".")]


def test_the_temperature_is_fitted_on_the_answers_of_the_file_that_ships(
    small_bundle: Path, small_corpus: Path, small_task: Task
) -> None:
    texts, targets = dev_of(small_corpus, small_task)
    logits = logits_of(small_bundle / "onnx" / "model_quantized.onnx", small_bundle, texts)
    wanted = fit_temperature(small_task.kind, logits, targets)
    assert read_manifest(small_bundle).temperature == pytest.approx(wanted, rel=1e-6)


def test_the_promise_is_fitted_on_the_answers_of_the_file_that_ships(
    small_student: Path, small_corpus: Path, small_task: Task, tmp_path: Path
) -> None:
    spec = ExportSpec(precision="fp32", abstain=AbstainSpec(accuracy=0.6, level=0.9))
    package(small_student, small_corpus, small_task, spec, tmp_path, lineage={})
    manifest = read_manifest(tmp_path)
    texts, targets = dev_of(small_corpus, small_task)
    pool = [example.text for chunk in iterate_part(small_corpus, "pool") for example in chunk]
    certain = []
    for part in (texts, pool):
        probs = softmax(logits_of(tmp_path / "onnx" / "model.onnx", tmp_path, part) / manifest.temperature)
        certain.append((certainty("single_label", probs, decode("single_label", probs)), probs.argmax(axis=1)))
    (dev, decided), (unlabelled, _) = certain
    wanted = fit_abstention(dev, decided == targets.argmax(axis=1), unlabelled, spec.abstain)
    assert manifest.abstain == wanted
    assert wanted.rows == 40


def test_the_bundle_answers_as_the_student_did(small_bundle: Path, small_student: Path, small_corpus: Path) -> None:
    texts = [example.text for example in read_part(small_corpus, "test")]
    tokenizer = AutoTokenizer.from_pretrained(small_student)
    model = AutoModelForSequenceClassification.from_pretrained(small_student).eval()
    fp32 = Predictor.load(small_bundle, "fp32")
    for text in texts[:10]:
        logits = model(**tokenizer(text, return_tensors="pt")).logits[0].detach().numpy()
        shares = np.exp((logits - logits.max()) / read_manifest(small_bundle).temperature)
        found = [fp32.predict(text)[0].probabilities[label] for label in read_manifest(small_bundle).labels]
        np.testing.assert_allclose(found, shares / shares.sum(), atol=1e-4)


def test_a_failed_gate_ships_fp32_alone_and_keeps_the_verdict(
    small_student: Path, small_corpus: Path, small_task: Task, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "quantize_int8", ruin)
    package(small_student, small_corpus, small_task, ExportSpec(), tmp_path, lineage={})
    manifest = read_manifest(tmp_path)
    failed = {gate.name for gate in manifest.gates if not gate.passed}
    assert manifest.precision == "fp32"
    assert {"quality_drop", "kl_divergence"} <= failed
    assert "onnx/model_quantized.onnx" not in manifest.files
    assert not (tmp_path / "onnx" / "model_quantized.onnx").exists()
    assert verify_bundle(tmp_path) == []
    texts, targets = dev_of(small_corpus, small_task)
    logits = logits_of(tmp_path / "onnx" / "model.onnx", tmp_path, texts)
    assert manifest.temperature == pytest.approx(fit_temperature(small_task.kind, logits, targets), rel=1e-6)


def test_fp32_asked_for_ships_without_gates(
    small_student: Path, small_corpus: Path, small_task: Task, tmp_path: Path
) -> None:
    package(small_student, small_corpus, small_task, ExportSpec(precision="fp32"), tmp_path, lineage={})
    manifest = read_manifest(tmp_path)
    assert (manifest.precision, manifest.gates) == ("fp32", ())
    assert verify_bundle(tmp_path) == []


def test_multi_label_thresholds_are_fitted_on_the_file_that_ships(
    tiny_classifier: Path, multi_corpus: Path, multi_task: Task, tmp_path: Path
) -> None:
    student = tmp_path / "student"
    model = AutoModelForSequenceClassification.from_pretrained(
        tiny_classifier, problem_type="multi_label_classification"
    )
    model.save_pretrained(student)
    tokenizer = AutoTokenizer.from_pretrained(tiny_classifier)
    tokenizer.model_max_length = 32
    tokenizer.save_pretrained(student)
    bundle = tmp_path / "bundle"
    bundle.mkdir()
    package(student, multi_corpus, multi_task, LENIENT, bundle, lineage={})
    manifest = read_manifest(bundle)
    texts, targets = dev_of(multi_corpus, multi_task)
    name = "model_quantized.onnx" if manifest.precision == "int8" else "model.onnx"
    probs = 1 / (1 + np.exp(-logits_of(bundle / "onnx" / name, bundle, texts) / manifest.temperature))
    wanted = fit_thresholds(probs, targets)
    assert manifest.thresholds is not None
    np.testing.assert_allclose([manifest.thresholds[label] for label in multi_task.labels], wanted, atol=1e-5)
    assert (manifest.kind, manifest.max_tokens) == ("multi_label", 32)


@pytest.mark.parametrize("place", ["quantize_int8", "judge_int8", "write_bundle", "rename"])
def test_an_interrupted_export_can_be_done_again_in_the_same_directory(
    small_student: Path,
    small_corpus: Path,
    small_task: Task,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    place: str,
) -> None:
    calls: list[Any] = []

    def interrupt(original: Any, after: int) -> Any:
        def call(*given: Any, **options: Any) -> Any:
            result = original(*given, **options)
            calls.append(given)
            if len(calls) == after:
                raise KeyboardInterrupt
            return result

        return call

    if place == "rename":
        monkeypatch.setattr(Path, "rename", interrupt(Path.rename, after=2))
    else:
        monkeypatch.setattr(module, place, interrupt(getattr(module, place), after=1))
    with pytest.raises(KeyboardInterrupt):
        package(small_student, small_corpus, small_task, LENIENT, tmp_path, lineage={})
    monkeypatch.undo()
    package(small_student, small_corpus, small_task, LENIENT, tmp_path, lineage={})
    assert verify_bundle(tmp_path) == []
    assert Predictor.load(tmp_path).predict("my parcel is late again")[0].label in small_task.labels
