"""Facts about the NLI teacher: its hypotheses, which outputs it reads, and how they become probabilities."""

from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.special import expit, softmax
from transformers import AutoModelForSequenceClassification, AutoTokenizer

from teacher import checkpoint
from teacher.base import read_card
from teacher.encoder import Gold
from teacher.errors import LabelMismatchError, TeacherError
from teacher.example import content_id
from teacher.nli import NliTeacher, fit_nli, make_hypotheses
from teacher.spec import NliSpec
from teacher.task import Task, TaskKind

TEXTS = ["my parcel is late again", "the invoice", "this dress runs large and does not fit", "my parcel was declined"]
NAMES = {0: "CONTRADICTION", 1: "neutral", 2: "Entailment"}
Make = Callable[..., Path]


@pytest.fixture(autouse=True)
def plain_float(monkeypatch: pytest.MonkeyPatch) -> None:
    """Compute in float32 whatever the machine can do."""
    monkeypatch.setattr(checkpoint, "bf16_is_native", lambda: False)


@pytest.fixture
def make_model(tiny_classifier: Path, tmp_path: Path) -> Make:
    """Return a function that writes a random pair classifier whose outputs carry the given names."""

    def make(names: Mapping[int, str] = NAMES) -> Path:
        torch.manual_seed(2)
        model = AutoModelForSequenceClassification.from_pretrained(tiny_classifier)
        model.classifier = torch.nn.Linear(16, len(names))
        for weight in model.parameters():
            if weight.ndim == 2:
                weight.data *= 6
        model.config.id2label = dict(names)
        model.config.label2id = {name: index for index, name in names.items()}
        model.config.problem_type = None
        folder = tmp_path / f"nli-{len(list(tmp_path.iterdir()))}"
        model.save_pretrained(folder)
        AutoTokenizer.from_pretrained(tiny_classifier).save_pretrained(folder)
        return folder

    return make


def fit(model: Path, gold: Gold, directory: Path, **changes: object) -> NliTeacher:
    directory.mkdir()
    fit_nli(NliSpec(model=str(model), max_tokens=64, **changes), gold, directory)
    return NliTeacher(directory)


def logits_of(model: Path, text: str, hypothesis: str) -> np.ndarray:
    """Return the logits of the classifier itself for one pair."""
    pair = AutoTokenizer.from_pretrained(model)(text, hypothesis, return_tensors="pt")
    with torch.no_grad():
        return AutoModelForSequenceClassification.from_pretrained(model).eval()(**pair).logits[0].numpy()


def test_answers_are_the_softmax_over_labels_of_the_entailment_logits(
    make_model: Make, gold: Gold, tmp_path: Path
) -> None:
    model = make_model()
    templates = ["This text is about {}.", "the {} is wrong"]
    teacher = fit(model, gold, tmp_path / "teacher", templates=templates)
    entailment = [
        [np.mean([logits_of(model, text, one.format(name))[2] for one in templates]) for name in gold.task.labels]
        for text in TEXTS
    ]
    wanted = softmax(np.array(entailment) / read_card(tmp_path / "teacher").temperature, axis=1)
    np.testing.assert_allclose(teacher.label(TEXTS).probs, wanted, rtol=1e-5)
    assert wanted.std(axis=0).min() > 3e-5  # a random model knows nothing, so its temperature is high


def test_multi_label_answers_are_softmax_over_contradiction_and_entailment_before_calibration(
    make_model: Make, multi_gold: Gold, tmp_path: Path
) -> None:
    model = make_model()
    teacher = fit(model, multi_gold, tmp_path / "teacher")
    pairs = [
        [logits_of(model, text, f"This text is about {name}.")[[0, 2]] for name in multi_gold.task.labels]
        for text in TEXTS
    ]
    evidence = teacher.reader.scores(TEXTS)
    np.testing.assert_allclose(expit(evidence), softmax(np.array(pairs), axis=2)[:, :, 1], atol=1e-5)
    card = read_card(tmp_path / "teacher")
    wanted = expit(evidence / card.temperature + np.array(card.details["offset"]))
    np.testing.assert_allclose(teacher.label(TEXTS).probs, wanted, atol=1e-5)


def test_multi_label_probabilities_are_as_high_on_average_as_gold_says(
    make_model: Make, multi_gold: Gold, tmp_path: Path
) -> None:
    teacher = fit(make_model(), multi_gold, tmp_path / "teacher")
    probs = teacher.label([example.text for example in multi_gold.dev]).probs
    assert probs.mean() == pytest.approx(multi_gold.targets(multi_gold.dev).mean(), abs=0.02)


def test_outputs_are_found_by_name_wherever_they_stand(make_model: Make, gold: Gold, tmp_path: Path) -> None:
    first = fit(make_model(), gold, tmp_path / "a").reader.scores(TEXTS)
    turned = make_model({0: "entailment", 1: "neutral", 2: "contradiction"})
    model = AutoModelForSequenceClassification.from_pretrained(turned)
    model.classifier.weight.data = model.classifier.weight.data.flip(0)
    model.classifier.bias.data = model.classifier.bias.data.flip(0)
    model.save_pretrained(turned)
    np.testing.assert_allclose(fit(turned, gold, tmp_path / "b").reader.scores(TEXTS), first, atol=1e-5)


@pytest.mark.parametrize("names", [{0: "entailment", 1: "not_entailment"}, {0: "NOT ENTAILMENT", 1: "ENTAILMENT"}])
def test_a_model_of_two_outputs_says_not_entailment_for_contradiction(
    names: dict[int, str], make_model: Make, multi_gold: Gold, tmp_path: Path
) -> None:
    model = make_model(names)
    evidence = fit(model, multi_gold, tmp_path / "teacher").reader.scores(TEXTS[:1])[0, 0]
    logits = logits_of(model, TEXTS[0], "This text is about delivery.")
    yes = next(index for index, name in names.items() if name.lower() == "entailment")
    assert evidence == pytest.approx(logits[yes] - logits[1 - yes], abs=1e-5)


@pytest.mark.parametrize(
    "names",
    [{0: "LABEL_0", 1: "LABEL_1", 2: "LABEL_2"}, {0: "entailment", 1: "entails", 2: "neutral"}],
    ids=["nameless", "two of them"],
)
def test_a_model_without_one_entailment_output_is_refused_with_the_names_found(
    names: dict[int, str], make_model: Make, gold: Gold, tmp_path: Path
) -> None:
    with pytest.raises(LabelMismatchError, match=", ".join(names.values())):
        fit(make_model(names), gold, tmp_path / "teacher")


def test_multi_label_wants_a_contradiction_output(make_model: Make, multi_gold: Gold, tmp_path: Path) -> None:
    with pytest.raises(LabelMismatchError, match="found 0 outputs for contradiction"):
        fit(make_model({0: "entailment", 1: "other"}), multi_gold, tmp_path / "teacher")


def test_two_name_tables_that_differ_are_refused(make_model: Make, gold: Gold, tmp_path: Path) -> None:
    model = make_model()
    config = (model / "config.json").read_text(encoding="utf-8")
    (model / "config.json").write_text(config.replace('"Entailment": 2', '"Entailment": 1'), encoding="utf-8")
    with pytest.raises(LabelMismatchError, match="label2id and id2label"):
        fit(model, gold, tmp_path / "teacher")


def test_answers_come_in_the_order_of_the_texts_and_do_not_depend_on_each_other(
    make_model: Make, gold: Gold, tmp_path: Path
) -> None:
    teacher = fit(make_model(), gold, tmp_path / "teacher")
    answers = teacher.label(TEXTS)
    alone = np.concatenate([teacher.label([text]).probs for text in TEXTS])
    np.testing.assert_allclose(answers.probs, alone, atol=1e-5)
    assert answers.ids == tuple(content_id(text) for text in TEXTS)
    assert (answers.method, answers.outside.tolist()) == ("nli", [0] * 4)
    assert teacher.label([]).probs.shape == (0, 3)


def test_a_long_text_is_cut_and_its_hypothesis_is_not(make_model: Make, gold: Gold, tmp_path: Path) -> None:
    teacher = fit(make_model(), gold, tmp_path / "teacher")
    longer = teacher.reader.scores(["my parcel " * 200, "my parcel " * 300])
    np.testing.assert_allclose(longer[0], longer[1], atol=1e-5)
    assert np.ptp(longer[0]) > 1e-3


def test_a_description_stands_in_for_its_label() -> None:
    task = Task(TaskKind.SINGLE_LABEL, ("card_arrival", "size"), {"size": "whether clothes fit"})
    found = make_hypotheses(["This text is about {}."], task)
    assert found == (("This text is about card arrival.", "This text is about whether clothes fit."),)


@pytest.mark.parametrize("template", ["This text is about it.", "{} or {}"])
def test_a_template_without_exactly_one_slot_is_refused(template: str, small_task: Task) -> None:
    with pytest.raises(TeacherError, match="slots, wanted one"):
        make_hypotheses([template], small_task)


def test_labels_that_read_the_same_are_refused() -> None:
    with pytest.raises(LabelMismatchError, match="'card lost'"):
        make_hypotheses(["{}"], Task(TaskKind.SINGLE_LABEL, ("card_lost", "card lost")))


def test_a_hypothesis_that_leaves_no_room_for_the_text_is_refused(make_model: Make, gold: Gold, tmp_path: Path) -> None:
    task = replace(gold.task, descriptions={"size": "this dress " * 60})
    with pytest.raises(TeacherError, match="shorten the label's description"):
        fit(make_model(), replace(gold, task=task), tmp_path / "teacher")


def test_the_fingerprint_covers_hypotheses_and_weights(make_model: Make, gold: Gold, tmp_path: Path) -> None:
    model, other = make_model(), make_model({0: "entailment", 1: "neutral", 2: "contradiction"})
    described = replace(gold, task=replace(gold.task, descriptions={"size": "does it fit"}))
    prints = [
        fit(model, gold, tmp_path / "a").fingerprint,
        fit(model, gold, tmp_path / "b", templates=["a {}"]).fingerprint,
        fit(model, described, tmp_path / "c").fingerprint,
        fit(other, gold, tmp_path / "d").fingerprint,
    ]
    assert len(set(prints)) == 4
    assert fit(model, gold, tmp_path / "e").fingerprint == prints[0]


def test_an_answer_that_is_no_number_is_refused(make_model: Make, gold: Gold, tmp_path: Path) -> None:
    folder = make_model()
    model = AutoModelForSequenceClassification.from_pretrained(folder)
    model.classifier.bias.data[2] = float("nan")
    model.save_pretrained(folder)
    with pytest.raises(TeacherError, match="NaN or infinity"):
        fit(folder, gold, tmp_path / "teacher")
