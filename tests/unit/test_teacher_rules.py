"""Facts about rules: how a file of them is run, what is refused, and what their votes become."""

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from distill.scores import dev_score
from teacher.base import read_card
from teacher.encoder import Gold
from teacher.errors import LabelMismatchError, SettingError, TeacherError
from teacher.example import Example, content_id
from teacher.rules import RulesTeacher, fit_rules
from teacher.soft_labels import Rejected
from teacher.spec import RulesSpec
from teacher.task import Task, TaskKind
from tests.conftest import LABELS, corpus_rows

SINGLE, MULTI = Task(TaskKind.SINGLE_LABEL, LABELS), Task(TaskKind.MULTI_LABEL, LABELS)
FILE = """
from teacher.rules import keywords, pattern, rule

keywords("delivery", ["parcel", "courier", "never came"])
pattern("payment", r"\\b(card|invoice|charge)\\b")

@rule
def about_size(text):
    return "size" if "too" in text else None
"""
Fit = Callable[..., RulesTeacher]


def gold_of(rows: list[tuple[str, str]], task: Task = SINGLE) -> Gold:
    examples = [Example(content_id(text), text, tuple(label.split("|"))) for text, label in rows]
    return Gold(task, examples[::2], examples[1::2], dev_score(task.kind))


@pytest.fixture
def fit(tmp_path: Path) -> Fit:
    """Return a function that fits a file of rules and loads it; its directory is tmp_path / "teacher"."""

    def make(source: str = FILE, gold: Gold | None = None, least_votes: int = 1) -> RulesTeacher:
        directory = tmp_path / "teacher"
        directory.mkdir(exist_ok=True)
        (tmp_path / "mine.py").write_text(source, encoding="utf-8")
        spec = RulesSpec(file=str(tmp_path / "mine.py"), least_votes=least_votes)
        fit_rules(spec, gold or gold_of(corpus_rows()), directory)
        return RulesTeacher(directory)

    return make


def test_rules_label_what_they_vote_on_and_reject_the_rest(fit: Fit) -> None:
    teacher = fit()
    answers = teacher.label(["PARCEL never  came!", "the weather", "my card", "it is too small"])
    assert [LABELS[column] for column in answers.probs.argmax(axis=1)] == ["delivery", "payment", "size"]
    assert answers.rejected == (Rejected(content_id("the weather"), "no rule voted"),)
    np.testing.assert_allclose(answers.probs.sum(axis=1), 1, rtol=1e-5)
    assert (answers.method, teacher.parameters) == ("rules", 0)


@pytest.mark.parametrize(("text", "votes"), [("a parcels b", 0), ("(Parcel)", 1), ("never\ncame", 1), ("nevercame", 0)])
def test_keywords_are_whole_words_in_any_case(fit: Fit, text: str, votes: int) -> None:
    assert len(fit().label([text]).ids) == votes


def test_two_rules_that_agree_are_surer_than_one_and_disagreement_is_not_sure(fit: Fit) -> None:
    source = FILE + 'keywords("payment", ["my", "the charge"])\n'
    both, one, torn = fit(source).label(["my card", "invoice", "parcel invoice"]).probs
    assert both[1] > one[1] > torn[1]
    assert torn[0] > one[0]


def test_the_card_puts_the_estimate_beside_what_is_counted_on_dev(fit: Fit, tmp_path: Path) -> None:
    fit(FILE + 'keywords("size", ["my"])\nkeywords("size", ["zebra"])\n')
    rules = {row["name"]: row for row in read_card(tmp_path / "teacher").details["rules"]}
    assert list(rules) == ["keywords delivery", "pattern payment", "about_size", "keywords size", "keywords size 2"]
    dev = corpus_rows()[1::2]
    voted = [label for text, label in dev if " my " in f" {text} "]
    assert rules["keywords size"]["dev_coverage"] == pytest.approx(len(voted) / len(dev), abs=1e-4)
    assert rules["keywords size"]["dev_accuracy"] == voted.count("size") / len(voted) == 0
    assert rules["keywords size"]["estimated_accuracy"] < 0.1
    assert rules["pattern payment"]["dev_accuracy"] == 1
    assert rules["pattern payment"]["estimated_accuracy"] > 0.9
    assert rules["keywords size 2"]["dev_accuracy"] is None
    assert rules["keywords size 2"]["estimated_coverage"] == rules["keywords size 2"]["dev_coverage"] == 0


def test_texts_with_fewer_votes_than_wanted_are_rejected(fit: Fit) -> None:
    answers = fit(least_votes=2).label(["parcel", "parcel invoice", "nothing"])
    assert len(answers.ids) == 1
    assert [one.reason for one in answers.rejected] == ["fewer than 2 rules voted", "no rule voted"]


def test_a_multi_label_rule_votes_for_several_labels(fit: Fit) -> None:
    rows = [(text, f"{label}|size" if "the" in text and label != "size" else label) for text, label in corpus_rows()]
    source = FILE + '@rule\ndef several(text):\n    return ["size", "delivery"] if "the courier" in text else []\n'
    answers = fit(source, gold_of(rows, MULTI)).label(["hello the courier is late", "my card", "zebra"])
    assert (answers.probs[0, [0, 2]] > 0.5).all()
    assert answers.probs[0, 1] < 0.1
    assert answers.probs[1].argmax() == 1
    assert len(answers.rejected) == 1


@pytest.mark.parametrize(
    ("rule", "message"),
    [
        ('return "deliverey"', r"rule 'mine' votes for 'deliverey' on the text .*not among the 3 labels"),
        ("return 3", r"rule 'mine' votes for 3 on the text"),
        ('return ["size", "payment"]', r"rule 'mine' voted for \['size', 'payment'\] on the text .*wanted one label"),
        ("return text[1000]", r"rule 'mine' failed on the text .*: IndexError: string index out of range"),
    ],
)
def test_a_rule_that_goes_wrong_is_told_with_its_name_and_the_text(fit: Fit, rule: str, message: str) -> None:
    with pytest.raises((TeacherError, LabelMismatchError), match=message):
        fit(f"from teacher.rules import rule\n\n@rule\ndef mine(text):\n    {rule}\n")


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("def broken(:\n", "cannot be run: SyntaxError"),
        ("import a_module_nobody_has\n", "cannot be run: ModuleNotFoundError: No module named 'a_module_nobody_has'"),
        ("x = 1\nraise SystemExit(3)\n", r"mine.py cannot be run: SystemExit: 3 \(line 2\)"),
        ("x = 1\n", "has no rule; mark functions with @rule"),
        ("from teacher.rules import pattern\npattern('size', '(')\n", "'\\(' is no regular expression"),
        ("from teacher.rules import keywords\nkeywords('size', 'big')\n", "found 'big', wanted a list of words"),
        ("from teacher.rules import keywords\nkeywords('sise', ['big'])\n", "'keywords sise' votes for 'sise', which"),
    ],
)
def test_a_file_that_cannot_be_used_is_refused_before_any_text_is_read(fit: Fit, source: str, message: str) -> None:
    with pytest.raises((SettingError, LabelMismatchError), match=message):
        fit(source)


def test_rules_that_vote_on_no_gold_text_are_refused(fit: Fit) -> None:
    with pytest.raises(TeacherError, match=r"no rule of .*mine.py votes on any of the 225 gold texts"):
        fit("from teacher.rules import keywords\nkeywords('size', ['zebra'])\n")


def test_the_copy_in_the_directory_answers_when_the_file_is_gone(fit: Fit, tmp_path: Path) -> None:
    before = fit().label(["my parcel"]).probs
    (tmp_path / "mine.py").unlink()
    np.testing.assert_array_equal(RulesTeacher(tmp_path / "teacher").label(["my parcel"]).probs, before)
    assert not (tmp_path / "teacher" / "__pycache__").exists()


def test_the_fingerprint_follows_the_file_and_the_least_votes(fit: Fit) -> None:
    same = fit().fingerprint
    assert fit().fingerprint == same
    assert fit(FILE + "# a comment\n").fingerprint != same
    assert fit(least_votes=2).fingerprint != same


def test_a_rule_stays_a_function_and_its_file_needs_no_torch() -> None:
    code = (
        "import sys; from teacher.rules import rule, keywords; "
        "f = rule(lambda text: 'a'); assert f('x') == 'a'; assert keywords('b', ['x'])('an X') == 'b'; "
        "assert 'torch' not in sys.modules"
    )
    command, root = [sys.executable, "-c", code], Path(__file__).parents[2]
    child = subprocess.run(command, capture_output=True, text=True, check=False, cwd=root)
    assert child.returncode == 0, child.stderr
