"""Facts about the export stage: what ships, what a failed gate does, and what an interruption leaves behind."""

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import numpy_helper
from transformers import AutoModelForSequenceClassification, AutoTokenizer

from distill import package as module
from distill import shortlist, trial
from distill.package import package
from distill.trial import Trial
from export import parity, variants
from export.bundle import read_manifest, verify_bundle
from export.coverage import Coverage
from export.graph import export_graph
from export.metrics import decode, softmax
from export.quantize import quantize_int8
from export.runtime import OnnxClassifier, Predictor, self_test
from export.selective import certainty, fit_abstention
from export.spec import AbstainSpec, ExportSpec
from export.surgery import REWRITES
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


@pytest.fixture(autouse=True)
def fewer_generated_texts(monkeypatch: pytest.MonkeyPatch) -> None:
    """Compare tokenizers on few texts: they are not what these tests are about."""
    monkeypatch.setattr(parity, "TEXTS", 100)


def turned_over(target: Path, precisions: tuple[int, ...]) -> None:
    """Turn the classifier's weights over where they are of these types, as no sane quantizer would."""
    model = onnx.load(target)
    for tensor in model.graph.initializer:
        if tensor.data_type in precisions and 3 in tensor.dims and len(tensor.dims) == 2:
            turned = numpy_helper.from_array(-np.clip(numpy_helper.to_array(tensor), -127, 127), tensor.name)
            tensor.CopyFrom(turned)
    onnx.save(model, target)


@pytest.fixture
def ruin(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Return a function that makes every int8 file wrong: where its head is int8, or in any case."""

    def start(precisions: tuple[int, ...]) -> None:
        def ruined(source: Path, target: Path, *given: Any, **options: Any) -> Coverage:
            coverage = quantize_int8(source, target, *given, **options)
            turned_over(target, precisions)
            return coverage

        monkeypatch.setattr(variants, "quantize_int8", ruined)
        monkeypatch.setattr(shortlist, "quantize_int8", ruined)

    return start


def test_a_sound_student_ships_as_int8_beside_fp32(small_bundle: Path, small_task: Task) -> None:
    manifest = read_manifest(small_bundle)
    assert verify_bundle(small_bundle) == []
    assert (manifest.precision, manifest.labels, manifest.kind) == ("int8", small_task.labels, "single_label")
    assert {"onnx/model.onnx", "onnx/model_quantized.onnx"} <= set(manifest.files)
    assert [gate.name for gate in manifest.gates] == [
        "not_a_number",
        "quality_drop",
        "kl_divergence",
        "worst_class_drop",
        "calibration_rise",
        "padding_shift",
        "batch_shift",
        "int8_coverage",
        "tokenizer_parity",
    ]
    assert all(gate.passed for gate in manifest.gates)
    assert manifest.lineage == {"tune": "key"}
    assert not [path.name for path in small_bundle.iterdir() if path.name.startswith(".")]


def test_the_temperature_is_fitted_on_the_answers_of_the_file_that_ships_and_is_in_its_head(
    small_bundle: Path, small_student: Path, small_corpus: Path, small_task: Task, tmp_path: Path
) -> None:
    texts, targets = dev_of(small_corpus, small_task)
    export_graph(small_student, tmp_path / "fp32.onnx")
    quantize_int8(tmp_path / "fp32.onnx", tmp_path / "int8.onnx")
    before = logits_of(tmp_path / "int8.onnx", small_bundle, texts)
    wanted = fit_temperature(small_task.kind, before, targets)
    manifest = read_manifest(small_bundle)
    assert (manifest.temperature, manifest.export["temperature_folded"]) == (1.0, True)
    assert manifest.export["temperature"] == pytest.approx(wanted, rel=1e-6)
    found = logits_of(small_bundle / "onnx" / "model_quantized.onnx", small_bundle, texts)
    np.testing.assert_allclose(found, before / wanted, rtol=1e-4, atol=1e-5)


def test_the_promise_is_fitted_on_the_answers_of_the_file_that_ships(
    small_student: Path, small_corpus: Path, small_task: Task, tmp_path: Path
) -> None:
    spec = ExportSpec(precision="fp32", abstain=AbstainSpec(accuracy=0.6, level=0.9))
    package(Trial(small_student, small_corpus, small_task, spec), tmp_path, lineage={})
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


def test_the_manifest_says_what_surgery_did(small_bundle: Path) -> None:
    about: dict[str, Any] = read_manifest(small_bundle).export
    *surgery, evened = about["rewrites"]
    assert [(rewrite["name"], rewrite["applied"]) for rewrite in surgery] == [(name, True) for name in REWRITES]
    assert (evened["name"], evened["applied"]) == ("even_inputs", False)
    assert max(rewrite["change"] for rewrite in surgery) < 1e-5
    assert (about["plan"], about["variant"], about["kept_fp32"]) == ("preset", "dynamic_int8", [])


def test_the_bundle_answers_as_the_student_did(
    small_bundle: Path, small_student: Path, small_corpus: Path, small_task: Task
) -> None:
    texts = [example.text for example in read_part(small_corpus, "test")]
    tokenizer = AutoTokenizer.from_pretrained(small_student)
    model = AutoModelForSequenceClassification.from_pretrained(small_student).eval()
    fp32 = Predictor.load(small_bundle, "fp32")
    dev, targets = dev_of(small_corpus, small_task)
    given = [model(**tokenizer(text, return_tensors="pt")).logits[0].detach().numpy() for text in dev]
    temperature = fit_temperature(small_task.kind, np.stack(given), targets)
    for text in texts[:10]:
        logits = model(**tokenizer(text, return_tensors="pt")).logits[0].detach().numpy()
        shares = np.exp((logits - logits.max()) / temperature)
        found = [fp32.predict(text)[0].probabilities[label] for label in read_manifest(small_bundle).labels]
        np.testing.assert_allclose(found, shares / shares.sum(), atol=1e-4)


def test_the_bundle_remembers_what_each_file_answered_to_the_names_of_labels(
    small_bundle: Path, small_task: Task
) -> None:
    answers = read_manifest(small_bundle).answers
    names = [label.replace("_", " ") for label in small_task.labels]
    assert {precision: [one.text for one in given] for precision, given in answers.items()} == {
        "fp32": names,
        "int8": names,
    }
    assert self_test(small_bundle) == []


def test_a_failed_gate_ships_fp32_alone_and_keeps_the_verdict(
    small_student: Path, small_corpus: Path, small_task: Task, tmp_path: Path, ruin: Any
) -> None:
    ruin((onnx.TensorProto.INT8, onnx.TensorProto.FLOAT))
    package(Trial(small_student, small_corpus, small_task, ExportSpec()), tmp_path, lineage={})
    manifest = read_manifest(tmp_path)
    failed = {gate.name for gate in manifest.gates if not gate.passed}
    assert manifest.precision == "fp32"
    assert {"quality_drop", "kl_divergence"} <= failed
    assert "onnx/model_quantized.onnx" not in manifest.files
    assert not (tmp_path / "onnx" / "model_quantized.onnx").exists()
    assert verify_bundle(tmp_path) == []
    assert (manifest.export["variant"], manifest.temperature) == ("fp32", 1.0)


def test_the_layer_that_int8_ruins_stays_fp32_and_is_named(
    small_student: Path, small_corpus: Path, small_task: Task, tmp_path: Path, ruin: Any
) -> None:
    ruin((onnx.TensorProto.INT8,))
    package(Trial(small_student, small_corpus, small_task, ExportSpec()), tmp_path, lineage={})
    manifest = read_manifest(tmp_path)
    about: dict[str, Any] = manifest.export
    assert (manifest.precision, about["kept_fp32"]) == ("int8", ["head"])
    assert [row["passed"] for row in about["variants"]] == [False, True]
    assert "quality_drop" in about["variants"][0]["reason"]
    assert "kept fp32: head" in next(gate.detail for gate in manifest.gates if gate.name == "int8_coverage")


def test_fp32_asked_for_is_judged_by_itself_alone(
    small_student: Path, small_corpus: Path, small_task: Task, tmp_path: Path
) -> None:
    package(Trial(small_student, small_corpus, small_task, ExportSpec(precision="fp32")), tmp_path, lineage={})
    manifest = read_manifest(tmp_path)
    assert manifest.precision == "fp32"
    assert [gate.name for gate in manifest.gates] == ["padding_shift", "batch_shift", "tokenizer_parity"]
    assert max(gate.value for gate in manifest.gates) < 1e-6
    assert verify_bundle(tmp_path) == []


def test_a_measured_plan_ships_the_best_ranked_that_passes_and_keeps_the_table(
    small_student: Path, small_corpus: Path, small_task: Task, tmp_path: Path
) -> None:
    spec = LENIENT.model_copy(update={"plan": "measured"})
    package(Trial(small_student, small_corpus, small_task, spec), tmp_path, lineage={})
    about: dict[str, Any] = read_manifest(tmp_path).export
    rows = {row["name"]: row for row in about["variants"]}
    assert set(rows) == set(variants.VARIANTS)
    assert all(len(row["p50_ms"]) == len(row["tokens"]) for row in rows.values())
    tried = [row for row in rows.values() if "passed" in row]
    better = [*rows][: [*rows].index(about["variant"])]
    assert all(not rows[name]["passed"] for name in better)
    assert about["timing"]["is_sound"] or better == [] or better[0] == variants.PRESET
    assert about["variant"] == "fp32" or tried[-1]["name"] == about["variant"]


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
    package(Trial(student, multi_corpus, multi_task, LENIENT), bundle, lineage={})
    manifest = read_manifest(bundle)
    texts, targets = dev_of(multi_corpus, multi_task)
    name = "model_quantized.onnx" if manifest.precision == "int8" else "model.onnx"
    probs = 1 / (1 + np.exp(-logits_of(bundle / "onnx" / name, bundle, texts)))
    wanted = fit_thresholds(probs, targets)
    assert manifest.thresholds is not None
    np.testing.assert_allclose([manifest.thresholds[label] for label in multi_task.labels], wanted, atol=1e-5)
    assert (manifest.kind, manifest.max_tokens) == ("multi_label", 32)


def test_nothing_is_fitted_on_dev_rows_that_the_teacher_learned(
    small_student: Path, small_corpus: Path, small_task: Task, tmp_path: Path
) -> None:
    for learned in (False, True):
        (tmp_path / str(learned)).mkdir()
        given = Trial(small_student, small_corpus, small_task, LENIENT, dev_is_learned=learned)
        package(given, tmp_path / str(learned), lineage={})
    fitted, taught = (read_manifest(tmp_path / str(learned)) for learned in (False, True))
    assert fitted.export["temperature"] != 1
    assert taught.export["temperature"] == 1
    assert fitted.abstain is not None
    assert taught.abstain is not None
    assert fitted.abstain.rows > taught.abstain.rows == 0
    assert taught.abstain.threshold is None
    assert [gate.name for gate in taught.gates] == [gate.name for gate in fitted.gates]


_PLACES: dict[str, tuple[Any, int]] = {
    "quantize_int8": (variants, 1),
    "judge_int8": (trial, 1),
    "write_bundle": (module, 1),
    "rename": (Path, 2),
}


@pytest.mark.parametrize("place", _PLACES)
def test_an_interrupted_export_can_be_done_again_in_the_same_directory(
    small_student: Path,
    small_corpus: Path,
    small_task: Task,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    place: str,
) -> None:
    owner, after = _PLACES[place]
    calls: list[Any] = []

    original = getattr(owner, place)

    def interrupted(*given: Any, **options: Any) -> Any:
        result = original(*given, **options)
        calls.append(given)
        if len(calls) == after:
            raise KeyboardInterrupt
        return result

    monkeypatch.setattr(owner, place, interrupted)
    with pytest.raises(KeyboardInterrupt):
        package(Trial(small_student, small_corpus, small_task, LENIENT), tmp_path, lineage={})
    monkeypatch.undo()
    package(Trial(small_student, small_corpus, small_task, LENIENT), tmp_path, lineage={})
    assert verify_bundle(tmp_path) == []
    assert Predictor.load(tmp_path).predict("my parcel is late again")[0].label in small_task.labels


def test_a_file_that_decides_otherwise_than_fp32_is_made_again_from_even_inputs(
    small_student: Path, small_corpus: Path, small_task: Task, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shortlist, "_ENOUGH_AGREEMENT", 1.1)
    monkeypatch.setattr("export.smoothing._WORTH", 2.0)
    package(Trial(small_student, small_corpus, small_task, LENIENT), tmp_path, lineage={})
    manifest = read_manifest(tmp_path)
    evened = manifest.export["rewrites"][-1]
    assert (evened["applied"], evened["change"], manifest.precision) == (True, 0.0, "int8")
    assert evened["reason"].startswith("int8 error left: layers.0/")
    names = {node.name for node in onnx.load(tmp_path / "onnx" / "model_quantized.onnx").graph.node}
    assert any(name.endswith("_even_Mul") for name in names)
    assert verify_bundle(tmp_path) == []


def test_even_inputs_that_fail_a_gate_leave_the_file_that_passed(
    small_student: Path, small_corpus: Path, small_task: Task, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def ruined(source: Path, target: Path, *given: Any, **options: Any) -> Coverage:
        coverage = quantize_int8(source, target, *given, **options)
        if source.suffix == ".even":
            turned_over(target, (1, 3))
        return coverage

    monkeypatch.setattr(variants, "quantize_int8", ruined)
    monkeypatch.setattr(shortlist, "_ENOUGH_AGREEMENT", 1.1)
    monkeypatch.setattr("export.smoothing._WORTH", 2.0)
    package(Trial(small_student, small_corpus, small_task, ExportSpec()), tmp_path, lineage={})
    manifest = read_manifest(tmp_path)
    evened = manifest.export["rewrites"][-1]
    assert (evened["applied"], manifest.precision, manifest.export["kept_fp32"]) == (False, "int8", [])
    assert all(gate.passed for gate in manifest.gates)
    texts, _ = dev_of(small_corpus, small_task)
    sides = [logits_of(tmp_path / "onnx" / name, tmp_path, texts) for name in ("model.onnx", "model_quantized.onnx")]
    assert (sides[0].argmax(axis=1) == sides[1].argmax(axis=1)).mean() > 0.9
