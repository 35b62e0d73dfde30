"""Runs that are killed, interrupted or shared by two processes end where an undisturbed run ends."""

import json
import os
import shlex
import signal
import socket
import subprocess
import sys
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from teacher.corpus import read_part
from teacher.files import file_digest
from teacher.soft_labels import read_store
from tests.e2e.conftest import Outcome, Project
from tests.processes import DISTILL, start

Finished = tuple[Project, Outcome]
# Each dies in the middle of the third thing it writes.
KILLED_WHILE_LABELLING = """
import os, signal
from teacher.soft_labels import LabelStore
append, calls = LabelStore.append, []
def append_or_die(store, answers):
    calls.append(1)
    if len(calls) == 3:
        os.kill(os.getpid(), signal.SIGKILL)
    append(store, answers)
LabelStore.append = append_or_die
"""
KILLED_WHILE_SAVING = """
import teacher.finetune
teacher.finetune._ROWS_AT_RISK = 1
import os, signal
from transformers import Trainer
save, calls = Trainer._save_optimizer_and_scheduler, []
def save_or_die(trainer, directory):
    calls.append(1)
    if len(calls) == 3:
        os.kill(os.getpid(), signal.SIGKILL)
    save(trainer, directory)
Trainer._save_optimizer_and_scheduler = save_or_die
"""
LIMIT_SECONDS = 300.0


def soft_labels(project: Project) -> NDArray[np.float32]:
    """Return the stored answers to the pool, in its order."""
    return read_store(project.run / "labels").probs([row.id for row in read_part(project.run / "corpus", "pool")])


def test_labelling_that_was_killed_keeps_its_shards_and_ends_with_the_same_answers(
    finished: Finished, tmp_path: Path
) -> None:
    shards = "label.shard_rows=40"
    killed, whole = (finished[0].copy(tmp_path / name, "corpus", "teacher") for name in ("killed", "whole"))
    code = start(KILLED_WHILE_LABELLING + DISTILL, killed.words("label", shards), tmp_path / "log").end()
    kept = sorted((killed.run / ".labels.partial").glob("part-*.parquet"))
    written = {path.name: path.stat().st_mtime_ns for path in kept}
    assert code == -signal.SIGKILL
    assert len(kept) == 2
    assert not (killed.run / "labels").exists()
    assert [project.distill("label", shards).code for project in (killed, whole)] == [0, 0]
    assert {name: (killed.run / "labels" / name).stat().st_mtime_ns for name in written} == written
    assert np.array_equal(soft_labels(killed), soft_labels(whole))


def test_training_that_was_killed_while_saving_ends_with_the_same_student(finished: Finished, tmp_path: Path) -> None:
    project = finished[0].copy(tmp_path, "corpus", "teacher", "labels")
    code = start(KILLED_WHILE_SAVING + DISTILL, project.words("train"), tmp_path / "log").end()
    saved = {path.parent.name for path in (project.run / ".student.partial").rglob("model.safetensors")}
    whole = {path.parent.name for path in (project.run / ".student.partial").rglob("trainer_state.json")}
    assert code == -signal.SIGKILL
    assert len(saved - whole) == 1  # one checkpoint is torn
    assert whole
    resumed = project.distill("train")
    assert resumed.code == 0, resumed.err
    weights = (finished[0].run / "student" / "model.safetensors", project.run / "student" / "model.safetensors")
    assert file_digest(weights[0]) == file_digest(weights[1])


def test_an_interrupted_run_exits_130_and_prints_the_command_that_resumes(finished: Finished, tmp_path: Path) -> None:
    project = finished[0].copy(tmp_path, "corpus", "teacher", "labels")
    words = project.words("run", "train.epochs=90")
    child = start(DISTILL, words, tmp_path / "log")
    checkpoints = project.run / ".student.partial" / "checkpoints"
    child.wait_until(lambda: any(checkpoints.glob("*/trainer_state.json")))
    child.send(signal.SIGINT)
    assert child.end() == 130
    last_line = child.said().splitlines()[-1]
    assert shlex.split(last_line.partition("resume with: ")[2]) == ["distill", *words]
    assert "train      missing" in project.distill("status", "train.epochs=90").out


def test_two_processes_fill_one_run_directory_with_the_same_result(finished: Finished, tmp_path: Path) -> None:
    alone = finished[0]
    project = alone.copy(tmp_path / "runs", "corpus", "baselines")
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        port = found.getsockname()[1]
    launch = "--multi_gpu --num_processes 2 --num_machines 1 --mixed_precision no --dynamo_backend no --tee 3"
    command = [sys.executable, "-m", "accelerate.commands.launch", *launch.split()]
    command += ["--main_process_ip", "127.0.0.1", "--main_process_port", str(port), "--log_dir", str(tmp_path / "logs")]
    environment = os.environ | {"CUDA_VISIBLE_DEVICES": ""}
    child = subprocess.run(
        [*command, "-m", "distill", *project.words("run")],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
        timeout=LIMIT_SECONDS,
    )
    assert child.returncode == 0, child.stderr + child.stdout
    said = {path.parent.name: path.read_text(encoding="utf-8") for path in (tmp_path / "logs").rglob("std*.log")}
    assert said.keys() == {"0", "1"}  # there were two
    assert not any(f"{stage}:" in said["1"] for stage in ("corpus", "teacher", "train", "report"))
    assert [path.name for path in project.runs.iterdir()] == [project.run.name]
    assert set(project.distill("status").out.split()[1::2]) == {"done"}
    scores = [
        json.loads((one.run / "tuned" / "metrics.json").read_text(encoding="utf-8"))["dev_score"]
        for one in (alone, project)
    ]
    assert abs(scores[0] - scores[1]) <= 0.1
