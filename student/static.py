"""A student without layers: embeddings of tokens and of hashed token n-grams, sums and maxima of them, a small head.

A standard Hugging Face model: importing this module registers it, so that `AutoModelForSequenceClassification`
opens its checkpoints. N-grams are hashed inside `forward`, so an exported graph takes `input_ids` and `attention_mask`
like any other. It is written for few steps: each costs an exported answer time, however little it computes. Knows
nothing of where its weights start: that is for `warm_start.py`.
"""

from collections.abc import Mapping, Sequence
from itertools import accumulate
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional
from transformers import AutoConfig, AutoModelForSequenceClassification, PreTrainedConfig, PreTrainedModel
from transformers.modeling_outputs import SequenceClassifierOutput

_WHOLE_FLOATS = 2**24  # so far may the codes of an n-gram add up: float32 has every whole number below
_DEFAULTS: Mapping[str, Any] = {
    "vocab_size": 30522,
    "word_rows": None,
    "hidden_size": 320,
    "ngram_rows": 28_672,
    "ngram_width": 64,
    "ngrams": [2, 3],
    "intermediate_size": 512,
    "dropout": 0.0,
    "client_model_type": "bert",
}


class StaticConfig(PreTrainedConfig):  # type: ignore[misc]
    """`word_rows` embeddings stand for `vocab_size` tokens, None for as many; a buffer says which is whose.

    `ngrams` are the lengths that are hashed into the same `ngram_rows` rows of `ngram_width`.
    `client_model_type` names an architecture with the same inputs that every client of ONNX files knows.
    """

    model_type = "potstill_static"

    def __init__(self, **given: Any) -> None:
        """Set the sizes in `given`, or their defaults; the others are what every config has."""
        for name, default in _DEFAULTS.items():
            setattr(self, name, given.pop(name, default))
        super().__init__(**given)


class StaticEmbedder(nn.Module):
    """Token ids to one feature vector (batch, width): sums of words and of n-grams, normalised, and maxima of words.

    How much a word counts is the length of its embedding. What is masked counts as nobody, one more row than there are
    words: its embedding is 0, and so is that of an n-gram of nobody alone.
    """

    def __init__(self, config: StaticConfig) -> None:
        super().__init__()
        rows = config.word_rows or config.vocab_size
        self.nobody = rows
        self.words = nn.Embedding(rows + 1, config.hidden_size, padding_idx=rows)
        self.ngrams = nn.Embedding(config.ngram_rows, config.ngram_width, padding_idx=0)
        self.norm = nn.LayerNorm(config.hidden_size + config.ngram_width)
        shares = config.word_rows is not None
        self.register_buffer("places", torch.zeros(config.vocab_size, dtype=torch.int32) if shares else None)
        self.register_buffer("codes", draw_codes(rows, config.ngrams))
        self.register_buffer("windows", draw_windows(config.ngrams))
        self.width = self.norm.normalized_shape[0] + config.hidden_size

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        if self.places is not None:
            input_ids = cast(Tensor, self.places)[input_ids]  # n-grams too are those of the words that are read
        ids = torch.where(attention_mask.bool(), input_ids, self.nobody)
        rows = hash_ngrams(ids, cast(Tensor, self.codes), cast(Tensor, self.windows), self.ngrams.num_embeddings)
        words = self.words(ids)
        sums = torch.cat([words.sum(dim=1), self.ngrams(rows).sum(dim=(1, 2))], dim=-1)
        # Not below 0, which is also what nobody counts as: so any amount of padding leaves it alone.
        return torch.cat([self.norm(sums), words.amax(dim=1).relu()], dim=-1)


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


def hash_ngrams(ids: Tensor, codes: Tensor, windows: Tensor, rows: int) -> Tensor:
    """Return the table row of each n-gram of `ids` (batch, sequence), as (batch, lengths, any) int32.

    A row is the sum of the codes (tokens, columns) of its tokens, modulo `rows`: `windows` (lengths, columns, places)
    say which column is that of which place. Beyond both ends stands nobody, whose codes are 0, so padding changes
    nothing but how often there is an n-gram of nobody alone, in row 0.
    """
    with torch.autocast(ids.device.type, enabled=False):  # bfloat16 would round the codes
        found = functional.conv1d(codes[ids].float().transpose(1, 2), windows, padding=windows.shape[-1] - 1)
    return found.int() % rows


def draw_codes(tokens: int, lengths: Sequence[int]) -> Tensor:
    """Return random codes (tokens + 1, columns) int32: a column for each place of each length, and zeros for nobody.

    Their sum is a universal hash: two n-grams share a row with the probability 1 / rows, whatever they are (tabulation
    hashing; Carter & Wegman 1979).
    """
    codes = np.random.default_rng(0).integers(_WHOLE_FLOATS // max(lengths), size=(tokens + 1, sum(lengths)))
    codes[-1] = 0
    return torch.from_numpy(codes.astype(np.int32))


def draw_windows(lengths: Sequence[int]) -> Tensor:
    """Return for each length which columns of `draw_codes` are added up at which place, (lengths, columns, places)."""
    windows = torch.zeros(len(lengths), sum(lengths), max(lengths))
    for row, (length, end) in enumerate(zip(lengths, accumulate(lengths), strict=True)):
        windows[row, range(end - length, end), range(length)] = 1
    return windows


AutoConfig.register(StaticConfig.model_type, StaticConfig)
AutoModelForSequenceClassification.register(StaticConfig, StaticForSequenceClassification)
