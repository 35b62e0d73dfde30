"""The distillation trainer: the fine-tuning trainer with soft labels, the teacher's sentence embeddings and hints."""

from collections.abc import Mapping
from typing import Any

import torch

from distill.hints import Hints
from distill.losses import hidden_loss, hint_loss
from teacher.finetune import FineTuner, Recipe, Run


class DistillationTrainer(FineTuner):
    """Examples carry `soft` (C,), `targets` (C,), `has_gold` and, for the hidden term, `hidden` (width,)."""

    def __init__(
        self,
        model: torch.nn.Module,
        recipe: Recipe,
        run: Run,
        hidden_weight: float = 0.0,
        hints: Hints | None = None,
        hint_weight: float = 0.0,
    ) -> None:
        """Set up; with neither weight the student learns from soft labels alone.

        `hints` are for the student's first layers, as many as it gives, in order.
        """
        super().__init__(model, recipe, run)
        self._hidden_weight = hidden_weight
        self._hints, self._hint_weight = hints, hint_weight
        if hints is not None:
            # No autocast reaches them here: the library puts it around the forward pass of `model` alone.
            hints.to(self.args.device, torch.bfloat16 if self.args.bf16 else torch.float32)
        self.forward_options = {"output_hidden_states": True} if hidden_weight or hints is not None else {}

    def extra_loss(self, outputs: Any, inputs: Mapping[str, torch.Tensor]) -> torch.Tensor | float:
        """Return, while training, how far position 0 of the last layer is from the teacher's embedding, and every token
        of the first layers, on average over them, from the hints."""
        loss: torch.Tensor | float = 0.0
        if not self.model.training:
            return loss
        if self._hidden_weight:
            last = outputs.hidden_states[-1][:, 0]
            loss += self._hidden_weight * hidden_loss(last.float(), inputs["hidden"].float())
        if self._hints is not None:
            is_token = inputs["attention_mask"]
            wanted = self._hints(inputs["input_ids"], is_token)
            found = outputs.hidden_states[1 : 1 + len(wanted)]  # before them stand the embeddings
            losses = [hint_loss(*states, is_token) for states in zip(found, wanted, strict=True)]
            loss += self._hint_weight * torch.stack(losses).mean()
        return loss
