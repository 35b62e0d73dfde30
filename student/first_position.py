"""A classifier that reads position 0 needs nothing else of its last layer: the others are not computed there.

The answers stay the same; with three layers a step of training loses a quarter of its work. Knows nothing of training.
"""

from typing import Any

import torch
from torch import Tensor
from transformers import (
    BertForSequenceClassification,
    ElectraForSequenceClassification,
    PreTrainedModel,
    RobertaForSequenceClassification,
    XLMRobertaForSequenceClassification,
)

# Their heads read position 0 alone, and their layers are built alike.
_KNOWN = (
    BertForSequenceClassification,
    ElectraForSequenceClassification,
    RobertaForSequenceClassification,
    XLMRobertaForSequenceClassification,
)


def compute_first_position(model: PreTrainedModel) -> bool:
    """Let the last layer of `model` give out position 0 alone, (batch, 1, width); False where nobody knows how.

    Weights and what is saved stay as they are. Hidden states before the last keep all their positions.
    """
    if not isinstance(model, _KNOWN) or model.config.is_decoder:
        return False
    attention: Any = model.base_model.encoder.layer[-1].attention
    attention.forward = _AttentionFromFirst(attention)  # what follows in the layer takes each position by itself
    return True


class _AttentionFromFirst:
    """The attention of a BERT layer, asked by position 0 alone; a class, so that a model can be copied."""

    def __init__(self, attention: Any) -> None:
        self._attention = attention

    def __call__(self, hidden: Tensor, mask: Tensor | None = None, **_: Any) -> tuple[Tensor, None]:
        """Return (batch, 1, width) of `hidden` (batch, sequence, width); `mask` is added, or true where one looks."""
        inner, first = self._attention.self, hidden[:, :1]
        query, key, value = (
            part.unflatten(-1, (inner.num_attention_heads, -1)).transpose(1, 2)
            for part in (inner.query(first), inner.key(hidden), inner.value(hidden))
        )
        scores = query @ key.transpose(-1, -2) * inner.scaling
        if mask is not None:
            row = mask[:, :, :1]
            scores = scores.masked_fill(~row, -torch.inf) if row.dtype == torch.bool else scores + row
        weights = inner.dropout(scores.softmax(dim=-1, dtype=torch.float32).to(value.dtype))
        return self._attention.output((weights @ value).transpose(1, 2).flatten(2), first), None
