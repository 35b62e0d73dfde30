"""A committee of three kinds on a real corpus: prototypes, rules in a file, and answers that somebody recorded."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from teacher.base import read_card
from teacher.soft_labels import read_store
from tests.conftest import LABELS, corpus_rows, write_csv
from tests.e2e.conftest import MakeProject, Outcome, Project

RULES = """
from teacher.rules import keywords, rule

keywords("delivery", ["parcel", "courier", "package"])
keywords("payment", ["card", "invoice", "charge"])

@rule
def clothes(text):
    return "size" if "shirt" in text or "dress" in text else None
"""


def recorded(rows: list[tuple[str, str]]) -> list[tuple[str, ...]]:
    """Return answers to every third text: mostly right, some in another spelling, some that are no label."""
    spoiled = {0: "Delivery", 1: "refund", 2: ""}
    return [
        (text.upper(), spoiled.get(row % 25, label) if row % 25 in spoiled else label)
        for row, (text, label) in enumerate(rows[::3])
    ]


@pytest.fixture(scope="module")
def labelled(make_project: MakeProject, tmp_path_factory: pytest.TempPathFactory) -> tuple[Project, Outcome]:
    """Return a project whose pool was labelled by the committee."""
    folder = tmp_path_factory.mktemp("committee")
    members: list[dict[str, Any]] = [
        {"kind": "prototypes", "model": "encoder"},
        {"kind": "rules", "file": "mine.py"},
        {"kind": "recorded", "answers": "answers.csv", "label": "said", "match": "normalised"},
    ]
    project = make_project(folder, teacher={"kind": "committee", "members": members})
    (folder / "mine.py").write_text(RULES, encoding="utf-8")
    write_csv(folder / "answers.csv", ["text", "said"], recorded(corpus_rows()))
    return project, project.distill("label")


def test_members_that_reject_texts_leave_them_to_the_others(labelled: tuple[Project, Outcome]) -> None:
    project, outcome = labelled
    assert outcome.code == 0, outcome.err
    store = read_store(project.run / "labels")
    assert store.meta.rows == 300
    assert not store.meta.rejected


def test_the_committee_remembers_what_each_member_is_worth(labelled: tuple[Project, Outcome]) -> None:
    project, _ = labelled
    details = read_card(project.run / "teacher").details
    weights = np.array(details["weights"])
    answered = {row["name"]: row["answered"] for row in details["ablation"]}
    np.testing.assert_allclose(weights.sum(axis=0), np.ones(len(LABELS)), rtol=1e-5)
    assert list(answered) == ["prototypes", "rules", "recorded", "uniform mean", "learned weights"]
    assert answered["recorded"] < answered["rules"] < answered["prototypes"] == answered["learned weights"] == 60


def test_every_recorded_row_is_accounted_for(labelled: tuple[Project, Outcome]) -> None:
    project, _ = labelled
    member = project.run / "teacher" / "member-2"
    details = read_card(member).details
    lines = (member / "rejected.jsonl").read_text(encoding="utf-8").splitlines()
    assert details["rows"] == 150
    assert details["rejected"] == {"outside the label set": 6, "no answer": 6}
    assert details["matched"] == [["Delivery", "delivery", 6]]
    assert {json.loads(line)["raw"] for line in lines} == {"refund", ""}


def test_another_rules_file_makes_the_teacher_stale(labelled: tuple[Project, Outcome]) -> None:
    project, _ = labelled
    before = project.distill("status").out
    rules: Path = project.folder / "mine.py"
    rules.write_text(RULES + "# changed\n", encoding="utf-8")
    after = project.distill("status").out
    rules.write_text(RULES, encoding="utf-8")
    assert "stale" not in before
    assert "stale" in after


def test_a_rule_for_a_label_that_is_not_there_stops_the_run_in_one_line(labelled: tuple[Project, Outcome]) -> None:
    project, _ = labelled
    (project.folder / "wrong.py").write_text("from teacher.rules import keywords\nkeywords('colour', ['red'])\n")
    outcome = project.distill("label", "name=wrong", "teacher={kind: rules, file: wrong.py}", "student.init=encoder")
    assert outcome.code != 0
    assert "the rule 'keywords colour' votes for 'colour'" in outcome.last_line


@pytest.mark.usefixtures("quick_cold_start")
def test_a_run_goes_through_when_the_teacher_rejects_texts_of_a_selection_and_has_no_model(
    make_project: MakeProject, tmp_path: Path
) -> None:
    project = make_project(
        tmp_path,
        teacher={"kind": "rules", "file": "mine.py"},
        label={"weak_teacher": "warn", "select": {"strategy": "both", "budget_rows": 120}},
        student={"layers": 2, "init": "encoder"},
    )
    (tmp_path / "mine.py").write_text(RULES, encoding="utf-8")
    outcome = project.distill("run")
    assert outcome.code == 0, outcome.err
    report = json.loads((project.run / "report.json").read_text(encoding="utf-8"))
    labelling = report["labelling"]
    assert labelling["rejected"]["no rule voted"] > 0
    assert labelling["rows"] + sum(labelling["rejected"].values()) == 120
    assert labelling["curve"]
    assert "teacher" not in report["latency"]
    assert report["size"]["teacher_parameters"] is None
    assert (project.run / "report.html").stat().st_size < 2_000_000
