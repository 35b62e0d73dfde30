import json
import shutil
from functools import partial
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForSequenceClassification

from distill.spec import TrainSpec, TuneSpec
from distill.train import TrainInputs, read_metrics, train_student
from distill.tune import tune_student
from student.coding import embed_by_codes, read_codes
from student.sharing import choose_owners
from student.spec import StudentSpec
from teacher.task import Task


@pytest.fixture
def inputs(small_corpus: Path, small_labels: Path, small_task: Task) -> TrainInputs:
    return TrainInputs(small_corpus, small_labels, small_task)


def student_scored(source: Path, target: Path, score: float) -> Path:
    """Copy a student and claim that it scored `score` on dev."""
    copied = Path(shutil.copytree(source, target))
    metrics = json.loads((copied / "metrics.json").read_text())
    (copied / "metrics.json").write_text(json.dumps(metrics | {"dev_score": score}))
    return copied


def tuned(inputs: TrainInputs, student: Path, tune: TuneSpec | None, directory: Path) -> dict[str, object]:
    directory.mkdir()
    tune_student(inputs, student, TrainSpec(), tune, directory)
    return read_metrics(directory)


def test_a_tuned_student_that_scores_higher_on_dev_is_kept(
    inputs: TrainInputs, small_student: Path, tmp_path: Path
) -> None:
    student = student_scored(small_student, tmp_path / "student", 0.1)
    metrics = tuned(inputs, student, TuneSpec(epochs=2, learning_rate=1e-3), tmp_path / "tuned")
    assert (metrics["kept"], metrics["dev_score_untuned"]) == ("tuned", 0.1)
    assert metrics["dev_score"] == metrics["dev_score_tuned"]
    assert _weights(tmp_path / "tuned") != _weights(student)


def test_a_tuned_student_that_is_no_better_is_thrown_away(
    inputs: TrainInputs, small_student: Path, tmp_path: Path
) -> None:
    student = student_scored(small_student, tmp_path / "student", 1.0)
    metrics = tuned(inputs, student, TuneSpec(epochs=2, learning_rate=1e-3), tmp_path / "tuned")
    assert (metrics["kept"], metrics["dev_score"]) == ("untuned", 1.0)
    assert metrics["dev_score_tuned"] is not None
    assert _weights(tmp_path / "tuned") == _weights(student)


def test_tuning_that_ruins_the_student_changes_nothing(
    inputs: TrainInputs, small_student: Path, tmp_path: Path
) -> None:
    metrics = tuned(inputs, small_student, TuneSpec(epochs=2, learning_rate=0.9), tmp_path / "tuned")
    assert metrics["kept"] == "untuned"
    assert _weights(tmp_path / "tuned") == _weights(small_student)


def test_codes_stay_in_training_and_in_tuning_while_rows_learn(
    inputs: TrainInputs, small_teacher: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    few = partial(choose_owners, fewest_others=0)
    monkeypatch.setattr("distill.train.choose_owners", lambda *given, least_rows: few(*given, least_rows=0))
    spec, train = StudentSpec(layers=1), TrainSpec(epochs=1, hidden_weight=0)
    train_student(inputs, str(small_teacher), None, spec, train, tmp_path / "student")
    student = student_scored(tmp_path / "student", tmp_path / "copy", -1.0)
    tuned(inputs, student, TuneSpec(epochs=1, learning_rate=1e-3), tmp_path / "tuned")
    trained, after = (read_codes(tmp_path / folder) for folder in ("student", "tuned"))
    assert trained is not None
    assert after is not None
    assert torch.equal(trained.codes, after.codes)
    assert not torch.equal(trained.offset, after.offset)
    assert len(trained.owners) == read_metrics(tmp_path / "tuned")["vocabulary"]["after"] < 218
    for folder, coded in (("student", trained), ("tuned", after)):
        model = AutoModelForSequenceClassification.from_pretrained(tmp_path / folder)
        table = model.get_input_embeddings().weight.detach().clone()
        embed_by_codes(model, coded)
        torch.testing.assert_close(model.get_input_embeddings().table(), table)
    assert _weights(tmp_path / "tuned") != _weights(tmp_path / "student")


def test_without_a_tune_section_the_student_goes_on_as_it_is(
    inputs: TrainInputs, small_student: Path, tmp_path: Path
) -> None:
    metrics = tuned(inputs, small_student, None, tmp_path / "tuned")
    assert (metrics["kept"], metrics["dev_score_tuned"], metrics["log"]) == ("untuned", None, [])
    assert _weights(tmp_path / "tuned") == _weights(small_student)
    assert metrics["max_tokens"] == read_metrics(small_student)["max_tokens"]


def _weights(directory: Path) -> bytes:
    return (directory / "model.safetensors").read_bytes()
