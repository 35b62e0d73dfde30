"""Facts about what the report says of labelling and of a committee: counted, priced, and scored as by hand."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sklearn.metrics import accuracy_score, f1_score

from distill.ablation import AskedTeacher, Members, ablate, ask_teacher
from distill.labelling import describe_labelling
from distill.quality import Answers, Given, decide, decide_by, fill
from distill.tfidf import TfidfClassifier
from teacher.committee import MemberAnswers
from teacher.corpus import Example, read_part
from teacher.encoder import Gold
from teacher.kinds import fit_teacher, load_teacher
from teacher.mixture import mix
from teacher.select import iterate_ids, select_pool
from teacher.soft_labels import LabelStore, Rejected, SoftLabels
from teacher.spec import CommitteeSpec, SelectSpec
from teacher.task import Task, TaskKind

SINGLE, MULTI = TaskKind.SINGLE_LABEL, TaskKind.MULTI_LABEL


def truth(corpus: Path, task: Task, part: Any) -> np.ndarray:
    return task.targets([example.labels or () for example in read_part(corpus, part)])


def perfect(targets: np.ndarray) -> Answers:
    return decide(SINGLE, targets, None)


def write_store(folder: Path, corpus: Path, task: Task, asked: list[Example], rejected: int) -> None:
    """Label `asked` with their own TF-IDF, reject the last of them, and finish the store."""
    gold = read_part(corpus, "gold")
    model = TfidfClassifier(task.kind).fit([one.text for one in gold], truth(corpus, task, "gold"))
    kept, lost = asked[: len(asked) - rejected], asked[len(asked) - rejected :]
    answers = SoftLabels(
        ids=tuple(one.id for one in kept),
        probs=model.probs([one.text for one in kept]),
        outside=np.full(len(kept), 0.25, np.float32),
        method="votes",
        rejected=tuple(Rejected(one.id, "outside the label set", f"said {at}") for at, one in enumerate(lost)),
        cost_usd=np.full(len(kept), 2e-4),
        sources=tuple((gold[0].id, "faq.md#1") if at % 2 else ("faq.md#1",) for at in range(len(kept))),
        disagreement=np.linspace(0, 1, len(kept), dtype=np.float32),
    )
    store = LabelStore(folder, task, "teacher")
    store.append(answers)
    store.finish(corpus="digest")


def test_labelling_is_counted_priced_and_traced_to_its_sources(
    small_corpus: Path, small_task: Task, tmp_path: Path
) -> None:
    pool = read_part(small_corpus, "pool")[:50]
    write_store(tmp_path, small_corpus, small_task, pool, rejected=5)
    targets = truth(small_corpus, small_task, "test")
    answered = np.arange(len(targets)) % 4 > 0
    teacher = decide(SINGLE, targets, None, answered)
    found = describe_labelling(tmp_path, small_corpus, small_task, teacher, seed=0)
    assert (found["rows"], found["rejected"]) == (45, {"outside the label set": 5})
    assert found["rejected_examples"] == [
        {"reason": "outside the label set", "text": pool[45 + at].text, "raw": f"said {at}"} for at in range(3)
    ]
    assert found["rejected_test"] == int((~answered).sum())
    assert found["methods"] == {"votes": 45}
    assert (found["outside"], found["disagreement"]) == (pytest.approx(0.25), pytest.approx(0.5))
    assert (found["cost_usd"], found["cost_per_row_usd"]) == (pytest.approx(45 * 2e-4), pytest.approx(2e-4))
    gold = read_part(small_corpus, "gold")[0]
    assert found["sources"] == {
        "rows": 45,
        "distinct": 2,
        "most": [{"id": "faq.md#1", "text": None, "rows": 45}, {"id": gold.id, "text": gold.text, "rows": 22}],
    }
    assert (found["selection"], found["curve"]) == (None, [])


def test_a_teacher_that_knows_no_price_and_no_source_leaves_dashes(
    small_corpus: Path, small_labels: Path, small_task: Task
) -> None:
    targets = truth(small_corpus, small_task, "test")
    found = describe_labelling(small_labels, small_corpus, small_task, perfect(targets), seed=0)
    assert found["rejected"] == {}
    assert (found["cost_usd"], found["cost_per_row_usd"], found["disagreement"]) == (0.0, None, None)
    assert found["sources"] == {"rows": 0, "distinct": 0, "most": []}


@pytest.mark.parametrize("kind", list(TaskKind))
def test_the_curve_is_that_of_tfidf_on_gold_and_the_first_answers(
    kind: TaskKind, request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    names = ("small_corpus", "small_task") if kind is SINGLE else ("multi_corpus", "multi_task")
    corpus, task = (request.getfixturevalue(name) for name in names)
    selection = select_pool(SelectSpec(strategy="both", budget_rows=32), corpus, task, seed=0)
    selection.write(tmp_path)
    asked = [one for block in iterate_ids(corpus, selection.ids) for one in block]
    write_store(tmp_path, corpus, task, asked, rejected=2)
    dev, test = truth(corpus, task, "dev"), truth(corpus, task, "test")
    teacher = decide(kind, test, None if kind is SINGLE else np.full(test.shape[1], 0.5, np.float32))
    found = describe_labelling(tmp_path, corpus, task, teacher, seed=0)
    assert found["selection"] == {
        "strategy": "both",
        "chosen": 32,
        "pool": selection.pool,
        "candidates": selection.pool,
    }
    assert [point[0] for point in found["curve"]] == [0, 2, 4, 8, 16, 32]
    assert all(low <= score <= high for _, score, low, high in found["curve"])
    texts = {part: [one.text for one in read_part(corpus, part)] for part in ("gold", "dev", "test")}
    model = TfidfClassifier(kind).fit(texts["gold"], truth(corpus, task, "gold")).calibrate(texts["dev"], dev)
    given = decide_by(
        kind,
        Given(model.probs(texts["dev"]), np.ones(len(dev), bool)),
        dev,
        Given(model.probs(texts["test"]), np.ones(len(test), bool)),
    )
    alone = accuracy_score(test, given.decided) if kind is SINGLE else f1_score(test, given.decided, average="macro")
    assert found["curve"][0][1] == pytest.approx(alone)


def test_a_selection_of_which_nothing_was_answered_still_has_a_curve(
    small_corpus: Path, small_task: Task, tmp_path: Path
) -> None:
    asked = select_pool(SelectSpec(strategy="random", budget_rows=4), small_corpus, small_task, seed=0)
    asked.write(tmp_path)
    write_store(tmp_path, small_corpus, small_task, read_part(small_corpus, "gold")[:3], rejected=0)
    targets = truth(small_corpus, small_task, "test")
    curve = describe_labelling(tmp_path, small_corpus, small_task, perfect(targets), seed=0)["curve"]
    assert {tuple(point[1:]) for point in curve} == {tuple(curve[0][1:])}


def committee(corpus: Path, task: Task, kind: TaskKind) -> AskedTeacher:
    """Return the answers of a good member and of one that is worse and rejects every third text."""
    weights = np.array([[0.7], [0.3]], np.float32).repeat(len(task.labels), axis=1)
    sides, wholes = [], []
    for seed, part in enumerate(("dev", "test")):
        targets = truth(corpus, task, part)
        noise = np.random.default_rng(seed).random((2, *targets.shape)).astype(np.float32)
        probs = (0.5 * noise + np.array([0.5, 0.2], np.float32)[:, None, None] * targets).clip(0.001, 0.999)
        if kind is SINGLE:
            probs = probs / probs.sum(axis=2, keepdims=True)
        outside = np.zeros(probs.shape[:2], np.float32)
        outside[1, ::3], probs[1, ::3] = 1, 0
        ids = tuple(one.id for one in read_part(corpus, part))
        side = MemberAnswers(("good", "worse"), ids, probs, outside, ())
        sides.append(side)
        wholes.append(Given(mix(kind, probs, weights, side.presence), np.ones(len(ids), bool)))
    return AskedTeacher(0, wholes[0], wholes[1], Members(sides[0], sides[1], weights))


@pytest.mark.parametrize("kind", list(TaskKind))
def test_each_member_the_uniform_mean_and_the_learned_weights_are_scored_on_dev_and_test(
    kind: TaskKind, request: pytest.FixtureRequest
) -> None:
    names = ("small_corpus", "small_task") if kind is SINGLE else ("multi_corpus", "multi_task")
    corpus, task = (request.getfixturevalue(name) for name in names)
    asked = committee(corpus, task, kind)
    found = ablate(asked, corpus, task, seed=0)
    good, worse, uniform, learned = found["rows"]
    assert found["metric"] == ("accuracy" if kind is SINGLE else "macro_f1")
    assert [row["name"] for row in found["rows"]] == ["good", "worse", "uniform mean", "learned weights"]
    assert (good["weight"], worse["weight"], uniform["weight"]) == (pytest.approx(0.7), pytest.approx(0.3), None)
    test = truth(corpus, task, "test")
    assert (good["answered"], worse["answered"]) == (1.0, pytest.approx(1 - np.ceil(len(test) / 3) / len(test)))
    assert good["test"] > worse["test"]
    for row in found["rows"]:
        assert row["dev_low"] <= row["dev"] <= row["dev_high"]
        assert row["test_low"] <= row["test"] <= row["test_high"]
    assert learned["test"] == learned["alone"] == learned["together"]


def test_a_rejected_row_counts_as_wrong_but_not_where_the_member_is_compared(
    small_corpus: Path, small_task: Task
) -> None:
    asked = committee(small_corpus, small_task, SINGLE)
    assert asked.members is not None
    worse = ablate(asked, small_corpus, small_task, seed=0)["rows"][1]
    test, members = truth(small_corpus, small_task, "test"), asked.members.test
    right = members.probs[1].argmax(axis=1) == test.argmax(axis=1)
    rows = members.answered[1]
    assert worse["test"] == pytest.approx((right & rows).mean())
    assert worse["alone"] == pytest.approx(right[rows].mean())
    together = asked.test.probs.argmax(axis=1) == test.argmax(axis=1)
    assert worse["together"] == pytest.approx(together[rows].mean())


def test_a_real_committee_is_asked_once_and_says_what_it_says_as_a_teacher(
    small_corpus: Path, small_task: Task, tmp_path: Path, tiny_encoder: Path
) -> None:
    members = [{"kind": "prototypes", "model": str(tiny_encoder), "max_tokens": tokens} for tokens in (4, 16)]
    gold = Gold(
        small_task, read_part(small_corpus, "gold"), read_part(small_corpus, "dev"), lambda logits, targets: 0.0
    )
    fit_teacher(CommitteeSpec.model_validate({"kind": "committee", "members": members}), gold, tmp_path / "teacher")
    asked = ask_teacher(tmp_path / "teacher", small_corpus)
    teacher = load_teacher(tmp_path / "teacher")
    texts = [one.text for one in read_part(small_corpus, "test")]
    np.testing.assert_allclose(asked.test.probs, fill(teacher.label(texts), texts).probs, atol=1e-6)
    assert asked.parameters == teacher.parameters
    learned = ablate(asked, small_corpus, small_task, seed=0)["rows"][-1]
    right = asked.test.probs.argmax(axis=1) == truth(small_corpus, small_task, "test").argmax(axis=1)
    assert learned["test"] == pytest.approx(right.mean())


def test_a_single_teacher_has_no_members_to_compare(small_corpus: Path, small_teacher: Path, small_task: Task) -> None:
    asked = ask_teacher(small_teacher, small_corpus)
    assert asked.members is None
    assert ablate(asked, small_corpus, small_task, seed=0) == {"metric": "accuracy", "rows": []}
