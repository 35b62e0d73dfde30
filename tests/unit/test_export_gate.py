import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from numpy.typing import NDArray
from transformers import AutoModelForSequenceClassification, AutoTokenizer

from export.errors import ExportError
from export.gate import Comparison, Gate, judge_int8
from export.graph import export_graph
from export.metrics import sigmoid, softmax
from export.quantize import quantize_int8
from export.runtime import OnnxClassifier
from export.spec import ExportSpec

LABELS = ("delivery", "payment", "size", "return")
SPEC = ExportSpec()


def _logits(rows: int, seed: int) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Return logits (rows, 4) of a model that is right on about 9 of 10 rows, and the one-hot targets."""
    generator = np.random.default_rng(seed)
    truth = np.arange(rows) % len(LABELS)
    logits = generator.normal(size=(rows, len(LABELS))).astype(np.float32)
    logits[np.arange(rows), truth] += 3.0
    return logits, np.eye(len(LABELS), dtype=np.float32)[truth]


DEV, TARGETS = _logits(400, seed=0)
POOL, _ = _logits(600, seed=1)


def _comparison(damage: Any, kind: str = "single_label") -> Comparison:
    activate = softmax if kind == "single_label" else sigmoid
    return Comparison(
        kind=kind,
        labels=LABELS,
        targets=TARGETS,
        fp32=activate(DEV),
        int8=activate(damage(DEV.copy())),
        pool_fp32=activate(POOL),
        pool_int8=activate(damage(POOL.copy())),
    )


def _failed(gates: list[Gate]) -> set[str]:
    return {gate.name for gate in gates if not gate.passed}


def _little_noise(logits: NDArray[np.float32]) -> NDArray[np.float32]:
    return logits + np.random.default_rng(2).normal(scale=0.02, size=logits.shape).astype(np.float32)


def _much_noise(logits: NDArray[np.float32]) -> NDArray[np.float32]:
    return logits + np.random.default_rng(2).normal(scale=2.0, size=logits.shape).astype(np.float32)


def _forget_payment(logits: NDArray[np.float32]) -> NDArray[np.float32]:
    logits[:, 1] -= 1.8
    return logits


def _overconfident(logits: NDArray[np.float32]) -> NDArray[np.float32]:
    return logits * 6


def _swap_labels(logits: NDArray[np.float32]) -> NDArray[np.float32]:
    return logits[:, [1, 0, 2, 3]]


@pytest.mark.parametrize("kind", ["single_label", "multi_label"])
def test_a_model_with_rounding_noise_passes_every_gate(kind: str) -> None:
    gates = judge_int8(_comparison(_little_noise, kind), SPEC)
    assert _failed(gates) == set()
    assert [gate.name for gate in gates] == [
        "not_a_number",
        "quality_drop",
        "kl_divergence",
        "worst_class_drop",
        "calibration_rise",
    ]


@pytest.mark.parametrize("kind", ["single_label", "multi_label"])
@pytest.mark.parametrize(
    ("damage", "reason"),
    [
        (_much_noise, "quality_drop"),
        (_much_noise, "kl_divergence"),
        (_swap_labels, "quality_drop"),
        (_forget_payment, "worst_class_drop"),
        (_overconfident, "kl_divergence"),
    ],
)
def test_a_damaged_model_fails_and_the_reason_is_named(kind: str, damage: Any, reason: str) -> None:
    assert reason in _failed(judge_int8(_comparison(damage, kind), SPEC))


def test_doubt_in_the_same_answers_fails_on_calibration_and_not_on_quality() -> None:
    failed = _failed(judge_int8(_comparison(lambda logits: logits / 6), SPEC))
    assert "calibration_rise" in failed
    assert "quality_drop" not in failed


def test_a_rise_of_the_calibration_error_that_few_rows_cannot_tell_from_noise_passes() -> None:
    few, many = (
        replace(given, targets=TARGETS[rows], fp32=given.fp32[rows], int8=given.int8[rows])
        for given in [_comparison(lambda logits: logits / 1.1)]
        for rows in (np.arange(0, len(TARGETS), 40), np.arange(len(TARGETS)))
    )
    gates = [next(gate for gate in judge_int8(given, SPEC) if gate.name == "calibration_rise") for given in (few, many)]
    assert min(gate.value for gate in gates) > SPEC.max_calibration_rise
    assert [gate.passed for gate in gates] == [True, False]


def test_the_worst_class_is_named_with_its_rows() -> None:
    gates = {gate.name: gate for gate in judge_int8(_comparison(_forget_payment), SPEC)}
    assert "'payment' lost" in gates["worst_class_drop"].detail
    assert "of its 100 dev rows" in gates["worst_class_drop"].detail


def test_two_lost_rows_of_a_small_class_do_not_count_against_it() -> None:
    given = _comparison(_little_noise)
    right = np.flatnonzero((given.fp32.argmax(axis=1) == 0) & (TARGETS[:, 0] == 1))[:3]
    keep = np.r_[right, np.flatnonzero(TARGETS[:, 0] == 0)]
    small = replace(given, targets=TARGETS[keep], fp32=given.fp32[keep], int8=given.fp32[keep])
    drops = []
    for lost in (2, 3):
        int8 = small.int8.copy()
        int8[:lost] = [0.1, 0.7, 0.1, 0.1]
        gates = {gate.name: gate for gate in judge_int8(replace(small, int8=int8), SPEC)}
        drops.append(gates["worst_class_drop"].value)
    assert drops == [0.0, 1.0]


def test_a_drop_within_noise_passes_up_to_two_rows() -> None:
    given = _comparison(lambda logits: logits)
    rows = slice(0, 40)
    passed = []
    for lost in (2, 3):
        right = np.flatnonzero(given.fp32[rows].argmax(axis=1) == TARGETS[rows].argmax(axis=1))[:lost]
        int8 = given.int8[rows].copy()
        int8[right] = np.roll(int8[right], 1, axis=1)
        few = replace(given, targets=TARGETS[rows], fp32=given.fp32[rows], int8=int8)
        passed.append({gate.name: gate.passed for gate in judge_int8(few, SPEC)}["quality_drop"])
    assert passed == [True, False]


@pytest.mark.parametrize("field", ["fp32", "int8", "pool_fp32", "pool_int8"])
@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_one_answer_that_is_no_number_fails_alone(field: str, value: float) -> None:
    given = _comparison(_little_noise)
    probs = getattr(given, field).copy()
    probs[5, 2] = value
    gates = judge_int8(replace(given, **{field: probs}), SPEC)
    assert [(gate.name, gate.value, gate.passed) for gate in gates] == [("not_a_number", 1, False)]


def test_thresholds_decide_what_a_multi_label_gate_sees() -> None:
    given = replace(_comparison(_little_noise, "multi_label"), int8=sigmoid(DEV - 1.5))
    strict = {gate.name: gate.value for gate in judge_int8(given, SPEC)}
    low = np.full(4, 0.05, np.float32)
    lenient = replace(given, fp32_thresholds=low, int8_thresholds=low)
    loose = {gate.name: gate.value for gate in judge_int8(lenient, SPEC)}
    assert strict["quality_drop"] != loose["quality_drop"]


def test_arrays_of_different_texts_are_refused() -> None:
    given = _comparison(_little_noise)
    with pytest.raises(ExportError, match=r"int8 has shape \(399, 4\), wanted \(400, 4\)") as caught:
        judge_int8(replace(given, int8=given.int8[1:]), SPEC)
    assert "same texts" in str(caught.value)


def test_gates_without_a_dev_row_are_refused() -> None:
    given = _comparison(_little_noise)
    none = {name: getattr(given, name)[:0] for name in ("targets", "fp32", "int8")}
    with pytest.raises(ExportError, match="no dev row") as caught:
        judge_int8(replace(given, **none), SPEC)
    assert "data.dev" in str(caught.value)


def test_a_pool_without_texts_is_no_obstacle() -> None:
    given = _comparison(_little_noise)
    none = {name: getattr(given, name)[:0] for name in ("pool_fp32", "pool_int8")}
    assert _failed(judge_int8(replace(given, **none), SPEC)) == set()


SUBJECTS = ("my parcel", "the courier", "my card", "the invoice", "the shirt", "these shoes")
SAYINGS = ("has not arrived", "is late again", "was declined", "is wrong", "is too small", "does not fit")
TEXTS = [
    f"{opening} {subject} {saying}"
    for opening in ("hello", "sorry but", "well")
    for subject in SUBJECTS
    for saying in SAYINGS
]
TRUTH = np.eye(3, dtype=np.float32)[np.arange(len(TEXTS)) // (2 * len(SAYINGS)) % 3]


@pytest.fixture(scope="module")
def sharp_models(tiny_classifier: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Return fp32 and int8 files of a tiny model that tells at least some of TEXTS apart."""
    folder = tmp_path_factory.mktemp("sharp")
    model = AutoModelForSequenceClassification.from_pretrained(tiny_classifier).eval()
    tokens = AutoTokenizer.from_pretrained(tiny_classifier)(TEXTS, padding=True, return_tensors="pt")
    with torch.no_grad():
        for weight in model.bert.parameters():
            if weight.dim() == 2:
                weight.mul_(8)  # the small random start of BERT gives all texts nearly the same features
        features = model.bert(**tokens).pooler_output
        ridge = features.T @ features + torch.eye(features.shape[1])
        head = torch.linalg.solve(ridge, features.T @ (torch.from_numpy(TRUTH) * 16 - 8))
        model.classifier.weight.copy_(head.T)
        model.classifier.bias.zero_()
    shutil.copytree(tiny_classifier, folder / "checkpoint")
    model.save_pretrained(folder / "checkpoint")
    export_graph(folder / "checkpoint", folder / "fp32.onnx")
    quantize_int8(folder / "fp32.onnx", folder / "int8.onnx")
    return folder / "fp32.onnx", folder / "int8.onnx"


def _wrong_scale(model: onnx.ModelProto) -> None:
    _change(model, "head.1.weight_scale", lambda values: values * 3)


def _dropped_layer(model: onnx.ModelProto) -> None:
    names = (tensor.name for tensor in model.graph.initializer if tensor.name.endswith("_scale"))
    _change(model, next(name for name in names if "word" in name), lambda values: values * 0)


def _lost_bias(model: onnx.ModelProto) -> None:
    _change(model, "head.1.bias", lambda values: values + np.array([0, 3, 0], np.float32))


def _no_number(model: onnx.ModelProto) -> None:
    _change(model, "head.1.bias", lambda values: values * np.float32(np.nan))


def _change(model: onnx.ModelProto, name: str, change: Any) -> None:
    tensor = next(tensor for tensor in model.graph.initializer if tensor.name == name)
    tensor.CopyFrom(onnx.numpy_helper.from_array(change(onnx.numpy_helper.to_array(tensor)), name))


def _judge_files(tokenizer: Path, fp32_model: Path, int8_model: Path) -> list[Gate]:
    fp32, int8 = (softmax(OnnxClassifier(path, tokenizer, 64).logits(TEXTS)) for path in (fp32_model, int8_model))
    sure = fp32.max(axis=1) > 0.85
    truth = np.eye(3)[fp32.argmax(axis=1)]
    given = Comparison("single_label", LABELS[:3], truth[sure], fp32[sure], int8[sure], fp32[:0], int8[:0])
    return judge_int8(given, SPEC)


def test_a_faithful_int8_file_passes(tiny_classifier: Path, sharp_models: tuple[Path, Path]) -> None:
    assert _failed(_judge_files(tiny_classifier / "tokenizer.json", *sharp_models)) == set()


@pytest.mark.parametrize("damage", [_wrong_scale, _dropped_layer, _lost_bias, _no_number])
def test_an_int8_file_with_damaged_weights_is_rejected(
    tiny_classifier: Path, sharp_models: tuple[Path, Path], tmp_path: Path, damage: Any
) -> None:
    model = onnx.load(sharp_models[1])
    damage(model)
    onnx.save(model, tmp_path / "damaged.onnx")
    gates = _judge_files(tiny_classifier / "tokenizer.json", sharp_models[0], tmp_path / "damaged.onnx")
    assert _failed(gates) != set()
