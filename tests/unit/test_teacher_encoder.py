"""Facts about the encoder teacher: what it learns, how it is calibrated, and which models it refuses."""

import json
import math
import shutil
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModel, AutoModelForSequenceClassification, AutoTokenizer, BertTokenizerFast

from distill.scores import dev_score
from teacher import encoder as module
from teacher.base import read_card
from teacher.corpus import read_part
from teacher.encoder import EncoderTeacher, Fitted, Gold, fit_encoder, load_embedder, load_tokenizer, save_fitted
from teacher.errors import LabelMismatchError, TeacherError
from teacher.example import content_id
from teacher.spec import EncoderSpec
from teacher.task import Task, TaskKind

TEXTS = ["my parcel is late again", "the invoice is wrong", "this dress runs large", "my parcel was declined"]


def classifier(source: Path, target: Path, names: Mapping[int, str], rows: list[int] | None = None) -> Path:
    """Write the tiny classifier with the head's `rows` in a new order under the label `names`."""
    model = AutoModelForSequenceClassification.from_pretrained(source)
    torch.manual_seed(5)
    model.classifier = torch.nn.Linear(16, 3)
    if rows is not None:
        kept = torch.nn.Linear(16, len(rows))
        kept.weight.data, kept.bias.data = model.classifier.weight.data[rows], model.classifier.bias.data[rows]
        model.classifier = kept
    model.config.id2label = dict(names)
    model.config.label2id = {name: index for index, name in names.items()}
    model.config.problem_type = None
    model.save_pretrained(target)
    AutoTokenizer.from_pretrained(source).save_pretrained(target)
    return target


def test_the_fitted_teacher_is_right_about_texts_it_never_saw(small_teacher: Path, gold: Gold) -> None:
    answers = EncoderTeacher(small_teacher).label([example.text for example in gold.dev])
    right = answers.probs.argmax(axis=1) == gold.targets(gold.dev).argmax(axis=1)
    assert right.mean() > 0.8


def test_answers_are_distributions_keyed_by_content(small_teacher: Path) -> None:
    answers = EncoderTeacher(small_teacher).label(TEXTS)
    np.testing.assert_allclose(answers.probs.sum(axis=1), 1, rtol=1e-5)
    assert answers.ids == tuple(content_id(text) for text in TEXTS)
    assert (answers.method, answers.outside.tolist()) == ("encoder", [0] * 4)


def test_answers_are_the_softmax_of_the_logits_over_the_temperature(small_teacher: Path) -> None:
    teacher = EncoderTeacher(small_teacher)
    temperature = read_card(small_teacher).temperature
    assert temperature != 1
    wanted = torch.softmax(torch.from_numpy(teacher.scorer.logits(TEXTS)) / temperature, dim=-1).numpy()
    np.testing.assert_allclose(teacher.label(TEXTS).probs, wanted, rtol=1e-5)


def test_a_teacher_counts_all_its_parameters(small_teacher: Path) -> None:
    saved = sum(tensor.numel() for path in small_teacher.glob("*.safetensors") for tensor in load_file(path).values())
    assert EncoderTeacher(small_teacher).parameters == saved


def test_the_same_seed_fits_the_same_teacher(tiny_encoder: Path, gold: Gold, tmp_path: Path) -> None:
    spec = EncoderSpec(model=str(tiny_encoder), epochs=2, learning_rate=1e-3, max_tokens=32, soup=1)
    prints = []
    for folder, seed in (("a", 1), ("b", 1), ("c", 2)):
        (tmp_path / folder).mkdir()
        fit_encoder(spec, replace(gold, seed=seed), tmp_path / folder)
        prints.append(read_card(tmp_path / folder).fingerprint)
    assert prints[0] == prints[1] != prints[2]
    assert not (tmp_path / "a" / "checkpoints").exists()


def test_a_soup_is_the_mean_of_what_the_next_seeds_would_give(tiny_encoder: Path, gold: Gold, tmp_path: Path) -> None:
    def fitted(seed: int, soup: int) -> dict[str, torch.Tensor]:
        folder = tmp_path / f"{seed}-{soup}"
        folder.mkdir()
        spec = EncoderSpec(model=str(tiny_encoder), epochs=1, learning_rate=1e-3, max_tokens=32, seed=seed, soup=soup)
        fit_encoder(spec, gold, folder)
        return EncoderTeacher(folder).model.state_dict()

    members = [fitted(seed, 1) for seed in (4, 5, 6)]
    assert not torch.equal(members[0]["head.weight"], members[1]["head.weight"])
    for name, tensor in fitted(4, 3).items():
        torch.testing.assert_close(tensor, sum(member[name] for member in members) / 3)


def test_two_are_averaged_unless_there_are_many_rows(
    tiny_encoder: Path, gold: Gold, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fitted(name: str, soup: int | None) -> str:
        (tmp_path / name).mkdir()
        fit_encoder(EncoderSpec(model=str(tiny_encoder), epochs=1, max_tokens=32, soup=soup), gold, tmp_path / name)
        return read_card(tmp_path / name).fingerprint

    one, two = fitted("one", 1), fitted("two", 2)
    assert fitted("few", None) == two
    monkeypatch.setattr(module, "_MANY_ROWS", len(gold.train) - 1)
    assert fitted("many", None) == one


def test_a_member_that_was_finished_is_not_trained_again(tiny_encoder: Path, gold: Gold, tmp_path: Path) -> None:
    spec = EncoderSpec(model=str(tiny_encoder), epochs=2, learning_rate=1e-3, max_tokens=32, soup=2)
    rows_of_one = 2 * math.ceil(len(gold.train) / spec.batch_size) * spec.batch_size
    seen: list[int] = []

    def stop_late(rows: int) -> None:
        seen.append(rows)
        if sum(seen) > rows_of_one:
            raise InterruptedError

    for folder in ("whole", "halves"):
        (tmp_path / folder).mkdir()
    fit_encoder(spec, gold, tmp_path / "whole")
    with pytest.raises(InterruptedError):
        fit_encoder(spec, replace(gold, progress=stop_late), tmp_path / "halves")
    seen.clear()
    fit_encoder(spec, replace(gold, progress=seen.append), tmp_path / "halves")
    assert sum(seen) <= rows_of_one
    assert read_card(tmp_path / "halves").fingerprint == read_card(tmp_path / "whole").fingerprint


def test_the_fingerprint_covers_weights_temperature_and_length(
    tiny_classifier: Path, small_task: Task, tmp_path: Path
) -> None:
    tokenizer = AutoTokenizer.from_pretrained(tiny_classifier)
    model = AutoModelForSequenceClassification.from_pretrained(tiny_classifier)

    def fingerprint(temperature: float, max_tokens: int) -> str:
        save_fitted(model, tokenizer, Fitted("encoder", small_task, temperature, max_tokens), tmp_path)
        return read_card(tmp_path).fingerprint

    prints = [fingerprint(1.0, 32), fingerprint(2.0, 32), fingerprint(1.0, 16)]
    model.classifier.bias.data += 0.5
    prints.append(fingerprint(1.0, 32))
    model.classifier.bias.data -= 0.5
    assert len(set(prints)) == 4
    assert fingerprint(1.0, 32) == prints[0]


def test_a_classifier_brought_along_is_calibrated_and_not_trained(
    tiny_classifier: Path, gold: Gold, tmp_path: Path
) -> None:
    source = classifier(tiny_classifier, tmp_path / "source", dict(enumerate(gold.task.labels)))
    (tmp_path / "fitted").mkdir()
    fit_encoder(EncoderSpec(model=str(source), trained=True, max_tokens=32), gold, tmp_path / "fitted")
    before, after = (AutoModelForSequenceClassification.from_pretrained(path) for path in (source, tmp_path / "fitted"))
    assert all(torch.equal(tensor, after.state_dict()[name]) for name, tensor in before.state_dict().items())
    assert read_card(tmp_path / "fitted").temperature != 1


def test_columns_are_aligned_by_name_when_the_model_orders_its_labels_otherwise(
    tiny_classifier: Path, gold: Gold, tmp_path: Path
) -> None:
    labels = gold.task.labels
    straight = classifier(tiny_classifier, tmp_path / "straight", dict(enumerate(labels)))
    turned = classifier(
        tiny_classifier, tmp_path / "turned", {0: labels[2], 1: labels[0], 2: labels[1]}, rows=[2, 0, 1]
    )
    answers = []
    for name, source in (("a", straight), ("b", turned)):
        (tmp_path / name).mkdir()
        fit_encoder(EncoderSpec(model=str(source), trained=True, max_tokens=32), gold, tmp_path / name)
        answers.append(EncoderTeacher(tmp_path / name).label(TEXTS).probs)
    np.testing.assert_allclose(answers[1], answers[0], atol=1e-6)
    assert len(set(answers[0][0].round(4))) == 3


@pytest.mark.parametrize(
    ("names", "told"),
    [
        (("delivery", "payment"), "only in what is wanted: 'size'"),
        (("delivery", "payment", "size", "colour"), "only in what was found: 'colour'"),
        (("delivery", "payment", "colour"), "found: 'colour'; only in what is wanted: 'size'"),
        (("delivery", "payment", "Size"), "found: 'Size'; only in what is wanted: 'size'"),
        (("delivery", "payment", "size "), "found: 'size '; only in what is wanted: 'size'"),
        (("LABEL_0", "LABEL_1", "LABEL_2"), "found: 'LABEL_0', 'LABEL_1', 'LABEL_2'"),
        (("delivery", "delivery", "size"), "only in what is wanted: 'payment'"),
    ],
    ids=["fewer", "more", "renamed", "case", "space", "unnamed", "twice"],
)
def test_a_classifier_with_other_labels_is_refused_and_both_sides_are_named(
    tiny_classifier: Path, gold: Gold, tmp_path: Path, names: tuple[str, ...], told: str
) -> None:
    rows = [index % 3 for index in range(len(names))]
    source = classifier(tiny_classifier, tmp_path / "source", dict(enumerate(names)), rows)
    with pytest.raises(LabelMismatchError, match=f"id2label does not fit the task.*{told}"):
        fit_encoder(EncoderSpec(model=str(source), trained=True), gold, tmp_path)


@pytest.mark.parametrize("trained", [True, False])
def test_a_tokenizer_with_more_tokens_than_the_model_embeds_is_refused_before_training(
    tiny_classifier: Path, gold: Gold, tmp_path: Path, trained: bool
) -> None:
    source = Path(shutil.copytree(tiny_classifier, tmp_path / "source"))
    vocab = AutoTokenizer.from_pretrained(source).get_vocab()
    BertTokenizerFast(vocab=vocab | {f"new{number}": len(vocab) + number for number in range(9)}).save_pretrained(
        source
    )
    with pytest.raises(TeacherError, match=f"ids up to {len(vocab) + 8}, but the model embeds only {len(vocab)}"):
        fit_encoder(EncoderSpec(model=str(source), trained=trained), gold, tmp_path)
    assert not (tmp_path / "checkpoints").exists()


def test_a_changed_card_is_found_when_the_teacher_loads(tiny_classifier: Path, gold: Gold, tmp_path: Path) -> None:
    source = classifier(tiny_classifier, tmp_path / "source", dict(enumerate(gold.task.labels)))
    fit_encoder(EncoderSpec(model=str(source), trained=True), gold, tmp_path)
    card = json.loads((tmp_path / "teacher.json").read_text())
    (tmp_path / "teacher.json").write_text(json.dumps(card | {"labels": ["delivery", "payment", "colour"]}))
    with pytest.raises(LabelMismatchError, match="'colour'"):
        EncoderTeacher(tmp_path)


def test_an_embedder_gives_the_unit_length_mean_of_the_encoders_states(small_teacher: Path) -> None:
    embeddings = load_embedder(str(small_teacher), 32).logits(TEXTS)
    assert embeddings.shape == (4, 16)
    np.testing.assert_allclose(np.linalg.norm(embeddings, axis=1), 1, rtol=1e-5)
    encoder, tokenizer = AutoModel.from_pretrained(small_teacher).eval(), load_tokenizer(small_teacher)
    mean = encoder(**tokenizer(TEXTS[0], return_tensors="pt")).last_hidden_state[0].mean(dim=0).detach().numpy()
    np.testing.assert_allclose(embeddings[0], mean / np.linalg.norm(mean), atol=1e-5)


def test_answers_carry_the_embeddings_that_the_head_read(small_teacher: Path) -> None:
    found = EncoderTeacher(small_teacher).label(TEXTS).embeddings
    assert found is not None
    assert found.dtype == np.float16
    np.testing.assert_allclose(found, load_embedder(str(small_teacher), 32).logits(TEXTS), atol=1e-3)


def test_a_folder_without_a_tokenizer_is_refused_by_name(tmp_path: Path) -> None:
    with pytest.raises(TeacherError, match=f"found no tokenizer in {tmp_path}"):
        load_tokenizer(tmp_path)


def test_a_classifier_trained_for_another_kind_of_task_is_refused(
    tiny_classifier: Path, multi_corpus: Path, multi_task: Task, tmp_path: Path
) -> None:
    dev = read_part(multi_corpus, "dev")
    gold = Gold(multi_task, read_part(multi_corpus, "gold"), dev, dev_score(TaskKind.MULTI_LABEL))
    with pytest.raises(LabelMismatchError, match="trained for single_label_classification"):
        fit_encoder(EncoderSpec(model=str(tiny_classifier), trained=True, max_tokens=32), gold, tmp_path)


def test_a_multi_label_teacher_answers_with_independent_probabilities(
    tiny_classifier: Path, multi_corpus: Path, multi_task: Task, tmp_path: Path
) -> None:
    source = classifier(tiny_classifier, tmp_path / "source", dict(enumerate(multi_task.labels)))
    gold = Gold(
        multi_task, read_part(multi_corpus, "gold"), read_part(multi_corpus, "dev"), dev_score(TaskKind.MULTI_LABEL)
    )
    fit_encoder(EncoderSpec(model=str(source), trained=True, max_tokens=32), gold, tmp_path)
    teacher = EncoderTeacher(tmp_path)
    wanted = torch.sigmoid(torch.from_numpy(teacher.scorer.logits(TEXTS)) / read_card(tmp_path).temperature).numpy()
    np.testing.assert_allclose(teacher.label(TEXTS).probs, wanted, rtol=1e-5)
    assert abs(teacher.label(TEXTS).probs.sum(axis=1) - 1).min() > 1e-3


def test_label_names_are_learned_as_texts_of_their_label(
    gold: Gold, tiny_encoder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lessons = []
    real = module.fine_tune

    def watched(tokenizer: Any, spec: Any, gold: Gold, lesson: Any, checkpoints: Path) -> Any:
        lessons.append(lesson)
        return real(tokenizer, spec, gold, lesson, checkpoints)

    monkeypatch.setattr(module, "fine_tune", watched)
    described = replace(gold, task=replace(gold.task, descriptions={"size": "the fit of clothes"}))
    fit_encoder(EncoderSpec(model=str(tiny_encoder), epochs=1, label_names=True), described, tmp_path)
    (texts, targets) = lessons[0]
    assert texts[-3:] == ["delivery", "payment", "the fit of clothes"]
    np.testing.assert_array_equal(targets[-3:], np.eye(3))
    assert len(texts) == len(gold.train) + 3
