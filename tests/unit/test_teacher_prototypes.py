from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from distill.scores import dev_score
from teacher.corpus import read_part
from teacher.encoder import EncoderTeacher, Gold
from teacher.example import Example, content_id
from teacher.pooled import load_encoder
from teacher.prototypes import fit_prototypes
from teacher.spec import PrototypesSpec
from teacher.task import Task, TaskKind


def gold_of(corpus: Path, task: Task) -> Gold:
    return Gold(task, read_part(corpus, "gold"), read_part(corpus, "dev"), dev_score(task.kind))


def fitted(tiny_encoder: Path, gold: Gold, directory: Path) -> EncoderTeacher:
    fit_prototypes(PrototypesSpec(model=str(tiny_encoder), max_tokens=32), gold, directory)
    return EncoderTeacher(directory)


def test_prototypes_beat_chance_on_texts_they_never_saw(
    tiny_encoder: Path, small_corpus: Path, small_task: Task, tmp_path: Path
) -> None:
    gold = gold_of(small_corpus, small_task)
    answers = fitted(tiny_encoder, gold, tmp_path).label([example.text for example in gold.dev])
    right = answers.probs.argmax(axis=1) == gold.targets(gold.dev).argmax(axis=1)
    assert right.mean() > 0.5
    np.testing.assert_allclose(answers.probs.sum(axis=1), 1, rtol=1e-5)
    assert answers.method == "prototypes"


def test_the_encoder_stays_frozen(tiny_encoder: Path, small_corpus: Path, small_task: Task, tmp_path: Path) -> None:
    fitted(tiny_encoder, gold_of(small_corpus, small_task), tmp_path)
    before, after = (load_encoder(str(path)).state_dict() for path in (tiny_encoder, tmp_path))
    assert all(bool((tensor == after[name]).all()) for name, tensor in before.items())


def test_two_classes_share_one_plane_and_still_get_two_outputs(
    tiny_encoder: Path, small_corpus: Path, tmp_path: Path
) -> None:
    task = Task(TaskKind.SINGLE_LABEL, ("delivery", "payment"))
    parts = ([one for one in read_part(small_corpus, part) if one.labels != ("size",)] for part in ("gold", "dev"))
    gold = Gold(task, *parts, dev_score(task.kind))
    answers = fitted(tiny_encoder, gold, tmp_path).label([example.text for example in gold.dev])
    assert answers.probs.shape == (len(gold.dev), 2)
    assert (answers.probs.argmax(axis=1) == gold.targets(gold.dev).argmax(axis=1)).mean() > 0.6


def test_multi_label_prototypes_rank_texts_with_a_label_above_texts_without(
    tiny_encoder: Path, multi_corpus: Path, multi_task: Task, tmp_path: Path
) -> None:
    gold = gold_of(multi_corpus, multi_task)
    probs = fitted(tiny_encoder, gold, tmp_path).label([example.text for example in gold.dev]).probs
    truth = gold.targets(gold.dev) > 0
    assert all(probs[truth[:, column], column].mean() > probs[~truth[:, column], column].mean() for column in range(3))


def test_a_label_that_every_gold_row_carries_is_answered_with_yes(
    tiny_encoder: Path, multi_corpus: Path, multi_task: Task, tmp_path: Path
) -> None:
    gold = gold_of(multi_corpus, multi_task)
    always = [Example(one.id, one.text, tuple(sorted({*(one.labels or ()), "size"}))) for one in gold.train]
    teacher = fitted(tiny_encoder, Gold(multi_task, always, gold.dev, gold.score), tmp_path)
    assert teacher.label(["my parcel is late"]).probs[0, 2] > 0.5


def test_gold_is_counted_once_as_progress(
    tiny_encoder: Path, small_corpus: Path, small_task: Task, tmp_path: Path
) -> None:
    counts: list[int] = []
    parts = read_part(small_corpus, "gold"), read_part(small_corpus, "dev")
    fitted(tiny_encoder, Gold(small_task, *parts, dev_score(small_task.kind), progress=counts.append), tmp_path)
    assert sum(counts) == len(parts[0])


@pytest.mark.parametrize("text", ["", "♥", "a" * 3000])
def test_any_text_gets_an_answer(
    tiny_encoder: Path, small_corpus: Path, small_task: Task, tmp_path: Path, text: str
) -> None:
    answers = fitted(tiny_encoder, gold_of(small_corpus, small_task), tmp_path).label([text])
    assert answers.ids == (content_id(text),)
    assert np.isfinite(answers.probs).all()


def test_dev_picks_how_far_the_head_may_go(
    tiny_encoder: Path, small_corpus: Path, small_task: Task, tmp_path: Path
) -> None:
    sizes = []
    for name, sign in (("timid", -1), ("bold", 1)):
        (tmp_path / name).mkdir()
        gold = replace(
            gold_of(small_corpus, small_task), score=lambda logits, targets, sign=sign: sign * float(abs(logits).mean())
        )
        sizes.append(fitted(tiny_encoder, gold, tmp_path / name).model.head.weight.norm().item())
    assert sizes[1] > 2 * sizes[0]
