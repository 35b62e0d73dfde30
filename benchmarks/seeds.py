"""Students that differ in their seed alone: what their int8 files answer on test, and what is certain about the mean.

Two intervals, for two questions. Over seeds (Student's t): where the mean of other trainings would lie. Over test rows
(paired bootstrap of the mean over seeds): whether other texts of the same kind would show the same gap.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from runs import FinishedRun, Runs
from scipy import stats

from distill.ablation import ask_teacher
from distill.proof import compare_paired
from distill.quality import Answers, Floats, decide, decide_by
from export.metrics import Interval, macro_f1, paired_bootstrap, row_scores
from export.runtime import Predictor
from teacher.corpus import read_meta, read_part
from teacher.task import Task, TaskKind


@dataclass(frozen=True, slots=True)
class Seeded:
    """Runs of one config with their int8 students' answers on test, the teacher's, and the 0/1 targets (N, C)."""

    runs: Sequence[FinishedRun]
    task: Task
    targets: Floats
    teacher: Answers
    students: Sequence[Answers]

    @property
    def scores(self) -> list[float]:
        """The headline measure of each student."""
        return [score(self.task.kind, student, self.targets) for student in self.students]

    @property
    def teacher_score(self) -> float:
        """The headline measure of the teacher."""
        return score(self.task.kind, self.teacher, self.targets)

    def gap(self) -> Interval:
        """Return the mean student minus the teacher, with the paired bootstrap over test rows."""
        everyone = np.arange(len(self.targets))
        if self.task.kind is TaskKind.SINGLE_LABEL:
            ours = np.mean([row_scores(student.decided, self.targets) for student in self.students], axis=0)
            return paired_bootstrap(ours, row_scores(self.teacher.decided, self.targets) * self.teacher.rows)

        def difference(rows: NDArray[np.intp]) -> float:
            ours = [macro_f1(student.decided[rows], self.targets[rows]) for student in self.students]
            return float(np.mean(ours)) - macro_f1(self.teacher.decided[rows], self.targets[rows])

        return paired_bootstrap(everyone, everyone, difference, samples=500)

    def pairings(self) -> list[dict[str, Any]]:
        """Return McNemar's exact test between each student and the teacher; multi-label: of whole label sets."""
        return [compare_paired(student, self.teacher, self.targets) for student in self.students]


def seeded(runs: Runs, name: str, seeds: int, until: str = "export") -> Seeded:
    """Return the scored runs of configs/`name`.yaml with student seeds 0 to `seeds` - 1, made where missing."""
    made = [runs.seeded(name, seed, until) for seed in range(seeds)]
    corpus = made[0].directory / "corpus"
    meta, test, dev = read_meta(corpus), read_part(corpus, "test"), read_part(corpus, "dev")
    task = Task(meta.kind, tuple(meta.labels))
    targets, dev_targets = (task.targets([example.labels or () for example in part]) for part in (test, dev))
    asked = ask_teacher(made[0].directory / "teacher", corpus)
    teacher = decide_by(task.kind, asked.dev, dev_targets, asked.test)
    texts = [example.text for example in test]
    return Seeded(made, task, targets, teacher, [answer(run, task, texts) for run in made])


def answer(run: FinishedRun, task: Task, texts: Sequence[str]) -> Answers:
    """Return what the int8 file in the bundle of `run` answers, one text at a time as in production."""
    predictor = Predictor.load(run.directory / "bundle", "int8", deterministic=True)
    manifest, given = predictor.manifest, predictor.predict(texts)
    probs = np.array([[*one.probabilities.values()] for one in given], np.float32)
    thresholds = None if manifest.thresholds is None else np.array([*map(manifest.thresholds.get, manifest.labels)])
    return decide(task.kind, probs, None if thresholds is None else thresholds.astype(np.float32))


def score(kind: TaskKind, given: Answers, targets: Floats) -> float:
    """Return accuracy, or macro-F1 of a multi-label model."""
    if kind is TaskKind.MULTI_LABEL:
        return macro_f1(given.decided, targets)
    return float((row_scores(given.decided, targets) * given.rows).mean())


def over_seeds(values: Sequence[float]) -> str:
    """Return the mean in words, with the 95 % t interval of where other seeds would put it."""
    mean, count = float(np.mean(values)), len(values)
    if count < 2:
        return f"{mean:.2%} (one seed)"
    half = float(stats.t.ppf(0.975, count - 1)) * float(np.std(values, ddof=1)) / count**0.5
    return f"{mean:.2%} [{mean - half:.2%}, {mean + half:.2%}] (t over {count} seeds)"


def in_points(gap: Interval) -> str:
    """Return a gap in points with its interval over test rows."""
    return f"{100 * gap.estimate:+.2f} [{100 * gap.low:+.2f}, {100 * gap.high:+.2f}] points (paired over rows)"
