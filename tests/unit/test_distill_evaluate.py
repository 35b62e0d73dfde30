"""Facts about the report: every number in it equals one computed directly, from other libraries where there are any."""

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from msgspec.structs import asdict
from sklearn.metrics import accuracy_score, f1_score, recall_score
from transformers import AutoModelForSequenceClassification, AutoTokenizer

from distill.audit import cross_validate_gold
from distill.baselines import ANSWERS, fit_tfidf_on_gold, save_answers
from distill.evaluate import Answers, RunPaths, answer_test, difference, quality, reliability, write_report
from distill.package import package
from distill.teach import TFIDF_ON_GOLD, LabelInputs, teach
from distill.trial import Trial
from export.bundle import read_manifest
from export.metrics import decode
from export.runtime import Predictor
from export.spec import ExportSpec
from teacher.calibrate import fit_temperature, fit_thresholds
from teacher.corpus import read_meta, read_part
from teacher.kinds import load_teacher
from teacher.spec import PrototypesSpec
from teacher.task import Task, TaskKind

SINGLE, MULTI = TaskKind.SINGLE_LABEL, TaskKind.MULTI_LABEL
ABOUT: dict[str, Any] = {"name": "small", "stages": [], "lineage": {"version": "0"}, "warnings": ["a warning"]}
ASSET = Path(__file__).parents[1] / "assets" / "report.json"


@pytest.fixture(scope="module")
def measured(
    small_corpus: Path,
    small_student: Path,
    small_task: Task,
    tiny_encoder: Path,
    tmp_path_factory: pytest.TempPathFactory,
) -> Path:
    """Return a folder with baselines/ (the student once more, and TF-IDF), audit/ and a bench/ of another run."""
    folder = tmp_path_factory.mktemp("evaluate")
    shutil.copytree(small_student, folder / "baselines" / "gold_only")
    save_answers(fit_tfidf_on_gold(small_corpus, small_task, 1), small_corpus, folder / "baselines" / ANSWERS)
    (folder / "audit").mkdir()
    cross_validate_gold(small_corpus, small_task, str(tiny_encoder), folder / "audit", 0, lambda rows: None)
    asset = json.loads(ASSET.read_text(encoding="utf-8"))
    (folder / "bench").mkdir()
    latency = {name: asset[name] for name in ("latency", "cold_start", "machine")}
    (folder / "bench" / "latency.json").write_text(json.dumps(latency))
    return folder


@pytest.fixture(scope="module")
def paths(
    small_corpus: Path,
    small_teacher: Path,
    small_labels: Path,
    small_student: Path,
    small_bundle: Path,
    measured: Path,
) -> RunPaths:
    return RunPaths(
        corpus=small_corpus,
        teacher=small_teacher,
        labels=small_labels,
        student=small_student,
        tuned=small_student,
        bundle=small_bundle,
        baselines=measured / "baselines",
        bench=measured / "bench",
        audit=measured / "audit",
    )


@pytest.fixture(scope="module")
def report(paths: RunPaths, small_task: Task, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    directory = tmp_path_factory.mktemp("report")
    write_report(paths, small_task, ABOUT, directory, seed=0)
    assert {path.name for path in directory.iterdir()} == {
        "report.json",
        "report.md",
        "report.html",
        "test_answers.npz",
        "label_errors.csv",
    }
    content: dict[str, Any] = json.loads((directory / "report.json").read_text(encoding="utf-8"))
    return content


@pytest.fixture(scope="module")
def truth(small_corpus: Path, small_task: Task) -> np.ndarray:
    test = read_part(small_corpus, "test")
    return small_task.targets([example.labels or () for example in test]).argmax(axis=1)


def texts(corpus: Path) -> list[str]:
    return [example.text for example in read_part(corpus, "test")]


def drawn(kind: TaskKind, seed: int = 0, rows: int = 80) -> tuple[Answers, np.ndarray]:
    generator = np.random.default_rng(seed)
    targets = (generator.random((rows, 4)) < 0.4).astype(np.float32)
    if kind is SINGLE:
        targets = np.eye(4, dtype=np.float32)[generator.integers(0, 4, rows)]
    probs = generator.dirichlet(np.ones(4), rows).astype(np.float32)
    probs = (0.6 * probs + 0.4 * targets * generator.random((rows, 1))).astype(np.float32)
    return Answers(probs, decode(kind.value, probs)), targets


def test_the_teachers_numbers_are_those_of_its_own_answers(
    report: dict[str, Any], paths: RunPaths, truth: np.ndarray
) -> None:
    decided = load_teacher(paths.teacher).label(texts(paths.corpus)).probs.argmax(axis=1)
    found = report["quality"]["teacher"]
    assert found["accuracy"] == pytest.approx(accuracy_score(truth, decided))
    assert found["macro_f1"] == pytest.approx(f1_score(truth, decided, average="macro"))
    assert found["n"] == len(truth) == 40


@pytest.mark.parametrize("precision", ["fp32", "int8"])
def test_the_students_numbers_are_those_of_the_shipped_files(
    report: dict[str, Any], paths: RunPaths, truth: np.ndarray, small_task: Task, precision: Any
) -> None:
    predictor = Predictor.load(paths.bundle, precision)
    decided = [small_task.labels.index(predictor.predict(text)[0].label or "") for text in texts(paths.corpus)]
    found = report["quality"][f"student_{precision}"]
    assert found["accuracy"] == pytest.approx(accuracy_score(truth, decided))
    assert found["macro_f1"] == pytest.approx(f1_score(truth, decided, average="macro"))


def test_the_rivals_numbers_are_those_of_their_own_answers(
    report: dict[str, Any], paths: RunPaths, truth: np.ndarray
) -> None:
    tokenizer = AutoTokenizer.from_pretrained(paths.baselines / "gold_only")
    model = AutoModelForSequenceClassification.from_pretrained(paths.baselines / "gold_only").eval()
    batch = tokenizer(texts(paths.corpus), padding=True, return_tensors="pt")
    decided = model(**batch).logits.argmax(dim=1).numpy()
    assert report["quality"]["gold_only"]["accuracy"] == pytest.approx(accuracy_score(truth, decided))
    for name, path in (
        ("tfidf_gold", paths.teacher / TFIDF_ON_GOLD),
        ("tfidf_soft", paths.baselines / ANSWERS),
    ):
        with np.load(path) as saved:
            wanted = accuracy_score(truth, saved["test"].argmax(axis=1))
        assert report["quality"][name]["accuracy"] == pytest.approx(wanted)


def test_the_gap_is_student_minus_teacher(report: dict[str, Any]) -> None:
    quality_of = report["quality"]
    wanted = quality_of["student_int8"]["accuracy"] - quality_of["teacher"]["accuracy"]
    assert report["gap"]["estimate"] == pytest.approx(wanted)
    assert report["gap"]["low"] <= wanted <= report["gap"]["high"]
    assert report["gap"]["metric"] == report["headline"] == "accuracy"


def test_the_report_shows_the_promise_of_the_bundle(report: dict[str, Any], paths: RunPaths) -> None:
    promise = read_manifest(paths.bundle).abstain
    assert promise is not None
    assert asdict(promise).items() <= report["abstain"].items()
    assert report["abstain"]["curve"][-1][:2] == [1.0, pytest.approx(report["quality"]["student_int8"]["accuracy"])]
    assert report["abstain"]["cascade"][-1] == [1.0, pytest.approx(report["quality"]["teacher"]["accuracy"])]


def test_gold_and_sizes_are_counted(report: dict[str, Any], paths: RunPaths) -> None:
    rows = read_meta(paths.corpus).rows
    assert report["gold"]["teacher"] == report["gold"]["student"] == rows["gold"] + rows["dev"]
    assert (report["gold"]["dev"], report["gold"]["pool"]) == (rows["dev"], rows["pool"])
    assert report["gold"]["share"] == pytest.approx((rows["gold"] + rows["dev"]) / (rows["pool"] + rows["dev"]))
    onnx = paths.bundle / "onnx"
    shipped, other = ((onnx / name).stat().st_size for name in ("model_quantized.onnx", "model.onnx"))
    assert (report["size"]["model_bytes"], report["size"]["fp32_bytes"]) == (shipped, other)
    files = sum(path.stat().st_size for path in paths.bundle.rglob("*") if path.is_file())
    listed = files - other - (paths.bundle / "potstill.json").stat().st_size
    assert report["size"]["bundle_bytes"] == listed
    parameters = load_teacher(paths.teacher).parameters
    assert report["size"]["teacher_parameters"] == parameters
    assert report["size"]["ratio"] == pytest.approx(4 * parameters / shipped)


def test_the_worst_classes_stand_first(
    report: dict[str, Any], paths: RunPaths, truth: np.ndarray, small_task: Task
) -> None:
    answers = answer_test(paths, small_task)
    decided = answers["student_int8"].probs.argmax(axis=1)
    f1 = f1_score(truth, decided, average=None)
    recall = recall_score(truth, decided, average=None)
    rows = report["worst_classes"]
    assert [row["f1"] for row in rows] == pytest.approx(sorted(f1))
    for row in rows:
        column = small_task.labels.index(row["label"])
        assert row["recall"] == pytest.approx(recall[column])
        assert row["n"] == int((truth == column).sum())


def test_disagreements_are_all_rows_where_student_and_teacher_differ(
    report: dict[str, Any], paths: RunPaths, small_task: Task
) -> None:
    answers = answer_test(paths, small_task)
    student, teacher = (answers[name].probs for name in ("student_int8", "teacher"))
    differing = {
        text: (small_task.labels[ours], small_task.labels[theirs])
        for text, ours, theirs in zip(texts(paths.corpus), student.argmax(axis=1), teacher.argmax(axis=1), strict=True)
        if ours != theirs
    }
    found = {row["text"]: (row["student"], row["teacher"]) for row in report["disagreements"]}
    assert len(found) == min(len(differing), 20)
    assert found.items() <= differing.items()
    confidence = [row["student_probability"] for row in report["disagreements"]]
    assert confidence == sorted(confidence, reverse=True)


@pytest.mark.parametrize("learned", [False, True])
def test_probabilities_are_those_of_the_bundle_and_fitted_nowhere_else(
    paths: RunPaths, small_task: Task, tmp_path: Path, learned: bool
) -> None:
    spec = ExportSpec(precision="fp32")
    package(Trial(paths.tuned, paths.corpus, small_task, spec, dev_is_learned=learned), tmp_path, lineage={})
    predictor = Predictor.load(tmp_path)
    found = answer_test(replace(paths, bundle=tmp_path), small_task)["student_fp32"].probs
    wanted = [
        [predictor.predict(text)[0].probabilities[label] for label in small_task.labels] for text in texts(paths.corpus)
    ]
    np.testing.assert_allclose(found, wanted, atol=1e-5)


def test_the_report_carries_what_the_conductor_knows(report: dict[str, Any], paths: RunPaths) -> None:
    assert (report["name"], report["warnings"], report["lineage"]) == ("small", ["a warning"], {"version": "0"})
    assert [gate["name"] for gate in report["gates"]] == [gate.name for gate in read_manifest(paths.bundle).gates]
    assert report["cost"] == {"teacher_usd": None, "per_million_usd": None, "break_even": None}
    assert report["vocabulary"]["before"] == 218


@pytest.mark.parametrize("kind", list(TaskKind))
def test_quality_is_that_of_another_library(kind: TaskKind) -> None:
    given, targets = drawn(kind)
    found = quality(kind, given, targets, seed=0)
    if kind is SINGLE:
        accuracy = accuracy_score(targets.argmax(axis=1), given.probs.argmax(axis=1))
    else:
        accuracy = accuracy_score(targets, given.decided)
    assert found["accuracy"] == pytest.approx(accuracy)
    assert found["macro_f1"] == pytest.approx(f1_score(targets, given.decided, average="macro"))
    assert found["accuracy_low"] < accuracy < found["accuracy_high"]
    assert found["macro_f1_low"] < found["macro_f1"] < found["macro_f1_high"]


def test_an_interval_has_the_width_of_its_binomial() -> None:
    given, targets = drawn(SINGLE, rows=400)
    found = quality(SINGLE, given, targets, seed=0)
    half = 1.96 * np.sqrt(found["accuracy"] * (1 - found["accuracy"]) / 400)
    assert found["accuracy_high"] - found["accuracy_low"] == pytest.approx(2 * half, rel=0.1)


@pytest.mark.parametrize("kind", list(TaskKind))
def test_a_difference_is_ours_minus_theirs(kind: TaskKind) -> None:
    (ours, targets), (theirs, _) = drawn(kind), drawn(kind, seed=1)
    measure = "accuracy" if kind is SINGLE else "macro_f1"
    wanted = quality(kind, ours, targets, 0)[measure] - quality(kind, theirs, targets, 0)[measure]
    found = difference(kind, ours, theirs, targets, seed=0)
    assert found.estimate == pytest.approx(wanted)
    assert wanted > 0.1
    assert found.low < wanted < found.high
    assert difference(kind, ours, ours, targets, seed=0).low == 0


def test_reliability_bins_hold_every_row_once() -> None:
    given, targets = drawn(SINGLE)
    bins = reliability(SINGLE, given.probs, targets)
    confidence = given.probs.max(axis=1)
    right = given.probs.argmax(axis=1) == targets.argmax(axis=1)
    assert sum(rows for _, _, rows in bins) == len(targets)
    for mean, share, rows in bins:
        inside = np.floor(confidence * 10) == np.floor(mean * 10)
        assert (share, rows) == (pytest.approx(right[inside].mean()), inside.sum())
        assert mean == pytest.approx(confidence[inside].mean(), rel=1e-5)


def test_multi_label_decisions_take_their_thresholds_from_dev(
    multi_corpus: Path, multi_task: Task, paths: RunPaths, tiny_classifier: Path, tmp_path: Path
) -> None:
    tokenizer = AutoTokenizer.from_pretrained(tiny_classifier)
    tokenizer.model_max_length = 32
    for folder in ("student", "baselines/gold_only"):
        AutoModelForSequenceClassification.from_pretrained(
            tiny_classifier, problem_type="multi_label_classification"
        ).save_pretrained(tmp_path / folder)
        tokenizer.save_pretrained(tmp_path / folder)
    spec = PrototypesSpec(model=str(tiny_classifier), max_tokens=32)
    teach(spec, LabelInputs(multi_corpus, multi_task), tmp_path / "teacher")
    shutil.copy(tmp_path / "teacher" / TFIDF_ON_GOLD, tmp_path / "baselines" / ANSWERS)
    (tmp_path / "bundle").mkdir()
    fp32 = ExportSpec(precision="fp32")
    package(Trial(tmp_path / "student", multi_corpus, multi_task, fp32), tmp_path / "bundle", lineage={})
    given = answer_test(
        RunPaths(
            multi_corpus,
            tmp_path / "teacher",
            tmp_path / "labels",
            tmp_path / "student",
            tmp_path / "student",
            tmp_path / "bundle",
            tmp_path / "baselines",
            paths.bench,
            paths.audit,
        ),
        multi_task,
    )
    assert "student_int8" not in given
    dev = read_part(multi_corpus, "dev")
    targets = multi_task.targets([example.labels or () for example in dev])
    probs = load_teacher(tmp_path / "teacher").label([example.text for example in dev]).probs
    thresholds = fit_thresholds(probs, targets)
    np.testing.assert_array_equal(given["teacher"].decided, given["teacher"].probs >= thresholds)
    assert fit_temperature(MULTI, np.log(probs / (1 - probs)), targets) == pytest.approx(1, abs=0.02)
