from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import (
    AutoModelForSequenceClassification,
    AutoTokenizer,
    Gemma3Config,
    Gemma3ForConditionalGeneration,
    PreTrainedModel,
)

from teacher import scorer
from teacher.errors import TeacherError
from teacher.scorer import TOKENS_PER_BATCH, TextScorer, batches, check_vocabulary, round_up

TEXTS = [f"{'hello ' * (number % 7)}my parcel {'is late again ' * (number % 5)}" for number in range(120)]


@pytest.fixture
def model(tiny_classifier: Path) -> PreTrainedModel:
    """Return the tiny classifier with weights so large that its answers differ from text to text."""
    loud = AutoModelForSequenceClassification.from_pretrained(tiny_classifier)
    for weight in loud.parameters():
        if weight.ndim == 2:
            weight.data *= 10
    return loud


def scorer_of(model: PreTrainedModel, tiny_classifier: Path) -> TextScorer:
    return TextScorer(model, AutoTokenizer.from_pretrained(tiny_classifier), 64)


def test_answers_come_in_the_order_of_the_texts(model: PreTrainedModel, tiny_classifier: Path) -> None:
    answered = scorer_of(model, tiny_classifier).logits(TEXTS)
    order = np.random.default_rng(0).permutation(len(TEXTS))
    shuffled = scorer_of(model, tiny_classifier).logits([TEXTS[row] for row in order])
    np.testing.assert_allclose(shuffled, answered[order], atol=1e-5)
    assert answered.std(axis=0).min() > 0.005


def test_many_texts_at_once_are_answered_as_one_by_one(model: PreTrainedModel, tiny_classifier: Path) -> None:
    given = scorer_of(model, tiny_classifier)
    alone = np.concatenate([given.logits([text]) for text in TEXTS])
    np.testing.assert_allclose(given.logits(TEXTS), alone, atol=1e-5)


def test_answers_are_those_of_the_model_itself(model: PreTrainedModel, tiny_classifier: Path) -> None:
    encoded = AutoTokenizer.from_pretrained(tiny_classifier)(TEXTS[3], return_tensors="pt")
    with torch.no_grad():
        wanted = model.eval()(**encoded).logits.numpy()
    np.testing.assert_allclose(scorer_of(model, tiny_classifier).logits([TEXTS[3]]), wanted, atol=1e-5)


def test_a_model_in_training_mode_is_put_into_evaluation_mode(model: PreTrainedModel, tiny_classifier: Path) -> None:
    given = scorer_of(model.train(), tiny_classifier)
    np.testing.assert_array_equal(given.logits(TEXTS[:5]), given.logits(TEXTS[:5]))
    assert not model.training


def test_no_text_gets_no_answer(model: PreTrainedModel, tiny_classifier: Path) -> None:
    assert scorer_of(model, tiny_classifier).logits([]).shape == (0, 3)


def test_a_text_is_cut_at_the_token_limit(model: PreTrainedModel, tiny_classifier: Path) -> None:
    given = TextScorer(model, AutoTokenizer.from_pretrained(tiny_classifier), 4)
    np.testing.assert_array_equal(given.logits(["my parcel is late"]), given.logits(["my parcel never came"]))


@pytest.mark.parametrize("number", [float("nan"), float("inf")])
def test_an_answer_that_is_no_number_is_refused(model: PreTrainedModel, tiny_classifier: Path, number: float) -> None:
    model.classifier.bias.data[1] = number
    with pytest.raises(TeacherError, match="NaN or infinity"):
        scorer_of(model, tiny_classifier).logits(TEXTS)


def test_bfloat16_is_not_used_where_it_decides_differently(
    model: PreTrainedModel, tiny_classifier: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(scorer, "bf16_is_native", lambda: True)
    model.classifier.bias.data[:] = 1000  # bfloat16 cannot tell 1000.1 from 1000
    given, exact = scorer_of(model, tiny_classifier), scorer_of(model, tiny_classifier)
    answered = given.logits(TEXTS * 3)
    np.testing.assert_array_equal(answered[:120].argmax(axis=1), exact.logits(TEXTS).argmax(axis=1))
    assert given._bf16 is False


def test_bfloat16_is_used_where_it_decides_the_same(
    model: PreTrainedModel, tiny_classifier: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(scorer, "bf16_is_native", lambda: True)
    model.classifier.bias.data[0] = 50
    given = scorer_of(model, tiny_classifier)
    answered = given.logits(TEXTS * 3)
    assert given._bf16 is True
    assert (answered.argmax(axis=1) == 0).all()


def test_batches_hold_every_row_once_within_the_token_budget() -> None:
    lengths = np.random.default_rng(0).integers(1, 300, 500)
    order = np.argsort(lengths)
    cuts = batches(order, lengths)
    assert np.concatenate(cuts).tolist() == order.tolist()
    assert all(len(rows) * lengths[rows].max() <= TOKENS_PER_BATCH for rows in cuts)
    assert len(cuts) < 2 * lengths.sum() / TOKENS_PER_BATCH


def test_a_text_longer_than_the_budget_gets_a_batch_of_its_own() -> None:
    lengths = np.array([3, TOKENS_PER_BATCH + 5, 2 * TOKENS_PER_BATCH])
    assert [rows.tolist() for rows in batches(np.argsort(lengths), lengths)] == [[0], [1], [2]]


def test_a_corpus_is_answered_in_a_few_fixed_shapes(
    model: PreTrainedModel, tiny_classifier: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shapes: list[tuple[int, ...]] = []
    forward = model.forward

    def watched(**batch: torch.Tensor) -> object:
        shapes.append(tuple(batch["input_ids"].shape))
        assert batch["attention_mask"].shape == batch["input_ids"].shape
        return forward(**batch)

    monkeypatch.setattr(model, "forward", watched)
    texts = [f"my parcel {number} " + "is late " * (number % 23) for number in range(600)]
    scorer_of(model, tiny_classifier).logits(texts)
    lengths = {length for _, length in shapes}
    allowed = {min(int(length), 64) for length in round_up(np.arange(1, 65))}
    assert len(shapes) > len(lengths) > 1
    assert lengths <= allowed
    assert set(shapes) == {(TOKENS_PER_BATCH // length, length) for length in lengths}


def test_rounded_lengths_waste_at_most_an_eighth() -> None:
    lengths = np.arange(16, 4096)
    rounded = round_up(lengths)
    assert (rounded >= lengths).all()
    assert (rounded <= lengths * 1.125 + 1).all()
    assert len(np.unique(rounded)) <= 8 * 8 + 1


def test_a_model_that_takes_pictures_too_is_held_to_its_tokens_of_text(tiny_classifier: Path) -> None:
    tokenizer = AutoTokenizer.from_pretrained(tiny_classifier)
    with torch.device("meta"):
        enough, too_few = (
            Gemma3ForConditionalGeneration(Gemma3Config(text_config={"vocab_size": tokens, "num_hidden_layers": 1}))
            for tokens in (len(tokenizer), len(tokenizer) - 1)
        )
    check_vocabulary(enough, tokenizer)
    with pytest.raises(TeacherError, match=f"embeds only {len(tokenizer) - 1} tokens"):
        check_vocabulary(too_few, tokenizer)
