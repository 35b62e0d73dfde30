from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from teacher.base import TeacherCard, read_card
from teacher.cards import fit_warnings
from teacher.encoder import Gold
from teacher.errors import LabelMismatchError, TeacherError
from teacher.kinds import encoder_of, fit_teacher, load_teacher, warm_start_source
from teacher.spec import CommitteeSpec, EncoderSpec, NliSpec, PrototypesSpec
from teacher.task import Task, TaskKind

TEXTS = ["my parcel is late again", "this dress runs large"]


def card(kind: str, directory: Path) -> None:
    directory.mkdir(parents=True, exist_ok=True)
    TeacherCard.of(Task(TaskKind.SINGLE_LABEL, ("a", "b")), kind, [], temperature=1.0).write(directory)


def test_a_committee_is_fitted_with_its_members_and_answers_again_when_loaded(
    tiny_encoder: Path, tiny_classifier: Path, gold: Gold, tmp_path: Path
) -> None:
    members = [
        PrototypesSpec(model=str(tiny_encoder), max_tokens=32),
        EncoderSpec(model=str(tiny_classifier), trained=True, max_tokens=32),
    ]
    fit_teacher(CommitteeSpec(members=members), gold, tmp_path / "teacher")
    teacher = load_teacher(tmp_path / "teacher")
    answers = teacher.label(TEXTS).probs
    np.testing.assert_allclose(answers.sum(axis=1), 1, rtol=1e-5)
    weights = np.array(read_card(tmp_path / "teacher").details["weights"])
    assert (weights[0] > weights[1]).all()  # the classifier was never trained
    assert teacher.parameters == sum(
        load_teacher(tmp_path / "teacher" / f"member-{position}").parameters for position in range(2)
    )
    assert warm_start_source(tmp_path / "teacher") == tmp_path / "teacher" / "member-1"


def test_a_member_with_other_labels_is_refused(tiny_classifier: Path, gold: Gold, tmp_path: Path) -> None:
    task = Task(TaskKind.SINGLE_LABEL, ("delivery", "payment", "size", "colour"))
    member = EncoderSpec(model=str(tiny_classifier), trained=True)
    with pytest.raises(LabelMismatchError, match="only in what is wanted: 'colour'"):
        fit_teacher(CommitteeSpec(members=[member, member]), replace(gold, task=task), tmp_path)


def test_members_keep_their_order_beyond_ten(tmp_path: Path) -> None:
    card("committee", tmp_path)
    for position in range(12):
        card("encoder" if position in (2, 10) else "prototypes", tmp_path / f"member-{position}")
    assert warm_start_source(tmp_path) == tmp_path / "member-2"


def test_an_encoder_is_its_own_warm_start(small_teacher: Path) -> None:
    assert warm_start_source(small_teacher) == small_teacher


def test_an_encoder_inside_a_nested_committee_is_found(tmp_path: Path) -> None:
    card("committee", tmp_path)
    card("prototypes", tmp_path / "member-0")
    card("committee", tmp_path / "member-1")
    card("encoder", tmp_path / "member-1" / "member-0")
    card("prototypes", tmp_path / "member-1" / "member-1")
    assert warm_start_source(tmp_path) == tmp_path / "member-1" / "member-0"


def test_a_frozen_encoder_is_the_warm_start_where_none_is_fine_tuned(tmp_path: Path) -> None:
    card("committee", tmp_path)
    card("rules", tmp_path / "member-0")
    card("prototypes", tmp_path / "member-1")
    assert warm_start_source(tmp_path) == tmp_path / "member-1"
    card("encoder", tmp_path / "member-2")
    assert warm_start_source(tmp_path) == tmp_path / "member-2"


def test_a_committee_without_an_encoder_gives_no_warm_start(tmp_path: Path) -> None:
    card("committee", tmp_path)
    card("rules", tmp_path / "member-0")
    card("recorded", tmp_path / "member-1")
    assert warm_start_source(tmp_path) is None


def test_variants_are_for_teachers_that_are_encoders_all_through(tmp_path: Path) -> None:
    card("committee", tmp_path)
    card("encoder", tmp_path / "member-0")
    assert encoder_of(tmp_path) == tmp_path / "member-0"
    card("llm_api", tmp_path / "member-1")
    assert encoder_of(tmp_path) is None


def test_an_unfinished_teacher_is_refused_with_the_command_to_run(tmp_path: Path) -> None:
    with pytest.raises(TeacherError, match=r"holds no fitted teacher.*distill label"):
        load_teacher(tmp_path)


def test_an_unknown_kind_is_refused_with_the_known_ones(tmp_path: Path) -> None:
    card("oracle", tmp_path)
    with pytest.raises(TeacherError, match=r"'oracle'; known are encoder, prototypes, llm_api, .*, committee"):
        load_teacher(tmp_path)


def test_a_damaged_card_is_refused(tmp_path: Path) -> None:
    (tmp_path / "teacher.json").write_text('{"kind": "enco')
    with pytest.raises(TeacherError, match="holds no fitted teacher"):
        load_teacher(tmp_path)


def test_only_the_first_process_fits_a_teacher_that_does_not_train(
    gold: Gold, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RANK", "1")
    fit_teacher(NliSpec(model="a model that is not there"), gold, tmp_path / "teacher")
    assert list((tmp_path / "teacher").iterdir()) == []


def test_a_card_keeps_what_the_labels_mean(tmp_path: Path) -> None:
    task = Task(TaskKind.SINGLE_LABEL, ("payment", "size"), {"size": "how a thing fits"})
    TeacherCard.of(task, "rules", [], temperature=1.0).write(tmp_path)
    assert read_card(tmp_path).task() == task


def test_a_fingerprint_follows_whatever_shapes_an_answer(tmp_path: Path) -> None:
    task = Task(TaskKind.SINGLE_LABEL, ("a", "b"))
    cards = [
        TeacherCard.of(task, "rules", ["x"], temperature=1.0),
        TeacherCard.of(task, "rules", ["y"], temperature=1.0),
        TeacherCard.of(task, "rules", ["x"], temperature=2.0),
        TeacherCard.of(task, "rules", ["x"], temperature=1.0, max_tokens=8),
        TeacherCard.of(task, "nli", ["x"], temperature=1.0),
        TeacherCard.of(Task(task.kind, ("b", "a")), "rules", ["x"], temperature=1.0),
        TeacherCard.of(Task(task.kind, task.labels, {"a": "first"}), "rules", ["x"], temperature=1.0),
    ]
    assert len({card.fingerprint for card in cards}) == len(cards)
    again = TeacherCard.of(task, "rules", ["x"], temperature=1.0, details={"only": "told"}, warnings=["so what"])
    assert again.fingerprint == cards[0].fingerprint


def test_warnings_of_a_committee_are_those_of_its_members(tmp_path: Path) -> None:
    card("committee", tmp_path)
    for position in range(2):
        card("llm_api", tmp_path / f"member-{position}")
    read_card(tmp_path / "member-1").model_copy(update={"warnings": ["votes instead"]}).write(tmp_path / "member-1")
    assert list(fit_warnings(tmp_path)) == ["votes instead"]
