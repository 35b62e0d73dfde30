"""While an encoder is trained, its embedding holds the rows of the tokens that are read, and no others.

A token that no text has gets no gradient, and yet gradients, their norm, the optimizer and every checkpoint would carry
its row: half of all weights in a small English encoder, most of them in a small multilingual one.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from transformers import PreTrainedModel


class RowsInUse(nn.Module):
    """Token ids (batch, sequence) to embeddings (batch, sequence, width), for the tokens `ids` alone."""

    def __init__(self, embedding: nn.Embedding, ids: Tensor) -> None:
        """Copy the rows of `ids`, rising; asked for any other token, it raises IndexError."""
        super().__init__()
        places = torch.full((embedding.num_embeddings,), len(ids))
        places[ids] = torch.arange(len(ids))
        self.register_buffer("places", places, persistent=False)
        self.rows = nn.Embedding(len(ids), embedding.embedding_dim, _weight=embedding.weight.detach()[ids])

    def forward(self, input_ids: Tensor) -> Tensor:
        found: Tensor = self.rows(cast(Tensor, self.places)[input_ids])
        return found


@contextmanager
def rows_in_use(encoder: PreTrainedModel, ids: NDArray[np.integer]) -> Iterator[None]:
    """Let `encoder` embed the tokens `ids` (unique, rising) alone; at the end put their rows back where they were.

    An embedding that does more than look rows up stays as it is.
    """
    whole = encoder.get_input_embeddings()
    if type(whole) is not nn.Embedding or whole.max_norm is not None:
        yield
        return
    chosen = torch.from_numpy(ids.astype(np.int64))
    part = RowsInUse(whole, chosen)
    encoder.set_input_embeddings(part)
    yield
    with torch.no_grad():
        whole.weight[chosen] = part.rows.weight.to(whole.weight.device)
    encoder.set_input_embeddings(whole.to(part.rows.weight.device))
