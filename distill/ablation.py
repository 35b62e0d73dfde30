"""What a teacher says of dev and test, asked once, and what each member of a committee is worth in it.

The figures of dev flatter whatever was fitted there; those of test do not. Chooses nothing.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from distill.quality import Answers, Floats, Given, decide, decide_by, fill, headline
from distill.scores import HEADLINES
from teacher.committee import CommitteeTeacher, MemberAnswers
from teacher.corpus import read_part
from teacher.kinds import load_teacher
from teacher.mixture import cross_fitted, mix
from teacher.paid import PaidAnswers
from teacher.task import Task


@dataclass(frozen=True, slots=True)
class Members:
    """What the members of a committee say of dev and test, and their weights (M, C)."""

    dev: MemberAnswers
    test: MemberAnswers
    weights: Floats


@dataclass(frozen=True, slots=True)
class AskedTeacher:
    """What a fitted teacher says of dev and test; `parameters` is 0 for one that is not here."""

    parameters: int
    dev: Given
    test: Given
    members: Members | None = None


@dataclass(frozen=True, slots=True)
class _Contender:
    """`fitted` are the dev answers that thresholds for test come from, `dev` those that are scored."""

    name: str
    fitted: Given
    dev: Given
    test: Given
    weight: float | None = None


def ask_teacher(directory: Path, corpus: Path, paid: PaidAnswers | None = None) -> AskedTeacher:
    """Ask the teacher in `directory` for all of dev and test, a committee's members one after the other."""
    teacher = load_teacher(directory, paid)
    dev, test = ([example.text for example in read_part(corpus, part)] for part in ("dev", "test"))
    if not isinstance(teacher, CommitteeTeacher):
        return AskedTeacher(teacher.parameters, fill(teacher.label(dev), dev), fill(teacher.label(test), test))
    members = Members(teacher.label_members(dev), teacher.label_members(test), teacher.weights)
    whole = fill(teacher.combine(members.dev), dev), fill(teacher.combine(members.test), test)
    return AskedTeacher(teacher.parameters, *whole, members)


def ablate(asked: AskedTeacher, corpus: Path, task: Task, *, seed: int) -> dict[str, Any]:
    """Return `metric` and `rows`: each member alone, their uniform mean and the learned weights, on dev and test.

    A row has the mean `weight`, the share of test rows `answered`, dev and test with their 95 % intervals (a row that
    was not answered counts as wrong), and on the answered test rows the member (`alone`) beside the committee
    (`together`). On dev the learned weights are scored on rows they were not learned on. No rows without a committee.
    """
    rows: list[dict[str, Any]] = []
    if asked.members is not None:
        parts = (read_part(corpus, part) for part in ("dev", "test"))
        dev, test = (task.targets([example.labels or () for example in part]) for part in parts)
        together = decide_by(task.kind, asked.dev, dev, asked.test)
        for contender in _contenders(task, asked, asked.members, dev):
            given = decide_by(task.kind, contender.fitted, dev, contender.test)
            on_dev = decide_by(task.kind, contender.dev, dev, contender.dev)
            rows.append(
                {
                    "name": contender.name,
                    "weight": contender.weight,
                    "answered": float(given.rows.mean()),
                    **_measured("dev", task, on_dev, dev, seed),
                    **_measured("test", task, given, test, seed),
                    "alone": _score_rows(given.rows, task, given, test, seed),
                    "together": _score_rows(given.rows, task, together, test, seed),
                }
            )
    return {"metric": HEADLINES[task.kind], "rows": rows}


def _contenders(task: Task, asked: AskedTeacher, members: Members, dev_targets: Floats) -> Iterator[_Contender]:
    dev, test = members.dev, members.test
    for place, name in enumerate(dev.names):
        dev_given, test_given = (Given(side.probs[place], side.answered[place]) for side in (dev, test))
        yield _Contender(name, dev_given, dev_given, test_given, float(members.weights[place].mean()))
    uniform = np.full_like(members.weights, 1 / len(members.weights))
    on_dev, on_test = (mix(task.kind, side.probs, uniform, side.presence) for side in (dev, test))
    mean = Given(on_dev, asked.dev.answered)
    yield _Contender("uniform mean", mean, mean, Given(on_test, asked.test.answered))
    on_dev = cross_fitted(task.kind, dev.probs, dev_targets, dev.presence)
    yield _Contender("learned weights", asked.dev, Given(on_dev, asked.dev.answered), asked.test)


def _measured(part: str, task: Task, given: Answers, targets: Floats, seed: int) -> dict[str, float]:
    measured = headline(task.kind, given, targets, seed)
    return {part: measured.estimate, f"{part}_low": measured.low, f"{part}_high": measured.high}


def _score_rows(rows: NDArray[np.bool_], task: Task, given: Answers, targets: Floats, seed: int) -> float | None:
    """Return the headline measure on some rows, None for none."""
    if not rows.any():
        return None
    return headline(task.kind, decide(task.kind, given.probs[rows], given.thresholds), targets[rows], seed).estimate
