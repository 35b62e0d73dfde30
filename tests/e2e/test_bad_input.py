"""What a person gets wrong ends in exit 2 with the reason in one line, before anything is trained; and a full disk."""

import errno
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from safetensors import SafetensorError

from distill.cli import judge
from distill.stages import building
from tests.conftest import corpus_rows, write_csv
from tests.e2e.conftest import MakeProject, Project

needs_full_device = pytest.mark.skipif(not Path("/dev/full").is_char_device(), reason="needs /dev/full")


@pytest.fixture
def project(make_project: MakeProject, tmp_path: Path) -> Project:
    """Return a project that would run."""
    return make_project(tmp_path)


def without_label_column(project: Project) -> None:
    """Name the label column otherwise in gold."""
    text = (project.folder / "gold.csv").read_text(encoding="utf-8")
    (project.folder / "gold.csv").write_text(text.replace("text,label", "text,intent", 1), encoding="utf-8")


def empty_gold(project: Project) -> None:
    """Leave gold without a byte."""
    (project.folder / "gold.csv").write_text("", encoding="utf-8")


def one_class(project: Project) -> None:
    """Leave gold with one class."""
    rows = [row for row in corpus_rows() if row[1] == "size"][:20]
    write_csv(project.folder / "gold.csv", ["text", "label"], [*rows])


def no_weights(project: Project) -> None:
    """Take the weights out of the teacher's folder."""
    (project.folder / "encoder" / "model.safetensors").unlink()


def no_gold_file(project: Project) -> None:
    """Take gold away."""
    (project.folder / "gold.csv").unlink()


def nothing(project: Project) -> None:
    """Change nothing: the override is what is wrong."""


@pytest.mark.parametrize(
    ("spoil", "override", "said"),
    [
        pytest.param(without_label_column, None, ["'label'", "text", "intent"], id="missing column"),
        pytest.param(empty_gold, None, ["gold.csv", "empty"], id="empty file"),
        pytest.param(no_gold_file, None, ["gold.csv", "pool.csv"], id="missing file"),
        pytest.param(one_class, None, ["one class only", "'size'"], id="one class"),
        pytest.param(nothing, "task.labels=[delivery, payment, refund, size]", ["no gold row", "refund"], id="no gold"),
        pytest.param(no_weights, None, ["weights", "tokenizer.json"], id="no weights"),
        pytest.param(nothing, "train.epoch=3", ["train.epoch", "did you mean", "epochs"], id="unknown key"),
        pytest.param(nothing, "task.labels=[size, yes]", ["yes", "task.labels"], id="boolean label"),
        pytest.param(nothing, "train.epochs=-1", ["train.epochs", "-1"], id="number out of bounds"),
        pytest.param(nothing, "train.loss=bce", ["bce", "single_label", "mse"], id="loss of another task kind"),
    ],
)
def test_bad_input_exits_2_with_the_reason_before_anything_is_trained(
    project: Project, spoil: Callable[[Project], None], override: str | None, said: list[str]
) -> None:
    spoil(project)
    outcome = project.distill("run", *([override] if override else []))
    assert outcome.code == 2, outcome.err
    assert len(outcome.err.splitlines()) == 1
    assert [words for words in said if words not in outcome.last_line] == []
    assert not (project.run / "corpus").exists()
    assert not (project.run / "teacher").exists()


def test_labels_that_yaml_turned_into_booleans_are_named_with_their_line(project: Project) -> None:
    text = project.config.read_text(encoding="utf-8")
    project.config.write_text(f"{text}task:\n  labels:\n    - yes\n    - no\n", encoding="utf-8")
    first = len(text.splitlines()) + 3
    outcome = project.distill("run")
    assert outcome.code == 2
    assert f"{project.config}:{first}" in outcome.err
    assert f"{project.config}:{first + 1}" in outcome.err


def test_every_problem_of_a_config_is_told_at_once(project: Project) -> None:
    outcome = project.distill("run", "train.epoch=3", "bench.texts=1", "teacher.kind=magic")
    assert outcome.code == 2
    assert [key for key in ("train.epoch", "bench.texts", "teacher") if key not in outcome.err] == []


def test_a_text_that_every_test_row_repeats_leaves_a_reason(project: Project) -> None:
    shutil.copyfile(project.folder / "test.csv", project.folder / "dev.csv")
    outcome = project.distill("run")
    assert outcome.code == 2
    assert "dev has no row" in outcome.last_line
    assert "same text in test" in outcome.last_line


# Through a link: a library that renames its file into place, or tidies up, then touches only the link.
@pytest.fixture
def full_file(tmp_path: Path) -> Path:
    """Return a path on which every write fails for want of room."""
    (tmp_path / "full").symlink_to("/dev/full")
    return tmp_path / "full"


def write_bytes(path: Path) -> None:
    """Write what a small file of metadata would be."""
    path.write_bytes(b"x" * 100_000)


def write_arrays(path: Path) -> None:
    """Write arrays as bench and baselines do."""
    with path.open("wb") as file:
        np.savez(file, values=np.zeros(100_000))


def fail_like_safetensors(path: Path) -> None:
    """Say what safetensors said on a file system without room."""
    raise SafetensorError("Error while serializing: I/O error: No space left on device (os error 28)")


WRITERS: dict[str, Callable[[Path], Any]] = {
    "bytes": write_bytes,
    "numpy": write_arrays,
    "parquet": lambda path: pq.write_table(pa.table({"id": ["a"] * 100_000}), path),
    "torch": lambda path: torch.save(torch.zeros(100_000), path),
    "safetensors": fail_like_safetensors,
}


@needs_full_device
@pytest.mark.parametrize("library", WRITERS)
def test_a_full_disk_is_told_with_its_path_and_the_bytes_free(library: str, full_file: Path, tmp_path: Path) -> None:
    def build() -> None:
        with building("train", tmp_path / "student", {}, {}):
            WRITERS[library](full_file)

    with pytest.raises(OSError) as caught:
        build()
    code, reason = judge(caught.value)
    assert caught.value.errno == errno.ENOSPC
    assert code == 1
    assert str(tmp_path / ".student.partial") in reason
    assert "the disk is full" in reason
    assert "bytes free" in reason


@needs_full_device
def test_a_run_goes_on_after_room_was_made_on_a_full_disk(
    project: Project, full_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    teacher = "teacher={kind: prototypes, model: encoder}"
    with monkeypatch.context() as without_room:
        without_room.setattr("teacher.soft_labels.pq.write_table", lambda table, path: write_bytes(full_file))
        failed = project.distill("label", teacher)
    resumed = project.distill("label", teacher)
    assert failed.code == 1
    assert "the disk is full" in failed.last_line
    assert resumed.code == 0
    assert (project.run / "labels" / "meta.json").is_file()


def test_a_missing_key_is_wrong_use_before_anything_is_asked(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("SHOP_KEY", raising=False)
    teacher = "{kind: llm_api, base_url: 'http://127.0.0.1:9/v1', model: tiny, key_env: SHOP_KEY}"
    outcome = project.distill("label", f"teacher={teacher}", "student.init=encoder")
    assert outcome.code == 2
    assert "found no key in the environment variable SHOP_KEY" in outcome.last_line
