"""A student without layers: embeddings of tokens and of hashed token n-grams, means and maxima of them, a small head.

A standard Hugging Face model: importing this module registers it, so that `AutoModelForSequenceClassification`
opens its checkpoints. N-grams are hashed inside `forward`, in integers, so an exported graph takes `input_ids`
and `attention_mask` like any other. Knows nothing of where its weights start: that is for `warm_start.py`.
"""

from collections.abc import Mapping
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn import functional
from transformers import AutoConfig, AutoModelForSequenceClassification, PreTrainedConfig, PreTrainedModel
from transformers.modeling_outputs import SequenceClassifierOutput

# A rolling hash modulo a Mersenne prime: no product of two residues, nor of one and a token id, leaves int64.
_PRIME = 2**31 - 1
_BASE = 1_103_515_245
_LOWEST_SCORE = -1e4
_DEFAULTS: Mapping[str, Any] = {
    "vocab_size": 30522,
    "word_rows": None,
    "hidden_size": 320,
    "pooling_heads": 4,
    "ngram_rows": 28_672,
    "ngram_width": 64,
    "ngrams": [2, 3],
    "intermediate_size": 512,
    "dropout": 0.0,
    "client_model_type": "bert",
}


class StaticConfig(PreTrainedConfig):  # type: ignore[misc]
    """`word_rows` embeddings stand for `vocab_size` tokens, None for as many; a buffer says which is whose.

    `ngrams` are the lengths that are hashed into `ngram_rows` rows of `ngram_width`.
    Each of `pooling_heads` equal slices of a token's embedding is weighted by a score of its own.
    `client_model_type` names an architecture with the same inputs that every client of ONNX files knows.
    """

    model_type = "potstill_static"

    def __init__(self, **given: Any) -> None:
        """Set the sizes in `given`, or their defaults; the others are what every config has."""
        for name, default in _DEFAULTS.items():
            setattr(self, name, given.pop(name, default))
        super().__init__(**given)


class StaticEmbedder(nn.Module):
    """Token ids to one feature vector (batch, width): weighted means and maxima of words, the mean of n-grams."""

    def __init__(self, config: StaticConfig) -> None:
        super().__init__()
        rows = config.word_rows or config.vocab_size
        self.words = nn.Embedding(rows, config.hidden_size)
        self.word_scores = nn.Embedding(rows, config.pooling_heads)
        self.ngrams = nn.Embedding(config.ngram_rows, config.ngram_width)
        self.lengths: tuple[int, ...] = tuple(config.ngrams)
        self.width = 2 * config.hidden_size + config.ngram_width
        shares = config.word_rows is not None
        self.register_buffer("places", torch.zeros(config.vocab_size, dtype=torch.int32) if shares else None)

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        if self.places is not None:
            input_ids = cast(Tensor, self.places)[input_ids].long()  # n-grams too are those of the words that are read
        mask = attention_mask.to(self.words.weight.dtype).unsqueeze(-1)
        words = self.words(input_ids) * mask
        scores = self.word_scores(input_ids) + (1.0 - mask) * _LOWEST_SCORE
        weights = scores.softmax(dim=1).transpose(1, 2).unsqueeze(2)
        slices = words.unflatten(-1, (weights.shape[1], -1)).transpose(1, 2)
        # Not below 0, which is also what padding counts as: so any amount of padding leaves it alone.
        strongest = words.amax(dim=1).relu()
        rows, there = hash_ngrams(input_ids, attention_mask, self.lengths, self.ngrams.num_embeddings)
        share = there.to(mask.dtype) / mask.sum(dim=1).clamp(min=1.0)
        ngrams = (share.unsqueeze(1) @ self.ngrams(rows)).squeeze(1)
        return torch.cat([(weights @ slices).flatten(1), strongest, ngrams], dim=-1)


class StaticForSequenceClassification(PreTrainedModel):  # type: ignore[misc]
    """Features of the text, a GELU layer, a logit for each label."""

    config_class = StaticConfig
    base_model_prefix = "embedder"

    def __init__(self, config: StaticConfig) -> None:
        super().__init__(config)
        self.num_labels = config.num_labels
        self.embedder = StaticEmbedder(config)
        self.dropout = nn.Dropout(config.dropout)
        self.dense = nn.Linear(self.embedder.width, config.intermediate_size)
        self.classifier = nn.Linear(config.intermediate_size, config.num_labels)
        self.post_init()

    def forward(
        self, input_ids: Tensor, attention_mask: Tensor | None = None, output_hidden_states: bool = False
    ) -> SequenceClassifierOutput:
        """Return `logits` (batch, labels) and, if asked, the features as the only hidden state (batch, 1, width)."""
        if attention_mask is None:
            attention_mask = torch.ones_like(input_ids)
        features = self.embedder(input_ids, attention_mask)
        hidden = functional.gelu(self.dense(self.dropout(features)))
        return SequenceClassifierOutput(
            logits=self.classifier(hidden), hidden_states=(features.unsqueeze(1),) if output_hidden_states else None
        )


def hash_ngrams(ids: Tensor, mask: Tensor, lengths: tuple[int, ...], rows: int) -> tuple[Tensor, Tensor]:
    """Return the table row of each n-gram and whether it is there, both int64 (batch, len(lengths) * sequence).

    An n-gram stands at its last token and is there when all its tokens are; the others have row numbers without
    a meaning. Padding on either side changes nothing about those that are there.
    """
    reach = max(lengths) - 1
    ids_before, mask_before = functional.pad(ids, (reach, 0)), functional.pad(mask, (reach, 0))
    state, whole = ids * _BASE % _PRIME, mask
    found, there = [], []
    for back in range(1, reach + 1):
        state = (state + ids_before[:, reach - back : -back]) * _BASE % _PRIME
        whole = whole * mask_before[:, reach - back : -back]
        if back + 1 in lengths:
            found.append(state % rows)
            there.append(whole)
    return torch.cat(found, dim=1), torch.cat(there, dim=1)


AutoConfig.register(StaticConfig.model_type, StaticConfig)
AutoModelForSequenceClassification.register(StaticConfig, StaticForSequenceClassification)
