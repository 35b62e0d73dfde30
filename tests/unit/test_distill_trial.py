"""Facts about the gates, seen by whole exported files: R12 of the faults with one sound student."""

from pathlib import Path

import pytest

from tests.damaged_models import DAMAGES, Student, judge_int8_of, make_student, write_faults_corpus


@pytest.fixture(scope="module")
def student(tmp_path_factory: pytest.TempPathFactory) -> Student:
    folder = tmp_path_factory.mktemp("faults")
    return make_student(folder / "student", write_faults_corpus(folder), seed=0)


def test_a_sound_student_passes_every_gate(student: Student, tmp_path: Path) -> None:
    verdicts = judge_int8_of(student, tmp_path / "int8.onnx")
    assert [name for name, passed in verdicts.items() if not passed] == []
    assert len(verdicts) == 8


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_student_made_bad_is_rejected_with_the_reason(student: Student, tmp_path: Path, damage: str) -> None:
    assert judge_int8_of(student, tmp_path / "int8.onnx", damage)[DAMAGES[damage][2]] is False
