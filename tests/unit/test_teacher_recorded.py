"""Facts about recorded answers: what is imported, what is rejected, and how far an answer is trusted."""

import csv
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from distill.scores import dev_score
from teacher.base import read_card
from teacher.encoder import Gold
from teacher.errors import CorpusError, LabelMismatchError, TeacherError
from teacher.example import Example, content_id
from teacher.recorded import RecordedTeacher, fit_recorded
from teacher.recorded_table import NOT_RECORDED
from teacher.soft_labels import Rejected
from teacher.spec import RecordedSpec
from teacher.task import Task, TaskKind

LABELS = ("card_arrival", "Refund-Status", "top up?")
SINGLE, MULTI = Task(TaskKind.SINGLE_LABEL, LABELS), Task(TaskKind.MULTI_LABEL, LABELS)
Fit = Callable[..., RecordedTeacher]


def gold_rows(rows: list[tuple[str, str]], task: Task = SINGLE) -> Gold:
    examples = [Example(content_id(text), text, tuple(filter(None, label.split("|")))) for text, label in rows]
    return Gold(task, examples, examples, dev_score(task.kind))


def write(path: Path, rows: list[dict[str, Any]]) -> Path:
    if path.suffix == ".jsonl":
        path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    elif path.suffix == ".parquet":
        pq.write_table(pa.Table.from_pylist(rows), path)
    else:
        with path.open("w", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, list(rows[0]))
            writer.writeheader()
            writer.writerows(rows)
    return path


@pytest.fixture
def fit(tmp_path: Path) -> Fit:
    """Return a function that imports rows and loads the teacher; its directory is tmp_path / "teacher"."""

    def make(rows: list[dict[str, Any]], gold: Gold | None = None, name: str = "a.csv", **spec: Any) -> RecordedTeacher:
        directory = tmp_path / "teacher"
        directory.mkdir(exist_ok=True)
        answers = write(tmp_path / name, rows)
        if gold is None:
            gold, spec = gold_rows([("unseen", LABELS[0])]), {"trust": 0.8, **spec}
        fit_recorded(RecordedSpec(answers=str(answers), **spec), gold, directory)
        return RecordedTeacher(directory)

    return make


def said(text: str, label: object, **more: Any) -> dict[str, Any]:
    return {"text": text, "label": label, **more}


def test_an_answer_outside_the_label_set_is_rejected_with_what_was_said(fit: Fit, tmp_path: Path) -> None:
    teacher = fit([said("where is it", "card_arrival"), said("money back", "chargeback"), said("empty", "")])
    answers = teacher.label(["money back", "where is it", "empty", "never asked"])
    assert answers.ids == (content_id("where is it"),)
    assert answers.rejected == (
        Rejected(content_id("money back"), "outside the label set", "chargeback"),
        Rejected(content_id("empty"), "no answer", ""),
        Rejected(content_id("never asked"), NOT_RECORDED),
    )
    assert (answers.method, teacher.parameters) == ("recorded", 0)
    details = read_card(tmp_path / "teacher").details
    assert details["rejected"] == {"outside the label set": 1, "no answer": 1}
    assert details["strangers"] == {"chargeback": 1}


def test_every_row_that_is_no_answer_is_told_with_its_number(fit: Fit, tmp_path: Path) -> None:
    fit([said("a", "stranger"), said("b", LABELS[0]), said("", "311"), said("c", " ")])
    lines = (tmp_path / "teacher" / "rejected.jsonl").read_text(encoding="utf-8").splitlines()
    assert [tuple(json.loads(line).values()) for line in lines] == [
        (1, "outside the label set", "stranger", "a"),
        (3, "empty text", "311", ""),
        (4, "no answer", " ", "c"),
    ]


@pytest.mark.parametrize("answer", ["Card Arrival", "card-arrival", "refund_status", "'top up'", "TOP_UP?"])
def test_a_spelling_counts_only_when_asked_for_and_is_logged(fit: Fit, tmp_path: Path, answer: str) -> None:
    rows = [said("hello", answer), said("other", "card_arrival")]
    assert fit(rows).label(["hello"]).rejected[0].raw == answer
    assert fit(rows, match="normalised").label(["hello"]).ids == (content_id("hello"),)
    matched = read_card(tmp_path / "teacher").details["matched"]
    assert [(name, rows) for name, _, rows in matched] == [(answer, 1)]


@pytest.mark.parametrize("answer", ["the answer is card_arrival", "card", "card_arrivals", "cardarrival or top up"])
def test_an_answer_that_only_resembles_a_label_is_never_matched(fit: Fit, answer: str) -> None:
    teacher = fit([said("hello", answer), said("other", "card_arrival")], match="normalised")
    assert teacher.label(["hello"]).rejected == (Rejected(content_id("hello"), "outside the label set", answer),)


def test_a_spelling_that_two_labels_share_matches_neither(fit: Fit, tmp_path: Path) -> None:
    task = Task(TaskKind.SINGLE_LABEL, ("top up", "top_up", "other"))
    rows = [said("a", "TopUp"), said("b", "top_up")]
    teacher = fit(rows, gold_rows([("x", "other")], task), match="normalised", trust=0.8)
    answers = teacher.label(["a", "b"])
    assert answers.rejected == (Rejected(content_id("a"), "outside the label set", "TopUp"),)
    assert answers.probs.argmax(axis=1).tolist() == [1]
    assert read_card(tmp_path / "teacher").details["ambiguous"] == ["top up", "top_up"]


def test_a_text_is_found_in_another_case_only_under_match_normalised(fit: Fit) -> None:
    rows = [said("Where is  my card?", "card_arrival")]
    assert len(fit(rows).label(["Where is my card?", "where is my card"]).ids) == 1
    answers = fit(rows, match="normalised").label(["where is my card", "where is her card"])
    assert answers.ids == (content_id("where is my card"),)
    assert answers.rejected[0].reason == NOT_RECORDED


@pytest.mark.parametrize("name", ["a.csv", "a.tsv", "a.jsonl", "a.parquet"])
def test_every_type_of_file_is_imported(fit: Fit, tmp_path: Path, name: str) -> None:
    if name == "a.tsv":
        (tmp_path / name).write_text("text\tlabel\nhello\ttop up?\n", encoding="utf-8")
        fit_recorded(RecordedSpec(answers=str(tmp_path / name), trust=0.8), gold_rows([("x", LABELS[0])]), tmp_path)
        teacher = RecordedTeacher(tmp_path)
    else:
        teacher = fit([said("hello", "top up?")], name=name)
    np.testing.assert_allclose(teacher.label(["hello"]).probs, [[0.1, 0.1, 0.8]], rtol=1e-5)


def test_answers_may_be_keyed_by_content_id(fit: Fit, tmp_path: Path) -> None:
    rows = [{"key": content_id("hello"), "label": "top up?"}, {"key": "17", "label": "top up?"}]
    teacher = fit(rows, id="key")
    assert teacher.label(["hello", "17"]).ids == (content_id("hello"),)
    assert read_card(tmp_path / "teacher").details["rejected"] == {"not a content id": 1}


def test_trust_is_how_often_each_answer_is_right_on_gold_drawn_to_the_common_share(fit: Fit, tmp_path: Path) -> None:
    gold = [(f"good {row}", LABELS[0]) for row in range(40)] + [(f"bad {row}", LABELS[row % 2]) for row in range(40)]
    rows = [said(f"good {row}", LABELS[0]) for row in range(40)] + [said(f"bad {row}", LABELS[1]) for row in range(40)]
    teacher = fit(rows, gold_rows(gold))
    right, wrong = teacher.label(["good 0", "bad 0"]).probs
    common = (60 + 1) / (80 + 2)
    assert right[0] == pytest.approx((40 + 5 * common) / 45, rel=1e-4)
    assert wrong[1] == pytest.approx((20 + 5 * common) / 45, rel=1e-4)
    # Where the second label was wrong the first was true: it gets nearly all the rest.
    assert wrong[0] > 5 * wrong[2]
    assert right[1] == pytest.approx(right[2])
    assert read_card(tmp_path / "teacher").details["gold"]["dev"] == {"rows": 80, "answered": 80, "score": 0.75}


def test_trust_without_a_gold_row_is_not_guessed(fit: Fit) -> None:
    with pytest.raises(TeacherError, match=r"none of the 1 gold texts has a recorded answer .*set teacher.trust"):
        fit([said("hello", LABELS[0])], gold_rows([("unseen", LABELS[0])]))


def test_models_vote_and_one_of_them_may_be_taken_alone(fit: Fit) -> None:
    rows = [
        said("hello", label, model=name) for name, label in zip("abc", [LABELS[0], LABELS[0], LABELS[2]], strict=True)
    ]
    rows.append(rows[2])  # the same vote twice is one vote
    rows.append(said("hello", "stranger", model="d"))
    together = fit(rows, model="model").label(["hello"])
    np.testing.assert_allclose(together.probs, [[(1.6 + 0.1) / 3, 0.1, (0.2 + 0.8) / 3]], rtol=1e-4)
    np.testing.assert_allclose(together.outside, [0.25])
    alone = fit(rows, only_model="c").label(["hello"])
    np.testing.assert_allclose(alone.probs, [[0.1, 0.1, 0.8]], rtol=1e-5)


def test_an_unknown_model_is_told_with_those_in_the_file(fit: Fit) -> None:
    with pytest.raises(TeacherError, match="no row of the model 'gpt'; its models are: 'claude'"):
        fit([said("hello", LABELS[0], model="claude")], only_model="gpt")


def distributed(*cells: object) -> list[dict[str, Any]]:
    return [{"text": f"text {row}", "answer": cell} for row, cell in enumerate(cells)]


def test_a_distribution_is_aligned_by_name(fit: Fit) -> None:
    shares = {"top up?": 0.7, "card_arrival": 0.2, "Refund-Status": 0.1}
    for name, cell in (("a.csv", json.dumps(shares)), ("a.jsonl", shares), ("a.parquet", shares)):
        answers = fit(distributed(cell), name=name, distribution="answer").label(["text 0"])
        np.testing.assert_allclose(answers.probs, [[0.2, 0.1, 0.7]], rtol=1e-5)
        assert answers.outside.tolist() == [0]


def test_the_mass_that_a_partial_distribution_leaves_is_outside(fit: Fit) -> None:
    rows = distributed('{"top up?": 0.6}', '{"card_arrival": 0.3, "other": 0.6}', '{"other": 1.0}')
    answers = fit(rows, distribution="answer").label(["text 0", "text 1", "text 2"])
    np.testing.assert_allclose(answers.probs, [[0, 0, 1], [1, 0, 0]], atol=1e-6)
    np.testing.assert_allclose(answers.outside, [0.4, 0.7], rtol=1e-5)
    assert answers.rejected == (Rejected(content_id("text 2"), "outside the label set", '{"other": 1.0}'),)


@pytest.mark.parametrize("cell", ["0.3", "{cut", '{"top up?": -0.1}', '{"top up?": 0.9, "card_arrival": 0.4}', "[1]"])
def test_what_is_no_distribution_is_rejected_with_what_was_found(fit: Fit, cell: str) -> None:
    rows = distributed(cell, '{"top up?": 1.0}', '{"card_arrival": 0.5}')
    rejected = fit(rows, distribution="answer").label(["text 0"]).rejected
    assert rejected == (Rejected(content_id("text 0"), "not a distribution", cell),)


def test_distributions_over_other_labels_are_refused_with_both_sides(fit: Fit) -> None:
    rows = distributed(*['{"card_arrival": 0.5, "Refund-Status": 0.3, "topup": 0.2}'] * 3)
    with pytest.raises(LabelMismatchError, match=r"only in what was found: 'topup'; .*only in what is wanted: 'top up"):
        fit(rows, distribution="answer")


def test_a_file_that_answers_no_label_at_all_is_refused(fit: Fit) -> None:
    with pytest.raises(LabelMismatchError, match=r"every answer in .* found 'spam', 'ham'; wanted 'card_arrival'"):
        fit([said("a", "spam"), said("b", "spam"), said("c", "ham")])


def test_distributions_are_calibrated_on_dev(fit: Fit, tmp_path: Path) -> None:
    shy = json.dumps({"card_arrival": 0.4, "Refund-Status": 0.35, "top up?": 0.25})
    gold = gold_rows([(f"text {row}", LABELS[0]) for row in range(30)])
    rows = [{"text": f"text {row}", "answer": shy} for row in range(31)]
    assert fit(rows, gold, distribution="answer").label(["text 30"]).probs[0, 0] > 0.9
    assert read_card(tmp_path / "teacher").temperature < 1
    few = gold_rows([(f"text {row}", LABELS[0]) for row in range(5)])
    assert fit(rows, few, distribution="answer").label(["text 30"]).probs[0, 0] == pytest.approx(0.4, rel=1e-4)


@pytest.mark.parametrize("cell", ["card_arrival;top up?", '["card_arrival", "top up?"]'])
def test_several_labels_are_joined_by_a_separator_or_in_a_json_list(fit: Fit, cell: str) -> None:
    gold = gold_rows([(f"gold {row}", "card_arrival|top up?" if row % 2 else "") for row in range(40)], MULTI)
    rows = [said(f"gold {row}", cell if row % 2 else "[]") for row in range(40)]
    answers = fit([*rows, said("hello", cell)], gold, separator=";").label(["hello", "gold 0"])
    assert (answers.probs[0, [0, 2]] > 0.9).all()
    assert answers.probs[0, 1] < 0.1
    assert (answers.probs[1] < 0.1).all()


def test_strangers_beside_labels_are_mass_outside(fit: Fit) -> None:
    gold = gold_rows([("unseen", LABELS[0])], MULTI)
    answers = fit([said("hello", "card_arrival|fraud"), said("b", "fraud")], gold, trust=0.8).label(["hello", "b"])
    np.testing.assert_allclose(answers.probs, [[0.8, 0.2, 0.2]], rtol=1e-5)
    np.testing.assert_allclose(answers.outside, [0.5])
    assert answers.rejected[0].raw == "fraud"


def test_a_multi_label_distribution_must_name_every_label(fit: Fit) -> None:
    gold = gold_rows([("unseen", LABELS[0])], MULTI)
    rows = distributed('{"card_arrival": 0.9, "top up?": 0.6, "Refund-Status": 0.2}', '{"card_arrival": 0.9}')
    np.testing.assert_allclose(
        fit(rows[:1], gold, distribution="answer").label(["text 0"]).probs, [[0.9, 0.2, 0.6]], rtol=1e-4
    )
    with pytest.raises(LabelMismatchError, match="only in what is wanted: 'Refund-Status', 'top up"):
        fit(rows, gold, distribution="answer")


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ({"label": "lable"}, "no column 'lable'.*did you mean 'label'.*Set text, id, label"),
        ({"model": "who"}, "no column 'who'"),
        ({"id": "text"}, r"no row that can be looked up \(1 x not a content id\)"),
    ],
)
def test_a_file_that_cannot_be_used_says_what_to_change(fit: Fit, spec: dict[str, Any], message: str) -> None:
    with pytest.raises((CorpusError, TeacherError), match=message):
        fit([said("hello", LABELS[0])], **spec)


def test_the_fingerprint_follows_an_answer_and_the_trust_in_it(fit: Fit) -> None:
    rows = [said("hello", LABELS[0]), said("there", LABELS[1])]
    same = fit(rows).fingerprint
    assert fit(rows).fingerprint == same
    assert fit(rows, trust=0.9).fingerprint != same
    assert fit([rows[0], said("there", LABELS[2])]).fingerprint != same


def test_a_loaded_teacher_needs_the_imported_file_no_more(fit: Fit, tmp_path: Path) -> None:
    fit([said("hello", LABELS[0])])
    (tmp_path / "a.csv").unlink()
    assert RecordedTeacher(tmp_path / "teacher").label(["hello", "hello"]).probs.shape == (2, 3)


def test_asking_for_nothing_gives_nothing(fit: Fit) -> None:
    assert fit([said("hello", LABELS[0])]).label([]).probs.shape == (0, 3)
