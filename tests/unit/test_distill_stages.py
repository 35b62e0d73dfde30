"""Facts about stage directories: keys, what makes one stale, and that no interruption leaves a readable half."""

import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from distill import stages
from distill.stages import building, lineage_path, partial_directory, read_lineage, stage_key, stage_status

SECTION = {"train": {"epochs": 3, "loss": "mse"}, "seed": 0}
INPUTS = {"corpus": "c1", "label": "l1"}


def build(
    target: Path, content: str, section: dict[str, Any] | None = None, inputs: dict[str, str] | None = None
) -> None:
    with building("train", target, section or SECTION, inputs or INPUTS) as partial:
        (partial / "sub").mkdir(exist_ok=True)
        (partial / "one").write_text(content)
        (partial / "sub" / "two").write_text(content)


def interrupt(target: Path, name: str, text: str) -> None:
    """Write one file of a build, then stop it as Ctrl-C would."""
    with building("train", target, SECTION, INPUTS) as partial:
        (partial / name).write_text(text)
        raise KeyboardInterrupt


def content(target: Path) -> str | None:
    """Return what a reader finds in a finished directory; None when there is nothing it may read."""
    if read_lineage(target) is None:
        return None
    found = {path.relative_to(target).as_posix(): path.read_text() for path in target.rglob("*") if path.is_file()}
    assert set(found) == {"one", "sub/two"}
    assert len(set(found.values())) == 1
    return found["one"]


def state(target: Path, section: dict[str, Any] | None = None, inputs: dict[str, str] | None = None) -> str:
    status = stage_status("train", target, section or SECTION, inputs or INPUTS)
    return f"{status.state}: {status.reason}" if status.reason else status.state


def test_a_built_stage_is_done_and_holds_only_what_was_put_there(tmp_path: Path) -> None:
    build(tmp_path / "student", "new")
    assert content(tmp_path / "student") == "new"
    assert state(tmp_path / "student") == "done"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["lineage", "student"]


def test_the_lineage_says_what_a_stage_was_made_from(tmp_path: Path) -> None:
    build(tmp_path / "student", "new")
    lineage = read_lineage(tmp_path / "student")
    assert lineage is not None
    assert (lineage.stage, lineage.section, lineage.inputs) == ("train", SECTION, INPUTS)
    assert lineage.key == stage_key("train", SECTION, INPUTS)


def test_the_key_changes_with_stage_section_inputs_and_version(monkeypatch: pytest.MonkeyPatch) -> None:
    keys = [
        stage_key("train", SECTION, INPUTS),
        stage_key("tune", SECTION, INPUTS),
        stage_key("train", SECTION | {"seed": 1}, INPUTS),
        stage_key("train", SECTION, INPUTS | {"label": "l2"}),
        stage_key("train", SECTION, {"corpus": "l1", "label": "c1"}),
    ]
    monkeypatch.setattr(stages, "__version__", "9.9.9")
    keys.append(stage_key("train", SECTION, INPUTS))
    assert len(set(keys)) == 6


def test_the_key_does_not_depend_on_the_order_of_fields() -> None:
    turned = {"seed": 0, "train": {"loss": "mse", "epochs": 3}}
    assert stage_key("train", turned, dict(reversed(INPUTS.items()))) == stage_key("train", SECTION, INPUTS)


@pytest.mark.parametrize(
    ("section", "inputs", "reason"),
    [
        (SECTION | {"seed": 1}, INPUTS, "stale: seed changed"),
        (SECTION | {"train": {"epochs": 4, "loss": "kl"}}, INPUTS, "stale: train.epochs changed, train.loss changed"),
        (SECTION | {"train": {"epochs": 3}}, INPUTS, "stale: train.loss changed"),
        (SECTION | {"student": {"layers": [0, 2]}}, INPUTS, "stale: student changed"),
        (SECTION, INPUTS | {"label": "l2"}, "stale: label is newer"),
        (SECTION | {"seed": 1}, {"corpus": "c2", "label": "l1"}, "stale: seed changed, corpus is newer"),
    ],
)
def test_a_stale_stage_names_the_fields_that_changed(
    tmp_path: Path, section: dict[str, Any], inputs: dict[str, str], reason: str
) -> None:
    build(tmp_path / "student", "new")
    assert state(tmp_path / "student", section, inputs) == reason


def test_a_stage_of_another_version_is_stale_and_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    build(tmp_path / "student", "new")
    monkeypatch.setattr(stages, "__version__", "9.9.9")
    assert state(tmp_path / "student") == "stale: made by version 0.1.0"


def test_a_missing_directory_or_lineage_is_a_missing_stage(tmp_path: Path) -> None:
    target = tmp_path / "student"
    assert state(target) == "missing"
    build(target, "new")
    shutil.rmtree(target)
    assert state(target) == "missing"
    build(target, "new")
    lineage_path(target).write_text('{"stage": "tr')
    assert state(target) == "missing"


def test_a_failing_build_leaves_the_older_stage(tmp_path: Path) -> None:
    build(tmp_path / "student", "old")
    with pytest.raises(KeyboardInterrupt):
        interrupt(tmp_path / "student", "one", "half")
    assert content(tmp_path / "student") == "old"
    assert state(tmp_path / "student") == "done"


def test_what_an_interrupted_build_of_the_same_key_left_is_kept(tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        interrupt(tmp_path / "student", "checkpoint", "step 5")
    with building("train", tmp_path / "student", SECTION, INPUTS) as partial:
        assert (partial / "checkpoint").read_text() == "step 5"


def test_what_an_interrupted_build_of_another_key_left_is_wiped(tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        interrupt(tmp_path / "student", "checkpoint", "step 5")
    with building("train", tmp_path / "student", SECTION | {"seed": 1}, INPUTS) as partial:
        assert sorted(path.name for path in partial.iterdir()) == [".key"]


def test_a_build_directory_without_its_key_is_wiped(tmp_path: Path) -> None:
    partial = partial_directory(tmp_path / "student")
    partial.mkdir()
    (partial / "one").write_text("of whom?")
    with building("train", tmp_path / "student", SECTION, INPUTS) as given:
        assert given == partial
        assert not (partial / "one").exists()


def crash_at(monkeypatch: pytest.MonkeyPatch, step: int) -> list[str]:
    """Let the process die, as it were, at the given one of all steps that change the disk; return the steps seen."""
    seen: list[str] = []

    def watched(name: str, original: Callable[..., Any]) -> Callable[..., Any]:
        def call(*args: Any, **kwargs: Any) -> Any:
            seen.append(name)
            if len(seen) == step:
                raise KeyboardInterrupt(name)
            return original(*args, **kwargs)

        return call

    for owner, name in (
        (Path, "rename"),
        (Path, "replace"),
        (Path, "unlink"),
        (Path, "mkdir"),
        (Path, "write_text"),
        (os, "fsync"),
        (shutil, "rmtree"),
    ):
        monkeypatch.setattr(owner, name, watched(name, getattr(owner, name)))
    return seen


def steps_of_a_build(tmp_path: Path) -> int:
    build(tmp_path / "student", "old")
    with pytest.MonkeyPatch.context() as patch:
        seen = crash_at(patch, 0)
        build(tmp_path / "student", "new", SECTION | {"seed": 1})
    return len(seen)


def test_a_crash_at_any_step_leaves_a_whole_stage_or_none(tmp_path: Path) -> None:
    steps = steps_of_a_build(tmp_path / "count")
    assert steps > 12
    found = []
    for step in range(1, steps + 1):
        target = tmp_path / str(step) / "student"
        target.parent.mkdir()
        build(target, "old")
        with pytest.MonkeyPatch.context() as patch:
            crash_at(patch, step)
            with pytest.raises(KeyboardInterrupt):
                build(target, "new", SECTION | {"seed": 1})
        after = content(target)
        # Whatever can be read is whole and is what its lineage says.
        assert after in ("old", "new", None), step
        assert state(target, SECTION | {"seed": 1}).startswith({"old": "stale", "new": "done", None: "missing"}[after])
        found.append(after)
        build(target, "newer", SECTION | {"seed": 1})
        assert content(target) == "newer", step
        assert sorted(path.name for path in target.parent.iterdir()) == ["lineage", "student"], step
    assert found[0] == "old"
    assert sorted(found, key=["old", None, "new"].index) == found


def test_a_full_disk_at_any_sync_leaves_the_older_stage_or_the_whole_new_one(tmp_path: Path) -> None:
    build(tmp_path / "student", "old")
    syncs: list[int] = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "fsync", syncs.append)
        build(tmp_path / "count" / "student", "new")
    for failing in range(1, len(syncs) + 1):
        target = tmp_path / str(failing) / "student"
        target.parent.mkdir()
        build(target, "old")
        calls: list[int] = []

        def fail(descriptor: int, calls: list[int] = calls, failing: int = failing) -> None:
            calls.append(descriptor)
            if len(calls) == failing:
                raise OSError(28, "No space left on device")

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(os, "fsync", fail)
            with pytest.raises(OSError, match="No space"):
                build(target, "new", SECTION | {"seed": 1})
        if failing <= 5:  # two files, two folders, and the folder once more: before the renames
            assert content(target) == "old", failing
        else:
            assert content(target) is None
            assert (target / "one").read_text() == "new"
        build(target, "newer", SECTION | {"seed": 1})
        assert content(target) == "newer"
    assert len(syncs) >= 5


@pytest.mark.usefixtures("full_disk")
def test_a_build_that_could_not_be_synced_goes_on_when_there_is_room(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    target = tmp_path / "student"
    with pytest.raises(OSError, match="No space"):
        build(target, "half a night's work")
    monkeypatch.undo()
    with building("train", target, SECTION, INPUTS) as partial:
        assert (partial / "one").read_text() == "half a night's work"


def test_a_full_disk_while_building_is_told_with_its_path(tmp_path: Path) -> None:
    target = tmp_path / "student"
    with pytest.raises(OSError, match="No space") as found, building("train", target, SECTION, INPUTS):
        raise OSError(28, "No space left on device")
    assert found.value.filename == str(partial_directory(target))
