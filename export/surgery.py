"""A BERT classifier with the work left out that cannot change its logits; traced instead of the original.

Knows nothing of ONNX. Whether the result really is the same is for the caller to prove.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional
from transformers import BertForSequenceClassification
from transformers.models.bert.modeling_bert import BertLayer, BertSelfAttention


class CompactBert(nn.Module):
    """The logits of a `BertForSequenceClassification` with less work, equal but for rounding.

    The pooler reads position 0 only, so the last layer asks and feeds forward for that position alone;
    query, key and value share one product; the token type is 0 everywhere and is added to the positions.
    """

    def __init__(self, model: BertForSequenceClassification) -> None:
        """Borrow the weights of `model`, which must be an encoder (no causal mask, no cross attention)."""
        super().__init__()
        bert = model.bert
        self.words = bert.embeddings.word_embeddings
        self.positions = nn.Parameter(
            bert.embeddings.position_embeddings.weight + bert.embeddings.token_type_embeddings.weight[0]
        )
        self.norm = bert.embeddings.LayerNorm
        *others, last = bert.encoder.layer
        self.layers = nn.ModuleList([*map(_CompactLayer, others), _LastLayer(last)])
        self.pooler = bert.pooler
        self.classifier = model.classifier

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        """Return logits (batch, labels) of token ids and a 0/1 mask, both (batch, sequence) int64."""
        places = torch.arange(input_ids.shape[1], device=input_ids.device)
        hidden = self.norm(self.words(input_ids) + functional.embedding(places, self.positions))
        # Softmax turns -10,000 into an exact 0; the most negative float could overflow to -inf when added.
        blocked = (1.0 - attention_mask[:, None, None, :].to(hidden.dtype)) * -10_000.0
        for layer in self.layers:
            hidden = layer(hidden, blocked)
        logits: Tensor = self.classifier(self.pooler(hidden))
        return logits


class _CompactLayer(nn.Module):
    attention: BertSelfAttention
    attention_output: nn.Module
    intermediate: nn.Module
    output: nn.Module

    def __init__(self, layer: BertLayer) -> None:
        super().__init__()
        self.attention = layer.attention.self
        self.attention_output = layer.attention.output
        self.intermediate = layer.intermediate
        self.output = layer.output
        self.packed = self._pack()

    def forward(self, hidden: Tensor, blocked: Tensor) -> Tensor:
        asking, query, key, value = self._project(hidden)
        scores = self._split(query) @ self._split(key).transpose(-1, -2) * self.attention.scaling + blocked
        context = (scores.softmax(dim=-1) @ self._split(value)).transpose(1, 2)
        context = context.reshape(*context.shape[:2], self.attention.all_head_size)
        attended = self.attention_output(context, asking)
        fed: Tensor = self.output(self.intermediate(attended), attended)
        return fed

    def _pack(self) -> nn.Linear:
        return _side_by_side(self.attention.query, self.attention.key, self.attention.value)

    def _project(self, hidden: Tensor) -> tuple[Tensor, ...]:
        return hidden, *self.packed(hidden).split(self.attention.all_head_size, dim=-1)

    def _split(self, projected: Tensor) -> Tensor:
        heads, size = self.attention.num_attention_heads, self.attention.attention_head_size
        return projected.view(*projected.shape[:2], heads, size).transpose(1, 2)


class _LastLayer(_CompactLayer):
    def _pack(self) -> nn.Linear:
        return _side_by_side(self.attention.key, self.attention.value)

    def _project(self, hidden: Tensor) -> tuple[Tensor, ...]:
        first = hidden[:, :1]
        return (
            first,
            self.attention.query(first),
            *self.packed(hidden).split(self.attention.all_head_size, dim=-1),
        )


def _side_by_side(*parts: nn.Linear) -> nn.Linear:
    packed = nn.Linear(parts[0].in_features, sum(part.out_features for part in parts))
    packed.weight = nn.Parameter(torch.cat([part.weight for part in parts]))
    packed.bias = nn.Parameter(torch.cat([part.bias for part in parts]))
    return packed
