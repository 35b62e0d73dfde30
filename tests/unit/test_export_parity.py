import json
import shutil
import unicodedata
from pathlib import Path

import numpy as np
import pytest

from export.classifier import OnnxClassifier
from export.coverage import Coverage, judge_coverage
from export.errors import ExportError
from export.graph import export_graph
from export.head import finish_head
from export.invariance import judge_company
from export.parity import generate_texts, judge_tokenizer
from export.quantize import quantize_int8

TEXTS = ["my parcel has not arrived", "the invoice is wrong", "these shoes run large", "hello"]


def test_generated_texts_hold_what_parts_tokenizers() -> None:
    text = "".join(generate_texts(2000, seed=0))
    kinds = {unicodedata.category(character) for character in set(text)}
    names = {unicodedata.name(character, "").partition(" ")[0] for character in set(text)}
    assert {"Cc", "Cf", "Mn", "So", "Zs", "Sk"} <= kinds
    assert {"CYRILLIC", "ARABIC", "CJK", "HANGUL", "DEVANAGARI", "THAI"} <= names
    assert "👩‍💻" in text
    assert generate_texts(5, seed=1) == generate_texts(5, seed=1) != generate_texts(5, seed=2)


def test_a_saved_tokenizer_splits_as_transformers_does(tiny_classifier: Path) -> None:
    gate = judge_tokenizer(tiny_classifier, TEXTS, 16)
    assert (gate.name, gate.value, gate.passed) == ("tokenizer_parity", 0, True)
    assert "texts of 10000 that" in gate.detail


def test_settings_that_only_transformers_reads_are_found_by_a_text(tiny_classifier: Path, tmp_path: Path) -> None:
    shutil.copytree(tiny_classifier, tmp_path / "student")
    path = tmp_path / "student" / "tokenizer_config.json"
    settings = json.loads(path.read_text(encoding="utf-8"))
    path.write_text(json.dumps(settings | {"do_lower_case": False}), encoding="utf-8")
    gate = judge_tokenizer(tmp_path / "student", ["My Parcel"], 16)
    assert not gate.passed
    assert "first 'My Parcel'" in gate.detail


def test_a_folder_without_a_tokenizer_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ExportError, match="does not open") as caught:
        judge_tokenizer(tmp_path, TEXTS, 16)
    assert "save the checkpoint again" in str(caught.value)


@pytest.fixture(scope="module")
def finished(tiny_classifier: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, OnnxClassifier]:
    folder = tmp_path_factory.mktemp("finished")
    export_graph(tiny_classifier, folder / "fp32.onnx")
    quantize_int8(folder / "fp32.onnx", folder / "int8.onnx")
    for name in ("fp32", "int8"):
        finish_head(folder / f"{name}.onnx", "single_label", 0.05)
    tokenizer = tiny_classifier / "tokenizer.json"
    return {name: OnnxClassifier(folder / f"{name}.onnx", tokenizer, 64) for name in ("fp32", "int8")}


@pytest.mark.parametrize(("precision", "largest"), [("fp32", 1e-9), ("int8", 1e-3)])
def test_company_shifts_int8_answers_a_little_and_fp32_answers_not_at_all(
    finished: dict[str, OnnxClassifier], precision: str, largest: float
) -> None:
    classifier = finished[precision]
    alone = classifier.run_each(classifier.encode_many(TEXTS), "probabilities")
    gates = judge_company(classifier, TEXTS, "single_label", alone, 0.02)
    assert [gate.name for gate in gates] == ["padding_shift", "batch_shift"]
    assert max(abs(gate.value) for gate in gates) < largest
    assert (precision == "fp32") == (max(abs(gate.value) for gate in gates) < 1e-9)


def test_answers_that_padding_changes_are_rejected(finished: dict[str, OnnxClassifier]) -> None:
    classifier = finished["fp32"]
    alone = classifier.run_each(classifier.encode_many(TEXTS), "probabilities")
    gates = judge_company(classifier, TEXTS, "single_label", np.roll(alone, 1, axis=1), 1e-6)
    assert [gate.passed for gate in gates] == [False, False]
    assert "largest shift" in gates[0].detail


def test_work_left_in_fp32_is_rejected_unless_it_was_kept_on_purpose() -> None:
    coverage = Coverage(int8_macs_share=0.8, int8_matmuls=8, fp32_matmuls=2)
    assert not judge_coverage(coverage, []).passed
    kept = judge_coverage(coverage, ["layers.1"])
    assert kept.passed
    assert kept.detail.endswith("kept fp32: layers.1")
