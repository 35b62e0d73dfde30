"""The distillation trainer: the fine-tuning trainer with soft labels and, if asked, the teacher's hidden states."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from distill.losses import relation_loss
from teacher.encoder import load_tokenizer
from teacher.finetune import FineTuner, Recipe, Run, TokenRows, pad
from teacher.pooled import PooledEncoder, load_encoder


class HiddenTeacher:
    """The encoder under a teacher, in evaluation mode, with the training texts in its own token ids."""

    def __init__(self, directory: Path, texts: list[str], max_tokens: int) -> None:
        """Load the encoder in `directory` and tokenize `texts` with its own tokenizer."""
        tokenizer = load_tokenizer(directory)
        self._encoder = PooledEncoder(load_encoder(str(directory))).eval()
        self._rows = TokenRows(tokenizer, texts, max_tokens)
        self._padding_id = tokenizer.pad_token_id or 0

    @torch.no_grad()
    def states(self, rows: torch.Tensor) -> torch.Tensor:
        """Return the mean last hidden state (batch, width) of the training rows `rows` (batch,)."""
        batch = pad([self._rows.tokens(int(row)) for row in rows], self._padding_id)
        encoder = self._encoder.to(rows.device)
        return encoder.pool(**{name: ids.to(rows.device) for name, ids in batch.items()})


@dataclass(frozen=True, slots=True)
class HiddenTerm:
    """How much the relation between hidden states counts, and whose they are."""

    weight: float
    teacher: HiddenTeacher


class DistillationTrainer(FineTuner):
    """Examples carry `soft` (C,), `targets` (C,), `has_gold` and, for the hidden term, `row`."""

    def __init__(self, model: torch.nn.Module, recipe: Recipe, run: Run, hidden: HiddenTerm | None = None) -> None:
        """Set up; `hidden` None trains on logits alone."""
        super().__init__(model, recipe, run)
        self._hidden = hidden
        self.forward_options = {"output_hidden_states": True} if hidden else {}

    def extra_loss(self, outputs: Any, inputs: Mapping[str, torch.Tensor]) -> torch.Tensor | float:
        """Return the weighted relation loss on position 0 of the last layer, while training."""
        if self._hidden is None or not self.model.training:
            return 0.0
        wanted = self._hidden.teacher.states(inputs["row"])
        return self._hidden.weight * relation_loss(outputs.hidden_states[-1][:, 0].float(), wanted)
