"""A whole run with a student that has no layers: the same stages, the same bundle, the same clients."""

import json
from pathlib import Path

import pytest

from export.runtime import Predictor
from tests.conftest import LABELS
from tests.e2e.conftest import Outcome, Project
from tests.processes import start

STATIC = "student={kind: static, width: 16, ngram_rows: 500, ngram_width: 8, intermediate: 16}"
Finished = tuple[Project, Outcome]


@pytest.fixture(scope="module")
def static(finished: Finished, tmp_path_factory: pytest.TempPathFactory) -> Finished:
    """Return a project whose run made a static student, and what `distill run` said."""
    project = finished[0].copy(tmp_path_factory.mktemp("static"), "corpus", "teacher", "labels")
    return project, project.distill("run", STATIC, "train.batch_size=16")


def test_the_run_ends_with_a_report_and_an_int8_bundle_that_verifies(static: Finished) -> None:
    project, outcome = static
    assert outcome.code == 0, outcome.err
    assert "student_fp32  accuracy" in outcome.err
    assert json.loads((project.run / "bundle" / "potstill.json").read_text(encoding="utf-8"))["precision"] == "int8"
    assert project.call("verify", str(project.run / "bundle")).code == 0


def test_the_static_student_answers_every_test_text_like_the_pool_it_learned(static: Finished) -> None:
    project, _ = static
    rows = [line.rsplit(",", 1) for line in (project.folder / "test.csv").read_text(encoding="utf-8").splitlines()[1:]]
    answers = Predictor.load(project.run / "bundle").predict([text for text, _ in rows])
    right = [answer.label == label for answer, (_, label) in zip(answers, rows, strict=True)]
    assert {label for _, label in rows} == set(LABELS)
    assert sum(right) > 0.9 * len(right)


def test_the_bundle_names_a_class_that_every_client_knows(static: Finished) -> None:
    from transformers import AutoConfig

    project, _ = static
    config = AutoConfig.from_pretrained(project.run / "bundle")
    assert (config.model_type, config.problem_type) == ("bert", "single_label_classification")
    assert list(config.id2label.values()) == list(LABELS)


def test_the_checkpoint_opens_in_another_process_that_imports_the_student(static: Finished, tmp_path: Path) -> None:
    project, _ = static
    program = (
        "import sys, student.static\n"
        "from transformers import AutoModelForSequenceClassification\n"
        "print(AutoModelForSequenceClassification.from_pretrained(sys.argv[1]).config.id2label[0])\n"
    )
    child = start(program, [str(project.run / "tuned")], tmp_path / "log")
    assert child.end() == 0, child.said()
    assert child.said().splitlines()[-1] == LABELS[0]
