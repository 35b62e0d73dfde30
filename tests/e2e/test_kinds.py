"""Runs of another kind: several labels a text, a committee, a teacher too weak, an int8 file that is damaged."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

from distill import shortlist
from export import variants
from export.runtime import Predictor
from teacher.soft_labels import read_store
from tests.conftest import LABELS
from tests.e2e.conftest import CONFIG, MakeProject, Outcome, Project, two_wishes


def read(path: Path) -> Any:
    """Return the JSON value in `path`."""
    return json.loads(path.read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def multi_label(make_project: MakeProject, tmp_path_factory: pytest.TempPathFactory) -> tuple[Project, Outcome]:
    """Return a finished multi-label run."""
    project = make_project(
        tmp_path_factory.mktemp("multi"),
        two_wishes(),
        task={"kind": "multi_label"},
        train=CONFIG["train"] | {"epochs": 10},
    )
    return project, project.distill("run")


def test_a_multi_label_run_puts_a_threshold_for_each_label_into_the_bundle(
    multi_label: tuple[Project, Outcome],
) -> None:
    project, outcome = multi_label
    assert outcome.code == 0, outcome.err
    thresholds = read(project.run / "bundle" / "potstill.json")["thresholds"]
    assert thresholds.keys() == set(LABELS)
    assert all(0 < threshold < 1 for threshold in thresholds.values())


def test_a_multi_label_bundle_answers_with_two_labels(multi_label: tuple[Project, Outcome]) -> None:
    project, _ = multi_label
    both, one = Predictor.load(project.run / "bundle").predict(
        ["my parcel never came and my card was declined", "my parcel never came"]
    )
    assert set(both.labels) == {"delivery", "payment"}
    assert one.labels == ("delivery",)


def test_a_multi_label_report_is_headed_by_macro_f1(multi_label: tuple[Project, Outcome]) -> None:
    project, _ = multi_label
    report = read(project.run / "report.json")
    assert report["headline"] == report["gap"]["metric"] == "macro_f1"
    assert report["quality"]["student_int8"]["macro_f1"] > 0.8


def test_soft_labels_of_a_multi_label_teacher_do_not_share_one_unit_of_mass(
    multi_label: tuple[Project, Outcome],
) -> None:
    project, _ = multi_label
    store = read_store(project.run / "labels")
    sums = store.probs([f"{key:016x}" for key in store._keys]).sum(axis=1)
    assert sums.max() > 1.5


def test_a_committee_teaches_with_weights_for_each_class(finished: tuple[Project, Outcome], tmp_path: Path) -> None:
    project = finished[0].copy(tmp_path, "corpus")
    member = json.dumps(CONFIG["teacher"] | {"epochs": 3})
    outcome = project.distill(
        "export",
        "train.epochs=12",
        f"teacher={{kind: committee, members: [{{kind: prototypes, model: encoder}}, {member}]}}",
    )
    weights = read(project.run / "teacher" / "teacher.json")["details"]["weights"]
    answer = Predictor.load(project.run / "bundle").predict("my parcel never came")[0]
    assert outcome.code == 0, outcome.err
    assert len(weights) == 2
    assert [round(sum(column), 5) for column in zip(*weights, strict=True)] == [1.0] * len(LABELS)
    assert answer.label == "delivery"


def test_a_teacher_no_better_than_tfidf_stops_the_run_with_advice(
    finished: tuple[Project, Outcome], tmp_path: Path
) -> None:
    project = finished[0].copy(tmp_path, "corpus", "teacher")
    outcome = project.distill("run", "label.weak_teacher=stop")
    assert outcome.code == 1
    assert "no better than TF-IDF" in outcome.last_line
    assert "give more gold, improve the teacher" in outcome.last_line
    assert "label.weak_teacher=warn" in outcome.last_line
    assert not (project.run / "labels").exists()


@pytest.mark.usefixtures("quick_cold_start")
def test_a_damaged_int8_file_fails_its_gates_and_fp32_ships_with_a_report(
    finished: tuple[Project, Outcome], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    project = finished[0].copy(tmp_path, "corpus", "teacher", "labels", "student", "tuned", "baselines")
    quantize = variants.quantize_int8

    def quantize_badly(source: Path, target: Path, *given: Any, **options: Any) -> object:
        coverage = quantize(source, target, *given, **options)
        model = onnx.load(target)
        bias = next(weight for weight in model.graph.initializer if weight.name == "head.1.bias")
        bias.CopyFrom(onnx.numpy_helper.from_array(np.array([1e3, 0, 0], np.float32), bias.name))
        onnx.save(model, target)
        return coverage

    for module in (variants, shortlist):
        monkeypatch.setattr(module, "quantize_int8", quantize_badly)
    outcome = project.distill("run")
    manifest = read(project.run / "bundle" / "potstill.json")
    report = read(project.run / "report.json")
    assert outcome.code == 1
    assert "ships fp32 instead" in outcome.last_line
    assert manifest["precision"] == "fp32"
    assert "onnx/model_quantized.onnx" not in manifest["files"]
    assert [gate["name"] for gate in report["gates"] if not gate["passed"]]
    assert "student_int8" not in report["quality"]
    assert project.call("verify", str(project.run / "bundle")).code == 0


@pytest.mark.usefixtures("quick_cold_start")
def test_a_bundle_that_refuses_long_texts_is_timed_on_the_texts_it_answers(
    finished: tuple[Project, Outcome], tmp_path: Path
) -> None:
    project = finished[0].copy(tmp_path, "corpus", "teacher", "labels")
    short = ["student.max_tokens=8", "train.epochs=1", "tune=null", "export.too_long=refuse"]
    outcome = project.distill("bench", *short, "export.precision=fp32")
    answers = project.call("predict", str(project.run / "bundle"), "please help my parcel was left outside")
    assert outcome.code == 0, outcome.err
    assert read(project.run / "bench" / "latency.json")["latency"]["student_fp32"]["n"] == 100
    assert answers.code == 1
    assert "more than the 8 tokens" in answers.out
