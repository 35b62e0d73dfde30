"""A whole vocabulary over a few embedding rows: a token that a corpus lacks shares the row of its nearest neighbour.

Text that nobody has seen before is then read as the teacher reads it, with another word of like meaning in a word's
place, where a trimmed vocabulary would break the word into pieces. A finished checkpoint holds a row for every token,
as any library expects; that rows repeat is all it says of the sharing, and an exporter may store each once.
"""

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from transformers import AutoModelForSequenceClassification, PreTrainedModel, PreTrainedTokenizerBase

from student.model import renumber_tokens
from student.static import StaticForSequenceClassification

MOST_TOKENS = 65_536  # of a larger vocabulary the tokenizer alone weighs more than a student
_BATCH = 2048


@dataclass(frozen=True, slots=True, eq=False)
class SharedRows:
    """Token i reads row `places[i]` (int64, tokens); row j is that of token `owners[j]` (int64, rows)."""

    places: NDArray[np.int64]
    owners: NDArray[np.int64]

    def shrink(self, model: PreTrainedModel) -> PreTrainedModel:
        """Return `model`, which has a row for every token, with each row once; its ids are places."""
        return _with_rows(model, self.owners, self.places)

    def expand(self, model: PreTrainedModel) -> PreTrainedModel:
        """Return `model`, whose ids are places, with a row for every token."""
        return _with_rows(model, self.places, self.owners)

    def borrowing(self, rows: Iterable[NDArray[np.integer]]) -> float:
        """Return the share of `rows`, each the token ids of a text, with a token that has no row of its own."""
        alone = np.zeros(len(self.places), bool)
        alone[self.owners] = True
        found = [not alone[row].all() for row in rows]
        return float(np.mean(found)) if found else 0.0


def choose_owners(
    tokenizer: PreTrainedTokenizerBase, rows: Iterable[NDArray[np.integer]], *, least_rows: int = 6000
) -> NDArray[np.int64]:
    """Return the ids, rising, of the tokens with a row of their own.

    Those are special and added tokens, those in `rows` (token ids of a text each), and then the lowest ids up to
    `least_rows`: vocabularies are ordered by frequency or by merge.
    """
    kept = {*tokenizer.all_special_ids, *tokenizer.get_added_vocab().values()}
    kept.update(*(row.tolist() for row in rows))
    for token in range(len(tokenizer)):
        if len(kept) >= least_rows:
            break
        kept.add(token)
    return np.array(sorted(kept), np.int64)


def share_rows(embeddings: Tensor, owners: NDArray[np.int64], special: Iterable[int]) -> SharedRows:
    """Return the places of all tokens of `embeddings` (tokens, width): an owner's own, else the nearest owner's.

    Nearest by the cosine of embeddings less their mean; no token takes the place of a `special` one.
    """
    directions = torch.nn.functional.normalize(embeddings - embeddings.mean(dim=0), dim=-1)
    barred = torch.from_numpy(np.isin(owners, list(special)))
    candidates = directions[torch.from_numpy(owners)]
    places = [
        (block @ candidates.T).masked_fill(barred, -torch.inf).argmax(dim=-1)
        for block in torch.split(directions, _BATCH)
    ]
    found = torch.cat(places).numpy()
    found[owners] = np.arange(len(owners))
    return SharedRows(found, owners)


def read_places(student: StaticForSequenceClassification, shared: SharedRows) -> None:
    """Let a static `student`, whose ids are places, understand the tokens' own and look their places up by itself."""
    student.config = renumber_tokens(student.config, dict(enumerate(shared.owners.tolist())), len(shared.places))
    student.config.word_rows = len(shared.owners)
    student.embedder.places = torch.from_numpy(shared.places.astype(np.int32))


def find_shared(model: PreTrainedModel) -> SharedRows | None:
    """Return which tokens of a finished checkpoint share a row, None where each has its own.

    A static student looks places up by itself: its ids are tokens before and after.
    """
    if isinstance(model, StaticForSequenceClassification):
        return None
    table = np.ascontiguousarray(model.get_input_embeddings().weight.detach().numpy())
    as_bytes = table.view(np.dtype((np.void, table.itemsize * table.shape[1]))).ravel()
    owners, places = np.unique(as_bytes, return_index=True, return_inverse=True)[1:]
    return SharedRows(places.astype(np.int64), owners.astype(np.int64)) if len(owners) < len(table) else None


def _with_rows(model: PreTrainedModel, rows: NDArray[np.int64], new_ids: NDArray[np.int64]) -> PreTrainedModel:
    """Return `model` with the rows `rows` of its embedding; its config's token id i becomes `new_ids[i]`."""
    config = renumber_tokens(model.config, dict(enumerate(new_ids.tolist())), len(rows))
    resized = AutoModelForSequenceClassification.from_config(config, attn_implementation="eager")
    words = model.get_input_embeddings().weight
    weights = model.state_dict()
    for name, tensor in weights.items():
        if tensor.shape == words.shape and tensor.data_ptr() == words.data_ptr():
            weights[name] = tensor[torch.from_numpy(rows)]
    resized.load_state_dict(weights)
    return resized
