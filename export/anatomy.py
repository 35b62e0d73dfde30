"""Where each architecture keeps the parts of a classifier that reads position 0: one row a class.

Knows names of attributes only. What is done with the parts is for `surgery.py`.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn
from transformers import (
    BertForSequenceClassification,
    DistilBertForSequenceClassification,
    ElectraForSequenceClassification,
    PreTrainedModel,
    RobertaForSequenceClassification,
    XLMRobertaForSequenceClassification,
)

from export.errors import ExportError


@dataclass(frozen=True, slots=True)
class LayerParts:
    """One layer that normalises after each of its two residual sums."""

    query: nn.Linear
    key: nn.Linear
    value: nn.Linear
    attended: nn.Linear
    attended_norm: nn.LayerNorm
    widen: nn.Linear
    activate: Callable[[Tensor], Tensor]
    narrow: nn.Linear
    narrow_norm: nn.LayerNorm


@dataclass(frozen=True, slots=True)
class ClassifierParts:
    """`embeddings` has word_embeddings, position_embeddings and LayerNorm; the first token of a text stands
    at position `first_position`. `project` follows the embeddings, `head` maps hidden states to logits.
    """

    embeddings: Any
    first_position: int
    project: nn.Module | None
    layers: tuple[LayerParts, ...]
    heads: int
    head: Callable[[Tensor], Tensor]


def dissect(model: PreTrainedModel) -> ClassifierParts:
    """Return the parts of `model`, borrowed; raise ExportError when its class is none of the table."""
    row = _TABLE.get(type(model))
    if row is None:
        raise ExportError(f"{type(model).__name__} is none of {', '.join(sorted(known.__name__ for known in _TABLE))}")
    if getattr(model.config, "is_decoder", False):
        raise ExportError(f"{type(model).__name__} with is_decoder masks what follows a token")
    return row(model)


def _bert_like(encoder: Any, first_position: int, head: Callable[[Tensor], Tensor]) -> ClassifierParts:
    return ClassifierParts(
        encoder.embeddings,
        first_position,
        getattr(encoder, "embeddings_project", None),
        tuple(map(_bert_layer, encoder.encoder.layer)),
        encoder.config.num_attention_heads,
        head,
    )


def _bert_layer(layer: Any) -> LayerParts:
    attention = layer.attention
    return LayerParts(
        attention.self.query,
        attention.self.key,
        attention.self.value,
        attention.output.dense,
        attention.output.LayerNorm,
        layer.intermediate.dense,
        layer.intermediate.intermediate_act_fn,
        layer.output.dense,
        layer.output.LayerNorm,
    )


def _bert(model: Any) -> ClassifierParts:
    return _bert_like(model.bert, 0, nn.Sequential(model.bert.pooler, model.classifier))


def _roberta(model: Any) -> ClassifierParts:
    return _bert_like(model.roberta, model.roberta.embeddings.padding_idx + 1, model.classifier)


def _electra(model: Any) -> ClassifierParts:
    return _bert_like(model.electra, 0, model.classifier)


def _distilbert(model: Any) -> ClassifierParts:
    encoder = model.distilbert
    head = nn.Sequential(_First(), model.pre_classifier, nn.ReLU(), model.classifier)
    layers = tuple(map(_distilbert_layer, encoder.transformer.layer))
    return ClassifierParts(encoder.embeddings, 0, None, layers, model.config.n_heads, head)


def _distilbert_layer(layer: Any) -> LayerParts:
    attention, feed_forward = layer.attention, layer.ffn
    return LayerParts(
        attention.q_lin,
        attention.k_lin,
        attention.v_lin,
        attention.out_lin,
        layer.sa_layer_norm,
        feed_forward.lin1,
        feed_forward.activation,
        feed_forward.lin2,
        layer.output_layer_norm,
    )


class _First(nn.Module):
    def forward(self, hidden: Tensor) -> Tensor:
        return hidden[:, 0]


_TABLE: Mapping[type[PreTrainedModel], Callable[[Any], ClassifierParts]] = {
    BertForSequenceClassification: _bert,
    DistilBertForSequenceClassification: _distilbert,
    ElectraForSequenceClassification: _electra,
    RobertaForSequenceClassification: _roberta,
    XLMRobertaForSequenceClassification: _roberta,
}
