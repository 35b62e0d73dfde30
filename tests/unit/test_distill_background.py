"""Facts about texts on something else: which are taken, what they teach, and what depends on their files."""

from pathlib import Path

import numpy as np
import pytest

from distill.background import Background, read_background
from distill.conductor import Conductor
from distill.config import check_names, load_config
from distill.errors import ConfigError
from distill.pipeline import STAGES
from distill.progress import SilentReporter
from distill.spec import TrainSpec
from distill.train import TrainInputs, read_metrics, train_student
from student.spec import StudentSpec
from teacher.corpus import read_part
from teacher.errors import CorpusError
from teacher.task import Task

STRANGE = ["the battle was lost", "Rivers of  Asia", "rivers of asia.", "", "an opera in four acts"]


@pytest.fixture
def background(small_corpus: Path, tmp_path: Path) -> Background:
    """Return a file with three strange texts, one of them twice, and one that stands in the corpus."""
    known = read_part(small_corpus, "test")[0].text.upper()
    (tmp_path / "strange.txt").write_text("\n".join([*STRANGE, known]), encoding="utf-8")
    return Background(("strange.txt",), tmp_path, "text", 1000)


def test_distinct_texts_that_the_corpus_does_not_hold_are_taken(
    background: Background, small_corpus: Path, small_task: Task
) -> None:
    found = read_background(background, small_corpus, small_task, 1000, 0)
    assert found.texts == ["the battle was lost", "Rivers of Asia", "an opera in four acts"]
    np.testing.assert_allclose(found.soft, 1 / 3)
    assert not found.has_gold.any()


def test_a_multi_label_student_learns_that_no_label_fits(
    background: Background, multi_corpus: Path, multi_task: Task
) -> None:
    assert not read_background(background, multi_corpus, multi_task, 1000, 0).soft.any()


def test_a_large_background_is_thinned_to_a_quarter_of_what_is_learned_otherwise(
    background: Background, small_corpus: Path, small_task: Task
) -> None:
    assert len(read_background(background, small_corpus, small_task, 8, 0).texts) == 2


def test_a_file_that_is_missing_is_named(small_corpus: Path, small_task: Task, tmp_path: Path) -> None:
    with pytest.raises(CorpusError, match=r"nowhere\.txt"):
        read_background(Background(("nowhere.txt",), tmp_path, "text", 9), small_corpus, small_task, 8, 0)


def test_background_comes_on_top_of_what_a_student_is_shown(
    background: Background,
    small_corpus: Path,
    small_labels: Path,
    small_teacher: Path,
    small_task: Task,
    tmp_path: Path,
) -> None:
    inputs = TrainInputs(small_corpus, small_labels, small_task, background=background)
    train = TrainSpec(epochs=1, hidden_weight=0)
    train_student(inputs, str(small_teacher), small_teacher, StudentSpec(layers=1), train, tmp_path / "student")
    found = read_metrics(tmp_path / "student")
    assert (found["rows"], found["background"], found["epochs"]) == (112, 3, 1)


def test_a_changed_background_makes_the_student_stale_and_not_the_teacher(tmp_path: Path, tiny_encoder: Path) -> None:
    (tmp_path / "config.yaml").write_text(
        f"name: shop\ndata: {{gold: gold.csv}}\nteacher: {{kind: encoder, model: {tiny_encoder}}}\n"
        "train: {background: [strange.txt]}\n"
    )
    (tmp_path / "gold.csv").write_text("text,label\na,b\n")
    loaded = load_config(tmp_path / "config.yaml")
    with pytest.raises(ConfigError, match=r"strange\.txt"):
        check_names(loaded.config, loaded.base)
    keys = []
    for content in ("one text", "another text"):
        (tmp_path / "strange.txt").write_text(content)
        conductor = Conductor(loaded, STAGES, tmp_path, SilentReporter())
        keys.append((conductor.key("teacher"), conductor.key("train")))
    assert keys[0][0] == keys[1][0]
    assert keys[0][1] != keys[1][1]
