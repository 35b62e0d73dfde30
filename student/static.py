"""A student without layers: embeddings of tokens and of hashed token n-grams, means and maxima of them, a small head.

A standard Hugging Face model: importing this module registers it, so that `AutoModelForSequenceClassification`
opens its checkpoints. N-grams are hashed inside `forward`, in 32-bit integers, so an exported graph takes `input_ids`
and `attention_mask` like any other. It is written for few steps: each costs an exported answer time, however
little it computes. Knows nothing of where its weights start: that is for `warm_start.py`.
"""

from collections.abc import Mapping, Sequence
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional
from transformers import AutoConfig, AutoModelForSequenceClassification, PreTrainedConfig, PreTrainedModel
from transformers.modeling_outputs import SequenceClassifierOutput

_INTEGERS = 2**31  # of int32, not below 0: so far may the codes of an n-gram sum up
_LOWEST_SCORE = -1e4
_DEFAULTS: Mapping[str, Any] = {
    "vocab_size": 30522,
    "word_rows": None,
    "hidden_size": 320,
    "pooling_heads": 4,
    "ngram_rows": 53_248,
    "ngram_width": 32,
    "ngrams": [2, 3],
    "intermediate_size": 512,
    "dropout": 0.0,
    "client_model_type": "bert",
}


class StaticConfig(PreTrainedConfig):  # type: ignore[misc]
    """`word_rows` embeddings stand for `vocab_size` tokens, None for as many; a buffer says which is whose.

    `ngrams` are the lengths that are hashed into the same `ngram_rows` rows of `ngram_width`.
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
    """Token ids to one feature vector (batch, width): weighted means and maxima of words, means of n-grams.

    What is masked counts as nobody, one more row than there are words: its embedding is 0, its weight is 0.
    """

    def __init__(self, config: StaticConfig) -> None:
        super().__init__()
        rows, lengths = config.word_rows or config.vocab_size, config.ngrams
        self.nobody = rows
        self.words = nn.Embedding(rows + 1, config.hidden_size, padding_idx=rows)
        self.word_scores = nn.Embedding(rows, config.pooling_heads)
        self.ngrams = nn.Embedding(config.ngram_rows, config.ngram_width)
        shares = config.word_rows is not None
        self.register_buffer("places", torch.zeros(config.vocab_size, dtype=torch.int32) if shares else None)
        self.register_buffer("codes", draw_codes(rows + 1, lengths))
        self.register_buffer("chosen", _choose_features(config))
        self.width = 2 * config.hidden_size + len(lengths) * config.ngram_width

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        if self.places is not None:
            input_ids = cast(Tensor, self.places)[input_ids]  # n-grams too are those of the words that are read
        ids = torch.where(attention_mask.bool(), input_ids, self.nobody)
        rows = hash_ngrams(ids, cast(Tensor, self.codes), self.ngrams.num_embeddings)
        vectors = torch.cat([self.words(ids), self.ngrams(rows).flatten(2)], dim=-1)
        # One more column than heads, alike for all words: a plain mean, for n-grams.
        scores = functional.pad(functional.pad(self.word_scores.weight, (0, 1)), (0, 0, 0, 1), value=_LOWEST_SCORE)
        means = functional.embedding(ids, scores).softmax(dim=1).transpose(1, 2) @ vectors
        # Not below 0, which is also what nobody counts as: so any amount of padding leaves it alone.
        strongest = vectors.amax(dim=1).relu()
        return torch.cat([means.flatten(1), strongest], dim=-1)[:, cast(Tensor, self.chosen)]


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


def hash_ngrams(ids: Tensor, codes: Tensor, rows: int) -> Tensor:
    """Return the table row of the n-grams of every length that end at each token, (batch, sequence, lengths) int32.

    `codes` (places, tokens, lengths) int32 are numbers whose sum, modulo `rows`, is the row: of the token itself, of
    the one before it, and so on. Before the first stands the last token that `codes` has, which is nobody: padding on
    the left changes nothing, and padding has rows without a meaning.
    """
    found = codes[0][ids]
    for earlier in codes[1:]:
        ids = functional.pad(ids, (1, -1), value=codes.shape[1] - 1)
        found = found + earlier[ids]
    return found % rows


def draw_codes(tokens: int, lengths: Sequence[int]) -> Tensor:
    """Return codes for `hash_ngrams`: random, or 0 at places that an n-gram of that length does not reach.

    A sum of them is a universal hash: two n-grams share a row with the probability 1 / rows, whatever they are
    (tabulation hashing; Carter & Wegman 1979).
    """
    places = max(lengths)
    codes = np.random.default_rng(0).integers(_INTEGERS // places, size=(places, tokens, len(lengths)), dtype=np.int32)
    codes *= np.arange(places)[:, None, None] < np.asarray(lengths)
    return torch.from_numpy(codes)


def _choose_features(config: StaticConfig) -> Tensor:
    """Return which of (heads + 1) means and one maximum of every column, side by side, are features."""
    words, heads = config.hidden_size, config.pooling_heads
    columns = words + len(config.ngrams) * config.ngram_width
    head = np.repeat(np.arange(heads), words // heads)
    of_words, of_ngrams = np.arange(words), np.arange(words, columns)
    found = [head * columns + of_words, (heads + 1) * columns + of_words, heads * columns + of_ngrams]
    return torch.from_numpy(np.concatenate(found))


AutoConfig.register(StaticConfig.model_type, StaticConfig)
AutoModelForSequenceClassification.register(StaticConfig, StaticForSequenceClassification)
