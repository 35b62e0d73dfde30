"""The ladder of a search: its default for an encoder, names, and the overrides that make a student of it."""

import json
from pathlib import Path

import pytest

from distill.config import Config
from distill.ladder import Shape, candidates, overrides, read_shape
from distill.spec import SearchSpec
from student.spec import StudentSpec

MINILM = Shape(layers=6, width=384, heads=12)


def names(shape: Shape, student: StudentSpec | None = None, **search: object) -> list[str]:
    spec = SearchSpec.model_validate(search)
    return [each.name for each in candidates(student or StudentSpec(), spec, shape)]


def test_the_default_ladder_has_every_tier_that_the_encoder_allows() -> None:
    deep = ["1 layer", "2 layers", "3 layers", "4 layers", "6 layers"]
    assert names(MINILM) == ["static", "2 layers, width 128", "4 layers, width 256", *deep]


def test_a_shallow_encoder_shortens_the_ladder() -> None:
    assert names(Shape(layers=2, width=32, heads=2)) == ["static", "2 layers, width 16", "1 layer", "2 layers"]


def test_an_encoder_whose_heads_cannot_be_parted_is_not_made_narrower() -> None:
    assert names(Shape(layers=1, width=35, heads=5)) == ["static", "1 layer"]


def test_a_ladder_of_ones_own_replaces_the_default_and_names_each_student_once() -> None:
    ladder = [{"layers": 2}, {"layers": [0, 5]}, {"size": "tiny"}, {"layers": 2}]
    assert names(MINILM, ladder=ladder) == [
        "2 layers",
        "layers 0-5",
        "2 layers, width 128, heads 4, intermediate 512",
    ]


def test_students_of_the_ladder_take_start_vocabulary_and_length_from_the_config() -> None:
    student = StudentSpec(init="some/encoder", vocabulary="full", max_tokens=32, layers=5, width=64)
    found = candidates(student, SearchSpec(ladder=[StudentSpec(layers=1)]), MINILM)[0].spec
    assert (found.init, found.vocabulary, found.max_tokens) == ("some/encoder", "full", 32)
    assert (found.layers, found.width) == (1, None)


def config(**sections: object) -> Config:
    required = {"name": "shop", "data": {"gold": "gold.csv"}, "teacher": {"kind": "encoder", "model": "m"}}
    return Config.model_validate(required | sections)


def test_the_overrides_say_all_in_which_a_student_differs_from_the_config() -> None:
    assert overrides(StudentSpec(layers=2), config(student={"size": "mini"})) == [
        "student.size=null",
        "student.layers=2",
        "student.width=null",
        "student.heads=null",
        "student.intermediate=null",
    ]
    assert overrides(StudentSpec(kind="static"), config()) == ["student.kind=static"]
    assert overrides(StudentSpec(), config()) == []


def test_passes_and_rates_set_for_one_kind_of_student_are_not_those_of_the_other() -> None:
    hurried = config(train={"epochs": 2, "learning_rate": 1e-3, "temperature": 2.0})
    static = hurried.with_student(StudentSpec(kind="static"))
    assert (static.train.epochs, static.train.learning_rate, static.train.temperature) == (None, None, 2.0)
    assert hurried.with_student(StudentSpec(layers=1)).train == hurried.train
    assert overrides(static.student, hurried) == [
        "student.kind=static",
        "train.epochs=null",
        "train.learning_rate=null",
    ]


def test_a_folder_is_a_plain_name() -> None:
    found = candidates(StudentSpec(), SearchSpec(ladder=[StudentSpec(layers=[0, 5], width=128)]), MINILM)[0]
    assert found.folder == "layers-0-5-width-128"


@pytest.mark.parametrize(
    ("spec", "missing"),
    [
        (StudentSpec(layers=6), ""),
        (StudentSpec(layers=7), "it needs 7 layers to copy, and the encoder has 6"),
        (StudentSpec(layers=[0, 8]), "it needs 9 layers to copy, and the encoder has 6"),
        (StudentSpec(layers=7, init="config"), ""),
        (StudentSpec(kind="static"), ""),
    ],
)
def test_layers_are_missing_only_where_they_would_be_copied(spec: StudentSpec, missing: str) -> None:
    assert MINILM.lacks(spec) == missing


def test_the_shape_of_a_checkpoint_is_read_in_either_spelling(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps({"n_layers": 6, "dim": 768, "n_heads": 12}), encoding="utf-8")
    assert read_shape(str(tmp_path)) == Shape(6, 768, 12)


@pytest.mark.parametrize("rungs", [[0.5], [0.5, 0.25, 1.0], [0.5, 0.5, 1.0], [1.0, 0.5]])
def test_rungs_rise_to_the_whole_training(rungs: list[float]) -> None:
    with pytest.raises(ValueError, match=r"rising shares that end with 1\.0"):
        SearchSpec(rungs=rungs)
