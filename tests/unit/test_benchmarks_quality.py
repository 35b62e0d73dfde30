"""Facts about the figures of benchmarks/quality.py: intervals, recall at an accuracy, time until near the end."""

import json
import sys
from pathlib import Path

import numpy as np
import pytest
from scipy import stats

sys.path.append(str(Path(__file__).resolve().parents[2] / "benchmarks"))

from out_of_scope import recall_at
from quality import seconds_until_near
from runs import FinishedRun
from seeds import Seeded, over_seeds
from small import shrink

from distill.quality import decide
from export.metrics import Interval
from teacher.task import Task, TaskKind
from tests.conftest import write_csv

TASK = Task(TaskKind.SINGLE_LABEL, ("a", "b"))


def test_the_mean_over_seeds_has_a_t_interval() -> None:
    values = [0.93, 0.934, 0.938]
    low, high = stats.t.interval(0.95, 2, loc=np.mean(values), scale=stats.sem(values))
    assert over_seeds(values) == f"93.40% [{low:.2%}, {high:.2%}] (t over 3 seeds)"
    assert over_seeds([0.93]) == "93.00% (one seed)"


def test_the_gap_is_that_of_the_mean_student_paired_over_rows() -> None:
    truth = np.eye(2, dtype=np.float32)[[0] * 10]
    said = ([0] * right + [1] * (10 - right) for right in (6, 8))
    students = [decide(TASK.kind, np.eye(2, dtype=np.float32)[columns], None) for columns in said]
    teacher = decide(TASK.kind, np.eye(2, dtype=np.float32)[[0] * 8 + [1] * 2], None)
    found = Seeded([], TASK, truth, teacher, students)
    gap = found.gap()
    assert isinstance(gap, Interval)
    assert gap.estimate == pytest.approx(0.7 - 0.8)
    assert gap.low < gap.estimate < gap.high <= 0  # no row where a student alone is right
    assert (found.scores, found.teacher_score) == ([0.6, 0.8], 0.8)


def test_recall_is_read_where_the_wanted_accuracy_is_just_left() -> None:
    inside, right = np.arange(10.0), np.array([True] * 9 + [False])
    outside = np.array([-1.0, 0.5, 1.5, 2.5])
    assert recall_at(inside, right, outside, 0.9) == 0.25  # nothing right may be refused
    assert recall_at(inside, right, outside, 0.7) == 0.75  # 0 and 1 may
    assert recall_at(inside, right, outside, 0.95) == 0.0  # not reached at all


def test_training_counts_until_dev_stays_near_its_last_value(tmp_path: Path) -> None:
    scores = [(1.0, 0.90), (2.0, 0.932), (3.0, 0.929), (4.0, 0.931), (5.0, 0.93)]
    log = [{"epoch": epoch, "eval_score": score} for epoch, score in scores] + [{"train_runtime": 500.0, "epoch": 5.0}]
    for name, content in (("student/metrics.json", {"log": log}), ("lineage/student.json", {"seconds": 560.0})):
        (tmp_path / name).parent.mkdir()
        (tmp_path / name).write_text(json.dumps(content))
    assert seconds_until_near(FinishedRun(tmp_path, "")) == (pytest.approx(60 + 500 * 2 / 5), 560.0)


def test_a_smaller_data_set_keeps_some_rows_of_every_label(tmp_path: Path) -> None:
    (tmp_path / "data" / "shop").mkdir(parents=True)
    rows = [(f"text {row}", label) for label, count in (("a", 100), ("b", 4)) for row in range(count)]
    write_csv(tmp_path / "data" / "shop" / "train.csv", ["text", "label"], [*rows])
    found = (shrink(tmp_path / "data", tmp_path / "small", 0.1) / "shop" / "train.csv").read_text().splitlines()
    assert (found[0], len(found)) == ("text,label", 1 + 10 + 3)
