"""The distillation trainer: the fine-tuning trainer with soft labels and the teacher's sentence embeddings."""

from collections.abc import Mapping
from typing import Any

import torch

from distill.losses import hidden_loss
from teacher.finetune import FineTuner, Recipe, Run


class DistillationTrainer(FineTuner):
    """Examples carry `soft` (C,), `targets` (C,), `has_gold` and, for the hidden term, `hidden` (width,)."""

    def __init__(self, model: torch.nn.Module, recipe: Recipe, run: Run, hidden_weight: float = 0.0) -> None:
        """Set up; with `hidden_weight` 0 the student learns from soft labels alone."""
        super().__init__(model, recipe, run)
        self._hidden_weight = hidden_weight
        self.forward_options = {"output_hidden_states": True} if hidden_weight else {}

    def extra_loss(self, outputs: Any, inputs: Mapping[str, torch.Tensor]) -> torch.Tensor | float:
        """Return, while training, how far position 0 of the last layer is from the teacher's embedding."""
        if not self._hidden_weight or not self.model.training:
            return 0.0
        return self._hidden_weight * hidden_loss(outputs.hidden_states[-1][:, 0].float(), inputs["hidden"].float())
