from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from distill.scores import dev_score
from teacher.base import read_card
from teacher.committee import CommitteeTeacher, fit_committee
from teacher.encoder import Gold
from teacher.errors import TeacherError
from teacher.example import Example, content_id
from teacher.mixture import mix
from teacher.soft_labels import Rejected, SoftLabels
from teacher.task import Task, TaskKind
from tests.members import ROWS, TRUTH, Floats, member

LABELS = ("delivery", "payment", "size")
TASK = Task(TaskKind.SINGLE_LABEL, LABELS)
TEXTS = [f"text {row}" for row in range(ROWS)]


class TableTeacher:
    """Answers from a table, so that a test decides how good a member is and which rows it rejects."""

    parameters = 10

    def __init__(
        self, probs: Floats, fingerprint: str = "one", *, method: str = "table", task: Task = TASK, **columns: object
    ) -> None:
        self.task, self.fingerprint = task, fingerprint
        self._probs, self._method, self._columns = probs, method, columns
        self.rejects: set[str] = set()

    def label(self, texts: Sequence[str]) -> SoftLabels:
        kept = [text for text in texts if text not in self.rejects]
        rows = [TEXTS.index(text) for text in kept]
        outside = self._columns.get("outside", np.zeros(ROWS, np.float32))
        cost, sources = self._columns.get("cost"), self._columns.get("sources")
        return SoftLabels(
            tuple(content_id(text) for text in kept),
            self._probs[rows],
            outside[rows],  # type: ignore[index]
            self._method,
            rejected=tuple(
                Rejected(content_id(text), "no answer", f"{self._method}!", cost)  # type: ignore[arg-type]
                for text in texts
                if text in self.rejects
            ),
            cost_usd=None if cost is None else np.full(len(kept), cost),  # type: ignore[arg-type]
            sources=None if sources is None else tuple((*sources, text) for text in kept),  # type: ignore[misc]
        )


def gold(task: Task = TASK) -> Gold:
    rows = [Example(content_id(text), text, (LABELS[label],)) for text, label in zip(TEXTS, TRUTH, strict=True)]
    return Gold(task, rows, rows, dev_score(task.kind))


def committee(members: Sequence[TableTeacher], directory: Path, task: Task = TASK) -> CommitteeTeacher:
    fit_committee(members, gold(task), directory)
    return CommitteeTeacher(directory, members)


@pytest.mark.parametrize("kind", list(TaskKind))
def test_a_committee_is_at_least_as_good_as_its_members(tmp_path: Path, kind: TaskKind) -> None:
    task = Task(kind, LABELS)
    members = [TableTeacher(member({0, 1}, 1), task=task), TableTeacher(member({1, 2}, 2), task=task)]

    def loss(probs: Floats) -> float:
        return float(-np.log(np.clip(probs[np.arange(ROWS), TRUTH], 1e-9, 1)).mean())

    fitted = committee(members, tmp_path, task)
    answers = fitted.label(TEXTS)
    assert loss(answers.probs) < min(loss(one.label(TEXTS).probs) for one in members)
    assert (fitted.parameters, answers.method) == (20, "committee")


def test_a_loaded_committee_answers_with_the_mean_at_the_fitted_temperature(tmp_path: Path) -> None:
    members = [TableTeacher(member({0, 1, 2}, seed)) for seed in (1, 2)]
    fitted = committee(members, tmp_path)
    probs = np.stack([one.label(TEXTS).probs for one in members])
    tempered = mix(TaskKind.SINGLE_LABEL, probs, fitted.weights) ** (1 / fitted.temperature)
    wanted = tempered / tempered.sum(axis=1, keepdims=True)
    np.testing.assert_allclose(fitted.label(TEXTS).probs, wanted, rtol=1e-4)
    assert fitted.temperature != 1


def test_the_fingerprint_follows_the_members(tmp_path: Path) -> None:
    prints = [
        committee([TableTeacher(member({0}, 1), name), TableTeacher(member({1}, 2), "x")], tmp_path).fingerprint
        for name in ("one", "two", "one")
    ]
    assert prints[0] == prints[2] != prints[1]


def test_a_text_that_one_member_rejects_is_answered_by_the_others_alone(tmp_path: Path) -> None:
    members = [TableTeacher(member({0, 1, 2}, 1)), TableTeacher(member({0, 1}, 2))]
    members[0].rejects = {TEXTS[1], TEXTS[4]}
    fitted = committee(members, tmp_path)
    answers = fitted.label(TEXTS[:5])
    alone = members[1].label([TEXTS[1]]).probs ** (1 / fitted.temperature)
    assert answers.ids == tuple(content_id(text) for text in TEXTS[:5])
    np.testing.assert_allclose(answers.probs[1], (alone / alone.sum())[0], rtol=1e-4)
    assert answers.disagreement is not None
    assert answers.disagreement[1] == pytest.approx(0)
    assert answers.disagreement[0] > 0


def test_a_text_that_all_members_reject_is_rejected_with_what_each_said(tmp_path: Path) -> None:
    members = [TableTeacher(member({0}, seed), method=name) for seed, name in ((1, "nli"), (2, "rules"))]
    for one in members:
        one.rejects = {TEXTS[7]}
    answers = committee(members, tmp_path).label(TEXTS[6:9])
    assert answers.ids == (content_id(TEXTS[6]), content_id(TEXTS[8]))
    assert answers.rejected == (Rejected(content_id(TEXTS[7]), "no answer", "nli: nli! / rules: rules!"),)


def test_what_a_member_was_paid_for_a_text_that_it_rejected_is_counted(tmp_path: Path) -> None:
    members = [TableTeacher(member({0}, 1), cost=0.5), TableTeacher(member({1}, 2))]
    members[0].rejects = {TEXTS[3], TEXTS[4]}
    members[1].rejects = {TEXTS[4]}
    answers = committee(members, tmp_path).label(TEXTS[2:5])
    assert answers.cost_usd is not None
    assert answers.cost_usd.tolist() == [0.5, 0.5]
    assert [one.cost_usd for one in answers.rejected] == [0.5]


def test_a_text_that_stands_twice_is_answered_twice(tmp_path: Path) -> None:
    members = [TableTeacher(member({0}, 1)), TableTeacher(member({1}, 2))]
    members[0].rejects = {TEXTS[3]}
    answers = committee(members, tmp_path).label([TEXTS[3], TEXTS[0], TEXTS[3]])
    assert len(answers.ids) == 3
    np.testing.assert_array_equal(answers.probs[0], answers.probs[2])


def test_mass_outside_the_labels_survives_the_committee(tmp_path: Path) -> None:
    outside = np.full(ROWS, 0.5, np.float32)
    members = [TableTeacher(member({0, 1, 2}, 1), outside=outside), TableTeacher(member({0, 1, 2}, 1))]
    fitted = committee(members, tmp_path)
    answers = fitted.label(TEXTS[:4])
    np.testing.assert_allclose(answers.outside, 0.5 * fitted.weights[0].mean(), rtol=1e-4)
    np.testing.assert_allclose(answers.probs.sum(axis=1), 1, rtol=1e-5)


def test_prices_add_up_and_sources_are_joined(tmp_path: Path) -> None:
    paid = TableTeacher(member({0}, 1), cost=0.02, sources=("a", "b"))
    other = TableTeacher(member({1}, 2), cost=0.01, sources=("b", "c"))
    other.rejects = {TEXTS[1]}
    answers = committee([paid, TableTeacher(member({2}, 3)), other], tmp_path).label(TEXTS[:2])
    np.testing.assert_allclose(answers.cost_usd, [0.03, 0.03])
    assert answers.sources == (("a", "b", TEXTS[0], "c"), ("a", "b", TEXTS[1]))


def test_members_that_know_no_price_and_no_source_give_none(tmp_path: Path) -> None:
    answers = committee([TableTeacher(member({0}, 1)), TableTeacher(member({1}, 2))], tmp_path).label(TEXTS[:2])
    assert answers.cost_usd is None
    assert answers.sources is None


def test_the_ablation_scores_each_member_the_uniform_mean_and_the_learned_weights(tmp_path: Path) -> None:
    good, poor = TableTeacher(member({0, 1, 2}, 1), method="encoder"), TableTeacher(member({0}, 2), method="rules")
    poor.rejects = set(TEXTS[60:])
    committee([good, poor, poor], tmp_path)
    rows = {row["name"]: row for row in read_card(tmp_path).details["ablation"]}
    assert list(rows) == ["encoder", "rules 1", "rules 2", "uniform mean", "learned weights"]
    assert [row["answered"] for row in rows.values()] == [240, 60, 60, 240, 240]
    assert {row["rows"] for row in rows.values()} == {240}
    right = member({0}, 2)[:60].argmax(axis=1) == TRUTH[:60]
    assert rows["rules 1"]["score"] == pytest.approx(right.mean())
    assert rows["learned weights"]["score"] > rows["uniform mean"]["score"]
    assert rows["rules 1"]["together"] > rows["rules 1"]["score"]
    assert rows["learned weights"]["together"] == rows["learned weights"]["score"]


def test_a_member_that_answers_nothing_has_no_score(tmp_path: Path) -> None:
    silent = TableTeacher(member({0}, 1), method="recorded")
    silent.rejects = set(TEXTS)
    committee([TableTeacher(member({0, 1}, 2)), silent], tmp_path)
    rows = read_card(tmp_path).details["ablation"]
    assert (rows[1]["name"], rows[1]["answered"], rows[1]["score"]) == ("recorded", 0, None)
    assert rows[0]["score"] == rows[3]["score"]


def test_a_committee_that_answers_no_dev_text_is_refused(tmp_path: Path) -> None:
    members = [TableTeacher(member({0}, seed)) for seed in (1, 2)]
    for one in members:
        one.rejects = set(TEXTS)
    with pytest.raises(TeacherError, match="no member of the committee answers any of the 240 dev texts"):
        committee(members, tmp_path)
    assert not (tmp_path / "teacher.json").exists()


def test_a_member_that_answers_in_another_order_is_refused(tmp_path: Path) -> None:
    class Reversed(TableTeacher):
        def label(self, texts: Sequence[str]) -> SoftLabels:
            return super().label(list(texts)[::-1])

    with pytest.raises(TeacherError, match="in another order"):
        committee([TableTeacher(member({0}, 1)), Reversed(member({0}, 1))], tmp_path)
