from functools import partial
from pathlib import Path

import numpy as np
import pytest

from distill.scores import dev_score
from teacher.base import read_card
from teacher.corpus import iterate_part, read_part
from teacher.encoder import Gold
from teacher.errors import TeacherError
from teacher.finetune import FineTuner
from teacher.kinds import encoder_of, fit_teacher, load_teacher
from teacher.neighbours import spread_answers
from teacher.self_training import fit_self_training
from teacher.soft_labels import Rejected, SoftLabels
from teacher.spec import EncoderSpec, PrototypesSpec, SelfTrainingSpec
from teacher.task import Task


@pytest.fixture
def gold(small_corpus: Path, small_task: Task) -> Gold:
    """Return six gold rows, the dev rows and the pool of the small corpus."""
    few, dev = read_part(small_corpus, "gold")[:6], read_part(small_corpus, "dev")
    return Gold(small_task, few, dev, dev_score(small_task.kind), pool=partial(iterate_part, small_corpus, "pool"))


class Oracle:
    """Knows the label of every text by the words in it, and answers every other text, or all of them."""

    fingerprint, parameters = "oracle", 0
    signs = (("parcel", "courier", "package", "order"), ("card", "invoice", "charge", "refund"))

    def __init__(self, task: Task, rejects: bool = True) -> None:
        self.task = task
        self.rejects = rejects
        self.asked: list[str] = []

    def label(self, texts: list[str]) -> SoftLabels:
        self.asked += texts
        answers = SoftLabels((), np.zeros((0, 3), np.float32), np.zeros(0, np.float32), "oracle")
        from teacher.example import content_id

        ids, probs, lost = [], [], []
        for row, text in enumerate(texts):
            if self.rejects and row % 2:
                lost.append(Rejected(content_id(text), "odd"))
                continue
            label = next((at for at, signs in enumerate(self.signs) if any(sign in text for sign in signs)), 2)
            ids.append(content_id(text))
            probs.append(np.full(3, 0.05) + 0.85 * np.eye(3)[label])
        return SoftLabels(
            tuple(ids), np.array(probs, np.float32), np.zeros(len(ids), np.float32), answers.method, tuple(lost)
        )


def spec(model: Path, **changes: object) -> SelfTrainingSpec:
    """Return a spec whose first teacher is never fitted here."""
    first = PrototypesSpec(model=str(model))
    fields = {"epochs": 12, "learning_rate": 1e-2, "head_learning_rate": 1e-2, "max_tokens": 32, "rounds": 1}
    return SelfTrainingSpec(model=str(model), teacher=first, **{**fields, **changes})  # type: ignore[arg-type]


def test_the_encoder_learns_from_the_pool_what_six_gold_rows_cannot_tell(
    gold: Gold, tiny_encoder: Path, tmp_path: Path
) -> None:
    texts, truth = [one.text for one in gold.dev], gold.targets(gold.dev).argmax(axis=1)
    alone = EncoderSpec(
        model=str(tiny_encoder), epochs=12, learning_rate=1e-2, head_learning_rate=1e-2, max_tokens=32, soup=1
    )
    fit_teacher(alone, gold, tmp_path / "alone")
    (tmp_path / "trained").mkdir()
    fit_self_training(spec(tiny_encoder), gold, lambda known: Oracle(known.task), tmp_path / "trained")
    right = [
        float((load_teacher(tmp_path / name).label(texts).probs.argmax(axis=1) == truth).mean())
        for name in ("alone", "trained")
    ]
    assert right[1] > max(right[0], 0.7)


def test_gold_is_not_asked_about_dev_once_and_no_more_of_the_pool_than_wanted(
    gold: Gold, tiny_encoder: Path, tmp_path: Path
) -> None:
    oracle = Oracle(gold.task)
    fit_self_training(spec(tiny_encoder, pool_rows=20, epochs=1), gold, lambda known: oracle, tmp_path)
    dev = {one.text for one in gold.dev}
    assert len(oracle.asked) == len(set(oracle.asked)) == 20 + len(dev)
    assert dev <= set(oracle.asked)
    assert not {one.text for one in gold.train} & set(oracle.asked)


def test_answers_spread_to_neighbours_unless_the_config_says_none(
    gold: Gold, tiny_encoder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked, oracle = [], Oracle(gold.task)

    def spread(vectors: np.ndarray, probs: np.ndarray, neighbours: int) -> np.ndarray:
        asked.append(neighbours)
        return spread_answers(vectors, probs, neighbours)

    monkeypatch.setattr("teacher.self_training.spread_answers", spread)
    for neighbours in (None, 4):
        (tmp_path / str(neighbours)).mkdir()
        changes = {"epochs": 1, "rounds": 2, "neighbours": neighbours}
        fit_self_training(spec(tiny_encoder, **changes), gold, lambda known: oracle, tmp_path / str(neighbours))
    assert asked == [4, 4, 4]  # once to calibrate on dev, once a round


def test_refit_judges_on_dev_first_and_then_learns_it(gold: Gold, tiny_encoder: Path, tmp_path: Path) -> None:
    known = []

    def fit_first(gold: Gold) -> Oracle:
        known.append((len(gold.train), len(gold.dev)))
        return Oracle(gold.task, rejects=False)

    refit = spec(tiny_encoder, epochs=1).model_copy(update={"refit": True})
    score = fit_self_training(refit, gold, fit_first, tmp_path)
    few, dev = len(gold.train), len(gold.dev)
    assert known == [(few, dev), (few + dev, 0)]
    assert score is not None
    assert 0.3 < score <= 1
    assert fit_self_training(spec(tiny_encoder, epochs=1), gold, fit_first, tmp_path) is None
    assert known[2:] == [(few, dev)]


def test_the_card_of_a_refitted_teacher_keeps_the_score_that_dev_gave_before(
    gold: Gold, tiny_encoder: Path, tmp_path: Path
) -> None:
    first = EncoderSpec(model=str(tiny_encoder), epochs=1, max_tokens=32)
    fields = {"model": str(tiny_encoder), "epochs": 1, "max_tokens": 32, "rounds": 1}
    scores = []
    for refit in (False, True):
        fit_teacher(SelfTrainingSpec(teacher=first, refit=refit, **fields), gold, tmp_path / str(refit))
        scores.append(read_card(tmp_path / str(refit)).dev_score)
    assert scores[0] is None
    assert 0 <= scores[1] <= 1


def test_each_lesson_is_learned_once(
    gold: Gold, tiny_encoder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seeds = []

    class Counted(FineTuner):
        def fit(self) -> list[dict[str, float]]:
            seeds.append(self.args.seed)
            return super().fit()

    monkeypatch.setattr("teacher.encoder.FineTuner", Counted)
    lessons = spec(tiny_encoder, epochs=1, rounds=2)
    fit_self_training(lessons, gold, lambda known: Oracle(known.task), tmp_path)
    assert seeds == [gold.seed, gold.seed + 1]


def test_only_an_encoder_is_fitted_twice(tiny_encoder: Path) -> None:
    with pytest.raises(ValueError, match="found a teacher of kind prototypes, wanted an encoder"):
        spec(tiny_encoder, refit=True)


def test_what_comes_out_is_an_encoder_that_a_student_can_start_from(
    gold: Gold, tiny_encoder: Path, tmp_path: Path
) -> None:
    fit_teacher(spec(tiny_encoder, rounds=2, epochs=1), gold, tmp_path)
    assert encoder_of(tmp_path) == tmp_path
    assert not (tmp_path / "first").exists()
    assert load_teacher(tmp_path).label(["my parcel is late"]).method == "encoder"


def test_a_run_without_a_pool_is_refused(gold: Gold, tiny_encoder: Path, tmp_path: Path) -> None:
    bare = Gold(gold.task, gold.train, gold.dev, gold.score)
    with pytest.raises(TeacherError, match="no pool text besides gold"):
        fit_self_training(spec(tiny_encoder), bare, lambda known: Oracle(known.task), tmp_path)
