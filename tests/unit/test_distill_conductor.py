from collections.abc import Callable
from pathlib import Path

import pytest

from distill import conductor as module
from distill.conductor import Conductor, Stage, Update
from distill.config import Config, LoadedConfig
from distill.progress import SilentReporter
from distill.stages import partial_directory
from teacher.base import TeacherCard
from teacher.spec import CommitteeSpec
from teacher.task import Task, TaskKind

Built = list[str]


def loaded(base: Path, **sections: object) -> LoadedConfig:
    (base / "gold.csv").write_text("text,label\nmy parcel,delivery\n")
    config = {"name": "tiny", "data": {"gold": "gold.csv"}, "teacher": {"kind": "encoder", "model": "owner/name"}}
    return LoadedConfig(Config.model_validate(config | sections), base, base / "tiny.yaml")


def stages(built: Built) -> tuple[Stage, Stage, Stage]:
    def builder(name: str) -> Callable[[Conductor, Path, Update], None]:
        def build(conductor: Conductor, directory: Path, update: Update) -> None:
            built.append(name)
            (directory / "content").write_text(name)

        return build

    return (
        Stage("corpus", "corpus", (), ("data", "seed"), builder("corpus")),
        Stage("train", "student", ("corpus",), ("train",), builder("train"), trains=True),
        Stage("tune", "tuned", ("train",), ("tune",), builder("tune")),
    )


def run(base: Path, built: Built, **sections: object) -> Conductor:
    conductor = Conductor(loaded(base, **sections), stages(built), base / "runs", SilentReporter())
    conductor.run.mkdir(parents=True, exist_ok=True)
    for stage in conductor.stages.values():
        conductor.ensure(stage)
    return conductor


def test_stages_are_built_in_order_and_only_once(tmp_path: Path) -> None:
    built: Built = []
    conductor = run(tmp_path, built)
    run(tmp_path, built)
    assert built == ["corpus", "train", "tune"]
    assert (conductor.path("train") / "content").read_text() == "train"
    assert conductor.path("train") == tmp_path / "runs" / "tiny" / "student"


@pytest.mark.parametrize(
    ("sections", "rebuilt"),
    [
        ({"tune": None}, ["tune"]),
        ({"train": {"epochs": 2}}, ["train", "tune"]),
        ({"seed": 1}, ["corpus", "train", "tune"]),
        ({"bench": {"texts": 200}}, []),
    ],
)
def test_a_changed_section_rebuilds_its_stage_and_those_that_read_it(
    tmp_path: Path, sections: dict[str, object], rebuilt: Built
) -> None:
    run(tmp_path, [])
    built: Built = []
    run(tmp_path, built, **sections)
    assert built == rebuilt


def test_a_changed_source_file_rebuilds_everything(tmp_path: Path) -> None:
    run(tmp_path, [])
    before = loaded(tmp_path)
    (tmp_path / "gold.csv").write_text("text,label\nmy card,payment\n")
    built: Built = []
    changed = Conductor(before, stages(built), tmp_path / "runs", SilentReporter())
    for stage in changed.stages.values():
        changed.ensure(stage)
    assert built == ["corpus", "train", "tune"]


def test_the_status_names_what_changed_and_where_it_leads(tmp_path: Path) -> None:
    run(tmp_path, [])
    changed = Conductor(loaded(tmp_path, train={"epochs": 2}), stages([]), tmp_path / "runs", SilentReporter())
    assert [(one.name, one.state, one.reason) for one in changed.status()] == [
        ("corpus", "done", ""),
        ("train", "stale", "train.epochs changed"),
        ("tune", "stale", "train is newer"),
    ]


def test_an_interrupted_stage_is_missing_and_what_came_before_stays(tmp_path: Path) -> None:
    def interrupt(conductor: Conductor, directory: Path, update: Update) -> None:
        (directory / "half").write_text("half")
        raise KeyboardInterrupt

    corpus, train, tune = stages([])
    broken = Stage("train", "student", train.reads, train.sections, interrupt)
    conductor = Conductor(loaded(tmp_path), (corpus, broken, tune), tmp_path / "runs", SilentReporter())
    conductor.run.mkdir(parents=True)
    conductor.ensure(corpus)
    with pytest.raises(KeyboardInterrupt):
        conductor.ensure(broken)
    assert [one.state for one in conductor.status()] == ["done", "missing", "missing"]


def test_another_process_builds_only_stages_that_train(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    built: Built = []
    conductor = Conductor(loaded(tmp_path), stages(built), tmp_path / "runs", SilentReporter())
    monkeypatch.setattr(module, "is_first_process", lambda: False)
    monkeypatch.setattr(module, "wait_for_all", lambda: None)
    partial_directory(conductor.path("train")).mkdir(parents=True)  # the first process makes it
    for stage in conductor.stages.values():
        conductor.ensure(stage)
    assert built == ["train"]
    assert not conductor.path("train").exists()


def test_a_warning_is_kept_for_the_report(tmp_path: Path) -> None:
    conductor = Conductor(loaded(tmp_path), stages([]), tmp_path, SilentReporter())
    conductor.warn("the teacher is weak")
    assert conductor.warnings == ["the teacher is weak"]


def test_a_rival_starts_from_the_first_encoder_of_a_committee_and_names_are_resolved(
    tmp_path: Path, tiny_encoder: Path
) -> None:
    members = [{"kind": "prototypes", "model": str(tiny_encoder)}, {"kind": "prototypes", "model": "owner/name"}]
    conductor = Conductor(
        loaded(tmp_path, teacher={"kind": "committee", "members": members}),
        (*stages([]), Stage("teacher", "teacher", (), (), lambda *given: None)),
        tmp_path,
        SilentReporter(),
    )
    assert conductor.untuned_source() == str(tiny_encoder)
    assert isinstance(conductor.teacher, CommitteeSpec)
    assert [member.model for member in conductor.teacher.members] == [str(tiny_encoder), "owner/name"]  # type: ignore[union-attr]


def test_a_student_starts_from_its_teacher_or_from_the_checkpoint_it_names(tmp_path: Path, tiny_encoder: Path) -> None:
    extra = Stage("teacher", "teacher", (), (), lambda *given: None)
    for init, source in (("teacher", None), (str(tiny_encoder), str(tiny_encoder)), ("config", "owner/name")):
        conductor = Conductor(loaded(tmp_path, student={"init": init}), (extra,), tmp_path, SilentReporter())
        card(conductor.path("teacher"), "encoder")
        assert conductor.student_source() == (source or str(conductor.path("teacher")))


def card(directory: Path, kind: str) -> None:
    directory.mkdir(parents=True, exist_ok=True)
    TeacherCard.of(Task(TaskKind.SINGLE_LABEL, ("a", "b")), kind, [], temperature=1.0).write(directory)
