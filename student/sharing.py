"""Which tokens have an embedding row of their own; those of a static student share theirs with all others.

There, a token that the corpus lacks reads the row of its nearest neighbour, and n-grams are those of the rows that are
read, so that n-grams of unseen words are known too.
"""

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from student.model import renumber_tokens
from student.static import StaticForSequenceClassification

MOST_TOKENS = 65_536  # of a larger vocabulary the tokenizer alone weighs more than a student
_BATCH = 2048


@dataclass(frozen=True, slots=True, eq=False)
class SharedRows:
    """Token i reads row `places[i]` (int64, tokens); row j is that of token `owners[j]` (int64, rows)."""

    places: NDArray[np.int64]
    owners: NDArray[np.int64]


def choose_owners(
    tokenizer: PreTrainedTokenizerBase,
    rows: Iterable[NDArray[np.integer]],
    *,
    least_rows: int,
    fewest_others: int = 1000,
) -> NDArray[np.int64]:
    """Return the ids, rising, of the tokens with a row of their own.

    Those are special and added tokens, those in `rows` (token ids of a text each), and then the lowest ids up to
    `least_rows`: vocabularies are ordered by frequency or by merge. All of them, where `fewest_others` would not be
    left.
    """
    kept = {*tokenizer.all_special_ids, *tokenizer.get_added_vocab().values()}
    kept.update(*(row.tolist() for row in rows))
    if len(tokenizer) - max(least_rows, len(kept)) < fewest_others:
        return np.arange(len(tokenizer))
    for token in range(len(tokenizer)):
        if len(kept) >= least_rows:
            break
        kept.add(token)
    return np.array(sorted(kept), np.int64)


def share_rows(states: Tensor, owners: NDArray[np.int64], special: Iterable[int]) -> SharedRows:
    """Return the places of all tokens of `states` (tokens, width), what a teacher makes of each: an owner's own, else
    the nearest owner's.

    Nearest by the cosine of states less their mean; no token takes the place of a `special` one.
    """
    directions = torch.nn.functional.normalize(states - states.mean(dim=0), dim=-1)
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


def borrowing(owners: NDArray[np.int64], rows: Iterable[NDArray[np.integer]]) -> float:
    """Return the share of `rows`, each the token ids of a text, with a token that is not among `owners`."""
    known = set(owners.tolist())
    found = [not known.issuperset(row.tolist()) for row in rows]
    return float(np.mean(found)) if found else 0.0
