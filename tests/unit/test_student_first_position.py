import copy
from typing import Any

import pytest
import torch
from transformers import (
    AutoModelForSequenceClassification,
    BertConfig,
    DistilBertConfig,
    ElectraConfig,
    PreTrainedModel,
    RobertaConfig,
)

from student.first_position import compute_first_position

SIZES: dict[str, Any] = {
    "vocab_size": 40,
    "hidden_size": 16,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 32,
}
IDS = torch.arange(3, 24).reshape(3, 7)
MASK = torch.tensor([[1, 1, 1, 1, 1, 1, 1], [1, 1, 1, 1, 0, 0, 0], [0, 0, 1, 1, 1, 1, 1]])
KINDS = pytest.mark.parametrize(
    "config", [BertConfig(**SIZES), RobertaConfig(**SIZES, pad_token_id=1), ElectraConfig(**SIZES, embedding_size=8)]
)
WAYS = pytest.mark.parametrize("way", ["eager", "sdpa"])


def make(config: Any, way: str = "eager") -> PreTrainedModel:
    torch.manual_seed(0)
    return AutoModelForSequenceClassification.from_config(config, attn_implementation=way).eval()


def logits(model: PreTrainedModel, mask: torch.Tensor = MASK) -> torch.Tensor:
    return model(input_ids=IDS, attention_mask=mask).logits


@KINDS
@WAYS
def test_answers_stay_the_same_with_and_without_padding(config: Any, way: str) -> None:
    plain = make(config, way)
    quick = copy.deepcopy(plain)
    assert compute_first_position(quick)
    for mask in (MASK, torch.ones_like(MASK)):
        torch.testing.assert_close(logits(quick, mask), logits(plain, mask), atol=1e-6, rtol=1e-5)


@KINDS
def test_every_weight_learns_the_same(config: Any) -> None:
    plain = make(config)
    quick = copy.deepcopy(plain)
    compute_first_position(quick)
    for model in (plain, quick):
        logits(model).square().sum().backward()
    for (name, wanted), found in zip(plain.named_parameters(), quick.parameters(), strict=True):
        if wanted.grad is not None:
            torch.testing.assert_close(found.grad, wanted.grad, atol=1e-6, rtol=1e-4, msg=name)


def test_the_last_layer_gives_out_one_position_and_those_before_it_all() -> None:
    model = make(BertConfig(**SIZES))
    compute_first_position(model)
    states = model(input_ids=IDS, attention_mask=MASK, output_hidden_states=True).hidden_states
    assert [state.shape[1] for state in states] == [7, 7, 1]


def test_what_is_saved_does_not_change() -> None:
    model = make(BertConfig(**SIZES))
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    compute_first_position(model)
    assert {name: tensor.tolist() for name, tensor in model.state_dict().items()} == {
        name: tensor.tolist() for name, tensor in before.items()
    }


def test_a_copy_computes_with_weights_of_its_own() -> None:
    model = make(BertConfig(**SIZES))
    compute_first_position(model)
    before, other = logits(model), copy.deepcopy(model)
    with torch.no_grad():
        other.base_model.encoder.layer[-1].attention.self.value.weight.zero_()
    torch.testing.assert_close(logits(model), before)
    assert not torch.allclose(logits(other), before)


def test_a_model_built_otherwise_is_left_alone() -> None:
    model = make(DistilBertConfig(vocab_size=40, dim=16, n_heads=2, hidden_dim=32))
    assert not compute_first_position(model)
    assert model(input_ids=IDS, attention_mask=MASK, output_hidden_states=True).hidden_states[-1].shape[1] == 7
