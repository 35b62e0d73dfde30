import json
from pathlib import Path

import numpy as np
import pytest

from distill.baselines import read_answers
from distill.scores import dev_score
from distill.teach import DEV_SCORES, TFIDF_ON_GOLD, label, teach
from teacher.corpus import read_meta, read_part
from teacher.errors import LabelMismatchError
from teacher.kinds import load_teacher
from teacher.soft_labels import read_store
from teacher.spec import EncoderSpec, LabelSpec, PrototypesSpec
from teacher.task import Task, TaskKind


def test_the_dev_scores_are_those_of_the_saved_teacher_and_of_tfidf(
    small_teacher: Path, small_corpus: Path, small_task: Task
) -> None:
    dev = read_part(small_corpus, "dev")
    truth = small_task.targets([example.labels or () for example in dev]).argmax(axis=1)
    scores = json.loads((small_teacher / DEV_SCORES).read_text())
    answers = load_teacher(small_teacher).label([example.text for example in dev]).probs
    rival = read_answers(small_teacher / TFIDF_ON_GOLD)["dev"]
    assert scores["teacher"] == pytest.approx((answers.argmax(axis=1) == truth).mean())
    assert scores["tfidf_gold"] == pytest.approx((rival.argmax(axis=1) == truth).mean())
    assert (scores["metric"], scores["rows"]) == ("accuracy", 40)


def test_a_multi_label_teacher_is_scored_by_macro_f1(
    multi_corpus: Path, multi_task: Task, tiny_encoder: Path, tmp_path: Path
) -> None:
    spec = PrototypesSpec(model=str(tiny_encoder), max_tokens=32)
    teach(spec, multi_corpus, multi_task, tmp_path, seed=0, progress=lambda rows: None)
    dev = read_part(multi_corpus, "dev")
    targets = multi_task.targets([example.labels or () for example in dev])
    probs = load_teacher(tmp_path).label([example.text for example in dev]).probs
    scores = json.loads((tmp_path / DEV_SCORES).read_text())
    wanted = dev_score(TaskKind.MULTI_LABEL)(np.log(probs / (1 - probs)), targets)
    assert scores["teacher"] == pytest.approx(wanted)
    assert scores["metric"] == "macro_f1"


def test_every_pool_text_is_labelled_with_the_saved_teacher(
    small_labels: Path, small_teacher: Path, small_corpus: Path
) -> None:
    pool = read_part(small_corpus, "pool")
    store = read_store(small_labels)
    teacher = load_teacher(small_teacher)
    stored = store.probs([example.id for example in pool])
    np.testing.assert_allclose(stored, teacher.label([example.text for example in pool]).probs, atol=1e-5)
    assert (store.meta.teacher, store.meta.corpus) == (teacher.fingerprint, read_meta(small_corpus).digest)
    assert len(store.meta.parts) == 3


def test_an_interrupted_labelling_goes_on_and_gives_the_same_store(
    small_labels: Path, small_teacher: Path, small_corpus: Path, tmp_path: Path
) -> None:
    counts: list[int] = []

    def interrupt(rows: int) -> None:
        counts.append(rows)
        if sum(counts) >= 50:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        label(small_teacher, small_corpus, LabelSpec(shard_rows=25), tmp_path, progress=interrupt)
    assert not (tmp_path / "meta.json").exists()
    label(small_teacher, small_corpus, LabelSpec(shard_rows=25), tmp_path, progress=lambda rows: None)
    ids = [example.id for example in read_part(small_corpus, "pool")]
    np.testing.assert_allclose(read_store(tmp_path).probs(ids), read_store(small_labels).probs(ids), atol=1e-5)
    assert read_store(tmp_path).meta.rows == len(ids)


def test_a_teacher_for_other_labels_is_refused_before_anything_is_labelled(
    small_corpus: Path, tiny_classifier: Path, tmp_path: Path
) -> None:
    task = Task(TaskKind.SINGLE_LABEL, ("delivery", "payment", "size", "colour"))
    spec = EncoderSpec(model=str(tiny_classifier), trained=True)
    with pytest.raises(LabelMismatchError, match="'colour'"):
        teach(spec, small_corpus, task, tmp_path, seed=0, progress=lambda rows: None)
    assert not (tmp_path / "teacher.json").exists()
