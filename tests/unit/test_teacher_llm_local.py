"""Facts about the local LLM teacher: what it asks, how it calibrates, what it refuses. The model is random and tiny."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.special import expit, softmax
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from teacher import checkpoint
from teacher.base import read_card
from teacher.encoder import Gold
from teacher.errors import LabelMismatchError, TeacherError
from teacher.example import Example, content_id
from teacher.llm_local import LlmLocalTeacher, fit_llm_local, label_orders
from teacher.prompt import PromptTemplate
from teacher.spec import LlmLocalSpec, PromptSpec
from teacher.task import Task, TaskKind

TEXTS = ["my parcel is late again", "the invoice is wrong", "this dress runs large"]
TEMPLATE = "Labels:\n{labels}\n{examples}\n{text}\n{answer}"
CHAT = (
    "{% for message in messages %}<|{{ message.role }}|>{{ message.content }}<|end|>{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>{% endif %}"
)
Fit = Callable[..., LlmLocalTeacher]


@pytest.fixture(autouse=True)
def plain_float(monkeypatch: pytest.MonkeyPatch) -> None:
    """Compute in float32 whatever the machine can do."""
    monkeypatch.setattr(checkpoint, "bf16_is_native", lambda: False)


@pytest.fixture(scope="module")
def tiny_llm(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with a random Llama of two layers that takes 256 tokens, and a BPE tokenizer of the prompt."""
    folder = tmp_path_factory.mktemp("tiny-llm")
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=500,
        special_tokens=["<s>", "<|end|>", "<|user|>", "<|system|>", "<|assistant|>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator([PromptTemplate.load(None).source, *TEXTS, "delivery payment size"], trainer)
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, bos_token="<s>", eos_token="<|end|>")
    fast.save_pretrained(folder)
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=len(fast),
        hidden_size=16,
        intermediate_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        max_position_embeddings=256,
        initializer_range=0.5,
    )
    LlamaForCausalLM(config).save_pretrained(folder)
    return folder


@pytest.fixture
def spec(tiny_llm: Path, tmp_path: Path) -> LlmLocalSpec:
    (tmp_path / "template.txt").write_text(TEMPLATE, encoding="utf-8")
    return LlmLocalSpec(model=str(tiny_llm), prompt=PromptSpec(template=str(tmp_path / "template.txt")))


@pytest.fixture
def fit(tmp_path: Path) -> Fit:
    """Return a function that fits a teacher in a folder of its own and loads it."""

    def fitted(spec: LlmLocalSpec, gold: Gold) -> LlmLocalTeacher:
        directory = tmp_path / f"teacher-{len(list(tmp_path.iterdir()))}"
        directory.mkdir()
        fit_llm_local(spec, gold, directory)
        return LlmLocalTeacher(directory)

    return fitted


def with_prompt(spec: LlmLocalSpec, **changes: object) -> LlmLocalSpec:
    return spec.model_copy(update={"prompt": spec.prompt.model_copy(update=changes)})


def test_answers_are_distributions_keyed_by_content(spec: LlmLocalSpec, gold: Gold, fit: Fit) -> None:
    answers = fit(spec, gold).label(TEXTS)
    np.testing.assert_allclose(answers.probs.sum(axis=1), 1, rtol=1e-5)
    assert answers.ids == tuple(content_id(text) for text in TEXTS)
    assert (answers.method, answers.outside.tolist(), answers.rejected) == ("llm_local", [0] * 3, ())
    assert answers.probs.std(axis=0).max() > 0


def test_answers_are_the_softmax_of_scores_without_the_prior_over_the_temperature(
    spec: LlmLocalSpec, gold: Gold, fit: Fit, tmp_path: Path
) -> None:
    teacher = fit(spec, gold)
    card = read_card(next(tmp_path.glob("teacher-*")))
    scores = teacher.reader.scores(TEXTS) - np.array(card.details["prior"])
    np.testing.assert_allclose(teacher.label(TEXTS).probs, softmax(scores / card.temperature, axis=1), atol=1e-5)
    assert np.ptp(card.details["prior"]) > 0.01


def test_multi_label_answers_are_independent_probabilities(
    spec: LlmLocalSpec, multi_gold: Gold, fit: Fit, tmp_path: Path
) -> None:
    teacher = fit(spec, multi_gold)
    card = read_card(next(tmp_path.glob("teacher-*")))
    evidence = (teacher.reader.scores(TEXTS) - np.array(card.details["prior"])) / card.temperature
    np.testing.assert_allclose(
        teacher.label(TEXTS).probs, expit(evidence + np.array(card.details["offset"])), atol=1e-5
    )
    shares = multi_gold.targets(multi_gold.dev).mean(axis=0)
    dev = teacher.label([example.text for example in multi_gold.dev]).probs
    np.testing.assert_allclose(dev.mean(axis=0), shares, atol=0.1)


@pytest.mark.parametrize("prior", ["none", "contextual", "batch"])
def test_each_prior_is_another_calibration(
    prior: str, spec: LlmLocalSpec, gold: Gold, fit: Fit, tmp_path: Path
) -> None:
    teacher = fit(spec.model_copy(update={"prior": prior}), gold)
    found = np.array(read_card(next(tmp_path.glob("teacher-*"))).details["prior"])
    empty = softmax(teacher.reader.scores(["", "N/A", "[MASK]"]), axis=1).mean(axis=0)
    dev = softmax(teacher.reader.scores([row.text for row in gold.dev]), axis=1).mean(axis=0)
    counts = gold.targets(gold.dev).sum(axis=0) + 1
    wanted = {"none": np.zeros(3), "contextual": np.log(empty), "batch": np.log(dev) - np.log(counts / counts.sum())}
    np.testing.assert_allclose(found, wanted[prior], atol=1e-4)


def test_scores_are_averaged_over_orders_of_the_labels(spec: LlmLocalSpec, gold: Gold, fit: Fit) -> None:
    teacher = fit(spec.model_copy(update={"orders": 3}), gold)
    asking = teacher.reader.asking
    each = []
    for order in asking.orders:
        teacher.reader.asking = replace(asking, orders=(order,))
        each.append(teacher.reader.scores(TEXTS))
    teacher.reader.asking = asking
    np.testing.assert_allclose(teacher.reader.scores(TEXTS), np.mean(each, axis=0), atol=1e-5)
    assert np.abs(each[0] - each[1]).max() > 1e-3


def test_the_first_order_is_the_tasks_and_the_others_come_from_the_seed() -> None:
    orders = label_orders(5, 3, seed=1)
    assert orders[0] == (0, 1, 2, 3, 4)
    assert all(sorted(order) == [0, 1, 2, 3, 4] for order in orders)
    assert label_orders(5, 3, seed=1) == orders != label_orders(5, 3, seed=2)


def test_examples_are_named_as_sources(spec: LlmLocalSpec, gold: Gold, fit: Fit) -> None:
    answers = fit(with_prompt(spec, examples=2, choose="random"), gold).label(TEXTS)
    assert answers.sources is not None
    assert all(set(ids) <= {row.id for row in gold.train} and len(ids) == 2 for ids in answers.sources)


def test_a_text_too_long_for_the_context_is_rejected_and_the_others_answered(
    spec: LlmLocalSpec, gold: Gold, fit: Fit
) -> None:
    teacher = fit(spec, gold)
    answers = teacher.label([TEXTS[0], "very " * 300, TEXTS[1]])
    assert answers.ids == (content_id(TEXTS[0]), content_id(TEXTS[1]))
    assert [(row.id, row.reason) for row in answers.rejected] == [
        (content_id("very " * 300), "longer than the context")
    ]
    np.testing.assert_allclose(answers.probs, teacher.label(TEXTS[:2]).probs, atol=1e-5)


def test_the_fingerprint_covers_prompt_orders_prior_and_examples(spec: LlmLocalSpec, gold: Gold, fit: Fit) -> None:
    described = replace(gold, task=replace(gold.task, descriptions={"size": "does it fit"}))
    variants = [
        (spec, gold),
        (spec.model_copy(update={"orders": 2}), gold),
        (spec.model_copy(update={"prior": "none"}), gold),
        (with_prompt(spec, template=None), gold),
        (with_prompt(spec, examples=1), gold),
        (spec, described),
    ]
    prints = [fit(*variant).fingerprint for variant in variants]
    assert len(set(prints)) == len(variants)
    assert fit(spec, gold).fingerprint == prints[0]


def test_descriptions_come_back_with_a_fitted_teacher(spec: LlmLocalSpec, gold: Gold, fit: Fit) -> None:
    task = replace(gold.task, descriptions={"size": "does it fit"})
    assert fit(spec, replace(gold, task=task)).task == task


def test_a_chat_template_spells_the_prompt(spec: LlmLocalSpec, gold: Gold, fit: Fit, tmp_path: Path) -> None:
    chatty = copy_of(spec.model, tmp_path / "chatty")
    settings = json.loads((chatty / "tokenizer_config.json").read_text(encoding="utf-8"))
    (chatty / "tokenizer_config.json").write_text(json.dumps({**settings, "chat_template": CHAT}), encoding="utf-8")
    plain, chat = fit(spec, gold), fit(spec.model_copy(update={"model": str(chatty)}), gold)
    assert np.abs(plain.reader.scores(TEXTS) - chat.reader.scores(TEXTS)).max() > 1e-3


def test_labels_that_begin_another_are_scored_with_their_end(spec: LlmLocalSpec, gold: Gold, fit: Fit) -> None:
    names = ("card", "card lost", "size")
    rows = [
        Example(row.id, row.text, (names[gold.task.labels.index(row.labels[0])],)) for row in gold.dev if row.labels
    ]
    task = Task(TaskKind.SINGLE_LABEL, names)
    teacher = fit(spec, replace(gold, task=task, train=rows, dev=rows))
    assert teacher.reader._answers == [f"{name}</label>" for name in names]


def test_changed_weights_are_refused(spec: LlmLocalSpec, gold: Gold, fit: Fit, tmp_path: Path) -> None:
    copied = copy_of(spec.model, tmp_path / "copied")
    fit(spec.model_copy(update={"model": str(copied)}), gold)
    model = LlamaForCausalLM.from_pretrained(copied)
    model.lm_head.weight.data[0] += 1
    model.save_pretrained(copied)
    with pytest.raises(TeacherError, match="have changed since this teacher was fitted"):
        LlmLocalTeacher(next(path for path in tmp_path.glob("teacher-*")))


def test_a_folder_without_weights_is_refused(spec: LlmLocalSpec, gold: Gold, fit: Fit, tmp_path: Path) -> None:
    bare = copy_of(spec.model, tmp_path / "bare")
    (bare / "model.safetensors").unlink()
    with pytest.raises(TeacherError, match=r"holds no weights \(\*\.safetensors or \*\.bin\)"):
        fit(spec.model_copy(update={"model": str(bare)}), gold)


def test_a_prompt_that_is_too_long_without_a_text_is_refused(spec: LlmLocalSpec, gold: Gold, fit: Fit) -> None:
    with pytest.raises(TeacherError, match=r"the prompt without a text is .* tokens and the longest label"):
        fit(spec.model_copy(update={"max_tokens": 64}), gold)


def test_labels_that_read_the_same_are_refused(spec: LlmLocalSpec, gold: Gold, fit: Fit) -> None:
    task = Task(TaskKind.SINGLE_LABEL, ("size", "size "))
    with pytest.raises(LabelMismatchError, match="the same tokens"):
        fit(spec, replace(gold, task=task, dev=[]))


def test_bfloat16_is_used_only_where_it_decides_the_same(
    spec: LlmLocalSpec, gold: Gold, fit: Fit, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(checkpoint, "bf16_is_native", lambda: True)
    for share, wanted in ((0.0, torch.bfloat16), (1.01, torch.float32)):
        monkeypatch.setattr(checkpoint, "_AGREEMENT_SHARE", share)
        teacher = fit(spec, gold)
        assert teacher.reader.scorer.model.dtype == wanted
        np.testing.assert_allclose(teacher.label(TEXTS).probs.sum(axis=1), 1, rtol=1e-5)


def copy_of(model: str, target: Path) -> Path:
    target.mkdir()
    for path in Path(model).iterdir():
        (target / path.name).write_bytes(path.read_bytes())
    return target
