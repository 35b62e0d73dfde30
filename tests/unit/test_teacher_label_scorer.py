"""Facts about scoring labels behind prompts: whatever the layout, the answer is that of a pass for each label."""

from collections.abc import Callable, Sequence

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from transformers import (
    AutoModelForCausalLM,
    BloomConfig,
    Gemma2Config,
    GPT2Config,
    GPTNeoXConfig,
    LlamaConfig,
    MambaConfig,
    PreTrainedConfig,
    PreTrainedModel,
    Qwen2Config,
)

from teacher.errors import TeacherError
from teacher.label_layouts import expanded, packed, separate
from teacher.label_scorer import LabelScorer
from teacher.label_tokens import Border

CHARACTERS = " abcdefghijklmnopqrstuvwxyz_:"
SIZE = {
    "vocab_size": len(CHARACTERS) + 1,
    "hidden_size": 16,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 32,
}
GROUPED = {**SIZE, "num_key_value_heads": 2, "max_position_embeddings": 128}
PROMPTS = [
    "labels: card, pin. text: the pin is gone:",
    "labels: card, pin. text: why:",
    "labels: card, pin. text: ah no:",
]
LABELS = [" card", " card_lost", " card_late", " pin", " p"]


def encode(texts: Sequence[str]) -> list[list[int]]:
    """Return one token a character; 0 stands for any other."""
    return [[CHARACTERS.find(character) + 1 for character in text] for text in texts]


def model_of(config: PreTrainedConfig) -> PreTrainedModel:
    """Return a random model whose answers depend on every token it sees."""
    torch.manual_seed(3)
    model = AutoModelForCausalLM.from_config(config).eval()
    for weight in model.parameters():
        if weight.ndim == 2:
            weight.data *= 5
    return model


@pytest.fixture(scope="module")
def llama() -> PreTrainedModel:
    return model_of(LlamaConfig(**GROUPED))


def scorer_of(model: PreTrainedModel, max_tokens: int = 100) -> LabelScorer:
    return LabelScorer(model, encode, max_tokens, batch_size=2)


def by_the_model_itself(model: PreTrainedModel, prompt: str, label: str) -> float:
    """Return minus the loss that transformers computes on the label's tokens."""
    ids = torch.tensor(encode([prompt + label]))
    wanted = ids.clone()
    wanted[:, : len(prompt)] = -100
    with torch.no_grad():
        return -float(model(input_ids=ids, labels=wanted).loss)


def test_a_score_is_the_mean_log_probability_of_the_labels_tokens(llama: PreTrainedModel) -> None:
    wanted = [[by_the_model_itself(llama, prompt, label) for label in LABELS] for prompt in PROMPTS]
    found = scorer_of(llama).scores(PROMPTS, LABELS)
    np.testing.assert_allclose(found, wanted, atol=1e-4)
    assert np.std(wanted, axis=0).min() > 1e-3


@pytest.mark.parametrize(
    ("config", "layout"),
    [
        pytest.param(LlamaConfig(**GROUPED), "packed", id="llama"),
        pytest.param(Qwen2Config(**GROUPED), "packed", id="qwen2"),
        pytest.param(GPT2Config(vocab_size=30, n_embd=16, n_layer=2, n_head=4, n_positions=128), "packed", id="gpt2"),
        pytest.param(GPTNeoXConfig(**SIZE, max_position_embeddings=128), "packed", id="rotary on a part"),
        pytest.param(Gemma2Config(**GROUPED, head_dim=4, sliding_window=512), "packed", id="window over all tokens"),
        pytest.param(
            Gemma2Config(**GROUPED, head_dim=4, sliding_window=60), "expanded", id="window over the first prompts"
        ),
        pytest.param(BloomConfig(vocab_size=30, hidden_size=16, n_layer=2, n_head=4), "expanded", id="no 4D mask"),
        pytest.param(MambaConfig(vocab_size=30, hidden_size=16, num_hidden_layers=2), "separate", id="no such cache"),
    ],
)
def test_a_model_gets_the_fastest_layout_that_answers_like_separate_passes(
    config: PreTrainedConfig, layout: str
) -> None:
    model = model_of(config)
    scorer = scorer_of(model)
    found = scorer.scores(PROMPTS, LABELS)
    assert scorer.layout == layout
    border = Border(0, tuple(tuple(ids) for ids in encode(LABELS)))
    np.testing.assert_allclose(found, separate(model, encode(PROMPTS), border, 1), atol=1e-4)


def test_an_answer_does_not_depend_on_the_other_prompts(llama: PreTrainedModel) -> None:
    scorer = scorer_of(llama)
    together = scorer.scores([*PROMPTS, "quite another beginning:"], LABELS)
    alone = np.concatenate([scorer.scores([prompt], LABELS) for prompt in PROMPTS])
    np.testing.assert_allclose(together[:3], alone, atol=1e-4)


def test_answers_come_in_the_order_of_prompts_and_labels(llama: PreTrainedModel) -> None:
    scorer = scorer_of(llama)
    np.testing.assert_allclose(
        scorer.scores(PROMPTS[::-1], LABELS[::-1]), scorer.scores(PROMPTS, LABELS)[::-1, ::-1], atol=1e-4
    )


def test_a_label_does_not_see_the_labels_beside_it(llama: PreTrainedModel) -> None:
    scorer = scorer_of(llama)
    np.testing.assert_allclose(scorer.scores(PROMPTS, LABELS[1:3]), scorer.scores(PROMPTS, LABELS)[:, 1:3], atol=1e-4)


@pytest.mark.parametrize("layout", [packed, expanded])
def test_labels_of_one_token_need_no_second_look(
    layout: Callable[..., NDArray[np.float32]], llama: PreTrainedModel
) -> None:
    border = Border(0, ((4,), (9,)))
    with torch.no_grad():
        logits = llama(input_ids=torch.tensor(encode(PROMPTS[:1]))).logits[0, -1]
    wanted = torch.log_softmax(logits, dim=-1)[[4, 9]].numpy()
    np.testing.assert_allclose(layout(llama, encode(PROMPTS[:1]), border, 1)[0], wanted, atol=1e-4)


def test_a_prompt_that_does_not_fit_with_its_label_has_no_score(llama: PreTrainedModel) -> None:
    most = len(PROMPTS[0]) + max(len(label) for label in LABELS)
    whole, cut = scorer_of(llama, most), scorer_of(llama, most - 1)
    assert np.isfinite(whole.scores(PROMPTS, LABELS)).all()
    found = cut.scores(PROMPTS, LABELS)
    assert np.isnan(found[0]).all()
    assert np.isfinite(found[1:]).all()


def test_no_prompt_gets_no_score(llama: PreTrainedModel) -> None:
    assert scorer_of(llama).scores([], LABELS).shape == (0, len(LABELS))


def test_scores_that_are_no_numbers_are_refused() -> None:
    model = model_of(LlamaConfig(**GROUPED))
    model.lm_head.weight.data[3] = float("nan")
    with pytest.raises(TeacherError, match="NaN or infinity"):
        scorer_of(model).scores(PROMPTS, LABELS)


def test_a_model_in_training_mode_is_put_into_evaluation_mode() -> None:
    model = model_of(GPT2Config(vocab_size=30, n_embd=16, n_layer=2, n_head=4, n_positions=128)).train()
    scorer = scorer_of(model)
    np.testing.assert_array_equal(scorer.scores(PROMPTS, LABELS), scorer.scores(PROMPTS, LABELS))
