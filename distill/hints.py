"""Hints: what a teacher's layers make of every token, for a student that starts from copies of some of them.

The term is that of Romero et al. 2015, "FitNets: Hints for Thin Deep Nets".
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from transformers import PreTrainedModel

from student.model import layer_stack


class Hints:
    """The hidden states after some layers of an encoder; the layers behind the last of them are taken off."""

    def __init__(
        self, encoder: PreTrainedModel, layers: Sequence[int], source_ids: NDArray[np.int64] | None = None
    ) -> None:
        """Take `encoder` for good; `layers` rise.

        `source_ids` (tokens,) say which id of the encoder each id of a student with a trimmed vocabulary stands for.
        """
        self._encoder = encoder.eval().requires_grad_(False)
        self._source_ids = None if source_ids is None else torch.from_numpy(source_ids)
        self._states: list[Tensor] = []
        _, stack = layer_stack(encoder)
        del stack[layers[-1] + 1 :]
        for layer in layers:
            stack[layer].register_forward_hook(self._keep)

    def to(self, device: torch.device, dtype: torch.dtype) -> None:
        """Move to where the batches are, with weights and states of `dtype`."""
        self._encoder.to(device, dtype)
        self._source_ids = None if self._source_ids is None else self._source_ids.to(device)

    def __call__(self, input_ids: Tensor, attention_mask: Tensor) -> list[Tensor]:
        """Return the states (batch, sequence, width) after each of the layers, for token ids of the student."""
        self._states.clear()
        ids = input_ids if self._source_ids is None else self._source_ids[input_ids]
        with torch.no_grad():
            self._encoder(input_ids=ids, attention_mask=attention_mask)
        return list(self._states)

    def _keep(self, layer: nn.Module, given: Any, states: Any) -> None:
        self._states.append(states[0] if isinstance(states, tuple) else states)
