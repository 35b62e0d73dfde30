from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from distill.baselines import ANSWERS, fit_baselines, fit_tfidf_on_gold, read_answers, save_answers
from distill.spec import TrainSpec
from distill.teach import LabelInputs, label, teach
from distill.tfidf import TfidfClassifier
from distill.train import TrainInputs, read_metrics
from student.spec import StudentSpec
from teacher.corpus import read_part
from teacher.soft_labels import read_store
from teacher.spec import LabelSpec, PrototypesSpec
from teacher.task import Task


def texts_of(corpus: Path, part: str) -> list[str]:
    return [example.text for example in read_part(corpus, part)]  # type: ignore[arg-type]


@pytest.fixture
def quick_rival(monkeypatch: pytest.MonkeyPatch) -> None:
    """Train the rival for two epochs; how long it trains otherwise is no matter here."""
    monkeypatch.setattr("distill.train.epochs_for", lambda rows, **reference: 2.0)


@pytest.mark.usefixtures("quick_rival")
def test_the_baselines_are_the_same_student_on_gold_and_tfidf_on_the_teachers_decisions(
    small_corpus: Path, small_labels: Path, small_task: Task, tiny_encoder: Path, tmp_path: Path
) -> None:
    inputs = TrainInputs(small_corpus, small_labels, small_task)
    fit_baselines(inputs, str(tiny_encoder), StudentSpec(layers=2), TrainSpec(), tmp_path)
    assert read_metrics(tmp_path / "gold_only")["rows"] == len(read_part(small_corpus, "gold"))
    pool = read_part(small_corpus, "pool")
    decided = read_store(small_labels).probs([example.id for example in pool]).argmax(axis=1)
    dev_targets = small_task.targets([example.labels or () for example in read_part(small_corpus, "dev")])
    model = TfidfClassifier(small_task.kind).fit(
        [example.text for example in pool], np.eye(3, dtype=np.float32)[decided]
    )
    model.calibrate(texts_of(small_corpus, "dev"), dev_targets)
    found = read_answers(tmp_path / ANSWERS)
    np.testing.assert_allclose(found["test"], model.probs(texts_of(small_corpus, "test")), atol=1e-6)


@pytest.mark.usefixtures("quick_rival")
def test_a_small_multi_label_run_gets_its_baselines_too(
    multi_corpus: Path, multi_task: Task, tiny_encoder: Path, tmp_path: Path
) -> None:
    spec = PrototypesSpec(model=str(tiny_encoder), max_tokens=32)
    teach(spec, LabelInputs(multi_corpus, multi_task), tmp_path / "teacher")
    label(tmp_path / "teacher", LabelSpec(), LabelInputs(multi_corpus, multi_task), tmp_path / "labels")
    inputs = TrainInputs(multi_corpus, tmp_path / "labels", multi_task)
    (tmp_path / "baselines").mkdir()
    fit_baselines(inputs, str(tiny_encoder), StudentSpec(layers=1), TrainSpec(), tmp_path / "baselines")
    answers = read_answers(tmp_path / "baselines" / ANSWERS)
    targets = multi_task.targets([example.labels or () for example in read_part(multi_corpus, "test")])
    assert all(
        answers["test"][targets[:, one] > 0, one].mean() > answers["test"][targets[:, one] == 0, one].mean()
        for one in range(3)
    )


@pytest.mark.usefixtures("quick_rival")
def test_an_interrupted_baseline_can_be_done_again_in_the_same_directory(
    small_corpus: Path, small_labels: Path, small_task: Task, tiny_encoder: Path, tmp_path: Path
) -> None:
    def interrupt(rows: int) -> None:
        raise KeyboardInterrupt

    inputs = TrainInputs(small_corpus, small_labels, small_task)
    with pytest.raises(KeyboardInterrupt):
        fit_baselines(
            replace(inputs, progress=interrupt), str(tiny_encoder), StudentSpec(layers=1), TrainSpec(), tmp_path
        )
    fit_baselines(inputs, str(tiny_encoder), StudentSpec(layers=1), TrainSpec(), tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == [ANSWERS, "gold_only"]


def test_tfidf_on_gold_is_calibrated_on_dev_and_learns_the_small_corpus(small_corpus: Path, small_task: Task) -> None:
    model = fit_tfidf_on_gold(small_corpus, small_task, seed=0)
    truth = small_task.targets([example.labels or () for example in read_part(small_corpus, "test")])
    assert (model.probs(texts_of(small_corpus, "test")).argmax(axis=1) == truth.argmax(axis=1)).mean() > 0.9
    assert model._temperature != 1


def test_saved_answers_are_those_of_the_model_on_dev_and_test(
    small_corpus: Path, small_task: Task, tmp_path: Path
) -> None:
    model = fit_tfidf_on_gold(small_corpus, small_task, seed=0)
    save_answers(model, small_corpus, tmp_path / "answers.npz")
    found = read_answers(tmp_path / "answers.npz")
    assert set(found) == {"dev", "test"}
    for part, probs in found.items():
        np.testing.assert_array_equal(probs, model.probs(texts_of(small_corpus, part)))
