import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from distill.baselines import read_answers
from distill.data import VARIANTS, read_variants
from distill.scores import dev_score
from distill.teach import DEV_SCORES, TFIDF_ON_GOLD, LabelInputs, label, teach
from teacher.corpus import read_meta, read_part
from teacher.errors import LabelMismatchError
from teacher.kinds import load_teacher
from teacher.parts import PartWriter
from teacher.soft_labels import read_store
from teacher.spec import EncoderSpec, LabelSpec, PrototypesSpec, RecordedSpec, SelectSpec
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
    teach(spec, LabelInputs(multi_corpus, multi_task), tmp_path)
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
    small_labels: Path, small_teacher: Path, small_corpus: Path, small_task: Task, tmp_path: Path
) -> None:
    counts: list[int] = []

    def interrupt(rows: int) -> None:
        counts.append(rows)
        if sum(counts) >= 50:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        label(
            small_teacher, LabelSpec(shard_rows=25), LabelInputs(small_corpus, small_task, progress=interrupt), tmp_path
        )
    assert not (tmp_path / "meta.json").exists()
    label(small_teacher, LabelSpec(shard_rows=25), LabelInputs(small_corpus, small_task), tmp_path)
    ids = [example.id for example in read_part(small_corpus, "pool")]
    np.testing.assert_allclose(read_store(tmp_path).probs(ids), read_store(small_labels).probs(ids), atol=1e-5)
    assert read_store(tmp_path).meta.rows == len(ids)


def test_variants_of_the_pool_are_labelled_for_themselves_and_stand_beside_it(
    small_labels: Path, small_teacher: Path, small_corpus: Path
) -> None:
    variants = read_part(small_labels / VARIANTS, "variants")
    pool = {example.id for example in read_part(small_corpus, "pool")}
    assert len(variants) > len(pool)
    assert not pool & {one.id for one in variants}
    stored = read_store(small_labels / VARIANTS).probs([one.id for one in variants])
    wanted = load_teacher(small_teacher).label([one.text for one in variants]).probs
    np.testing.assert_allclose(stored, wanted, atol=0.05)  # many texts are answered in bf16 where the CPU has it


def test_no_variant_is_a_text_of_test(
    small_teacher: Path, small_corpus: Path, small_task: Task, small_labels: Path, tmp_path: Path
) -> None:
    made = read_part(small_labels / VARIANTS, "variants")
    shutil.copytree(small_corpus, tmp_path / "corpus")
    with PartWriter(tmp_path / "corpus", "test") as writer:
        writer.write(made[::2])
    label(small_teacher, LabelSpec(), LabelInputs(tmp_path / "corpus", small_task), tmp_path / "labels")
    kept = {one.id for one in read_part(tmp_path / "labels" / VARIANTS, "variants")}
    assert {one.id for one in made[1::2]} <= kept
    assert not kept & {one.id for one in made[::2]}


def test_a_larger_pool_has_fewer_variants_of_each_text_and_then_none(
    small_teacher: Path, small_corpus: Path, small_task: Task, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = len(read_part(small_corpus, "pool"))
    inputs = LabelInputs(small_corpus, small_task)
    monkeypatch.setattr("distill.teach._MOST_VARIANTS", 2 * rows)
    label(small_teacher, LabelSpec(), inputs, tmp_path / "fewer")
    assert rows < len(read_part(tmp_path / "fewer" / VARIANTS, "variants")) <= 2 * rows
    monkeypatch.setattr("distill.teach._MANY_TEXTS", rows - 1)
    label(small_teacher, LabelSpec(), inputs, tmp_path / "none")
    assert read_variants(tmp_path / "none") is None


def test_no_variants_are_made_when_none_are_wanted(
    small_teacher: Path, small_corpus: Path, small_task: Task, tmp_path: Path
) -> None:
    label(small_teacher, LabelSpec(variants=0), LabelInputs(small_corpus, small_task), tmp_path)
    assert read_variants(tmp_path) is None


def test_only_the_texts_selected_are_labelled(
    small_teacher: Path, small_corpus: Path, small_task: Task, tmp_path: Path
) -> None:
    select = SelectSpec(strategy="random", budget_rows=20)
    spec = LabelSpec(select=select, variants=0)
    label(small_teacher, spec, LabelInputs(small_corpus, small_task), tmp_path)
    ids = [example.id for example in read_part(small_corpus, "pool")]
    gold = {example.id for example in read_part(small_corpus, "gold")}
    answered = read_store(tmp_path).answered(ids)
    assert answered.sum() == read_store(tmp_path).meta.rows == 20
    assert not gold & {one for one, is_answered in zip(ids, answered, strict=True) if is_answered}


def test_a_teacher_for_other_labels_is_refused_before_anything_is_labelled(
    small_corpus: Path, tiny_classifier: Path, tmp_path: Path
) -> None:
    task = Task(TaskKind.SINGLE_LABEL, ("delivery", "payment", "size", "colour"))
    spec = EncoderSpec(model=str(tiny_classifier), trained=True)
    with pytest.raises(LabelMismatchError, match="'colour'"):
        teach(spec, LabelInputs(small_corpus, task), tmp_path)
    assert not (tmp_path / "teacher.json").exists()


def test_a_dev_text_that_the_teacher_rejects_counts_as_wrong(
    small_corpus: Path, small_task: Task, tmp_path: Path
) -> None:
    dev = read_part(small_corpus, "dev")
    lines = [
        f"{example.text}\t{(example.labels or ('',))[0]}" for example in [*read_part(small_corpus, "gold"), *dev[:30]]
    ]
    (tmp_path / "answers.tsv").write_text("\n".join(["text\tlabel", *lines]), encoding="utf-8")
    spec = RecordedSpec(answers=str(tmp_path / "answers.tsv"))
    teach(spec, LabelInputs(small_corpus, small_task), tmp_path)
    assert json.loads((tmp_path / DEV_SCORES).read_text())["teacher"] == pytest.approx(30 / 40)
