"""Facts about scores that a run keeps: nothing is computed twice, and nothing old answers for something new."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from teacher.encoder import Gold
from teacher.kept_scores import Floats, KeptScores
from teacher.kinds import fit_teacher, load_teacher
from teacher.nli import EntailmentReader
from teacher.paid import PaidAnswers
from teacher.spec import CommitteeSpec, NliSpec, PrototypesSpec, TeacherSpec


@pytest.fixture
def members(tiny_classifier: Path, tiny_encoder: Path, tmp_path: Path) -> list[TeacherSpec]:
    """Return an NLI model, which is the tiny classifier under the names of its outputs, and prototypes."""
    folder = shutil.copytree(tiny_classifier, tmp_path / "nli")
    names = ("contradiction", "neutral", "entailment")
    config = json.loads((folder / "config.json").read_text(encoding="utf-8")) | {"problem_type": None}
    config |= {"id2label": dict(enumerate(names)), "label2id": {name: at for at, name in enumerate(names)}}
    (folder / "config.json").write_text(json.dumps(config), encoding="utf-8")
    return [NliSpec(model=str(folder), max_tokens=64), PrototypesSpec(model=str(tiny_encoder))]


class Model:
    """Scores a text by its length and remembers what it was asked."""

    def __init__(self) -> None:
        self.asked: list[list[str]] = []

    def scores(self, texts: list[str]) -> Floats:
        self.asked.append(texts)
        rows = [[len(text) / 3, -1e-7 if text else np.nan] for text in texts]
        return np.array(rows, np.float32)


def test_a_score_is_computed_once_and_comes_back_to_the_bit(paid: PaidAnswers) -> None:
    model, kept = Model(), KeptScores(paid, ["a model"])
    first = kept.scores(["a", "", "bb", "a"], model.scores)
    again = KeptScores(paid, ["a model"]).scores(["bb", "ccc", "a", ""], model.scores)
    assert model.asked == [["a", "", "bb"], ["ccc"]]
    np.testing.assert_array_equal(again[[2, 3, 0, 2]], first)
    assert paid.spent_usd == 0


def test_another_model_finds_nothing(paid: PaidAnswers) -> None:
    model = Model()
    for identity in (["one"], ["two"]):
        KeptScores(paid, identity).scores(["a"], model.scores)
    assert model.asked == [["a"], ["a"]]


def test_without_a_file_nothing_is_kept() -> None:
    model, kept = Model(), KeptScores(None, [])
    for _ in range(2):
        kept.scores(["a"], model.scores)
    assert model.asked == [["a"], ["a"]]


def test_a_member_reads_dev_once_for_its_calibration_the_committee_and_the_report(
    members: list[TeacherSpec], gold: Gold, paid: PaidAnswers, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    read: list[str] = []
    compute = EntailmentReader._score

    def score(reader: EntailmentReader, texts: list[str]) -> Floats:
        read.extend(texts)
        return compute(reader, texts)

    monkeypatch.setattr(EntailmentReader, "_score", score)
    monkeypatch.setattr("teacher.checkpoint.bf16_is_native", lambda: False)
    fit_teacher(CommitteeSpec(members=members), gold, tmp_path / "teacher", paid)
    dev = [row.text for row in gold.dev]
    with_file = load_teacher(tmp_path / "teacher", paid).label(dev)
    assert sorted(read) == sorted(dev)
    without = load_teacher(tmp_path / "teacher").label(dev)  # as it is timed
    assert len(read) == 2 * len(dev)
    np.testing.assert_allclose(with_file.probs, without.probs, atol=1e-5)
