"""The tokens of labels after a prompt: where the border lies, and the labels as one tree of shared beginnings.

Knows tokens only: no model, no task and no probabilities.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import takewhile

import numpy as np
from numpy.typing import NDArray

from teacher.errors import LabelMismatchError, TeacherError

Encode = Callable[[Sequence[str]], list[list[int]]]  # texts -> token ids, as the model reads a whole sequence


@dataclass(frozen=True, slots=True)
class Border:
    """Where labels begin: `dropped` tokens at the end of the prompt merge with them and stand in `continuations`."""

    dropped: int
    continuations: tuple[tuple[int, ...], ...]  # one a label, never empty

    def only(self, columns: Sequence[int]) -> "Border":
        """Return the border of some of the labels."""
        return Border(self.dropped, tuple(self.continuations[column] for column in columns))

    @property
    def one_begins_another(self) -> bool:
        """Say whether the tokens of one label begin those of another, which credits it with the other's mass."""
        beginnings = {ids[:end] for ids in self.continuations for end in range(1, len(ids))}
        return any(ids in beginnings for ids in self.continuations)


def find_border(encode: Encode, prompt: str, labels: Sequence[str]) -> Border:
    """Return the tokens of each of `labels` after `prompt`, tokenised together with it.

    A tokenizer may merge the end of the prompt with the beginning of a label; all labels then begin where the first
    such merge does. Raises LabelMismatchError when two labels are the same tokens, TeacherError when the prompt has
    no token before them.
    """
    alone, *joined = encode([prompt, *(prompt + label for label in labels)])
    kept = min(min(common_length(alone, ids), len(ids) - 1) for ids in joined)
    if kept < 1:
        raise TeacherError("the prompt has no token of its own before the label; write words in front of it")
    continuations = tuple(tuple(ids[kept:]) for ids in joined)
    seen: dict[tuple[int, ...], str] = {}
    for label, ids in zip(labels, continuations, strict=True):
        if ids in seen:
            raise LabelMismatchError(
                f"the labels {seen[ids].strip()!r} and {label.strip()!r} are the same tokens to this model; rename one"
            )
        seen[ids] = label
    return Border(len(alone) - kept, continuations)


def common_length(first: Sequence[int], second: Sequence[int]) -> int:
    """Return how many tokens `first` and `second` begin with alike."""
    return sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], zip(first, second, strict=False)))


@dataclass(frozen=True, slots=True)
class LabelTree:
    """Label continuations that share their beginnings, laid out as one sequence behind a prompt.

    K nodes are the tokens that a model has to read: all but the last of each label. E edges are the tokens it has to
    foretell. `rows` says from which logits: 0 are those at the end of the prompt, 1 + k those of node k.
    """

    tokens: NDArray[np.int64]  # (K,), each after the one it follows
    depths: NDArray[np.int64]  # (K,), position behind the prompt, from 0
    sees: NDArray[np.bool_]  # (K, K), a node sees itself and what it follows
    rows: NDArray[np.int64]  # (E,)
    targets: NDArray[np.int64]  # (E,)
    shares: NDArray[np.float32]  # (E, C), 1 / length of a label at the edges on its path: the mean over its tokens

    @classmethod
    @lru_cache(maxsize=64)
    def grow(cls, continuations: tuple[tuple[int, ...], ...]) -> "LabelTree":
        """Return the tree of C different continuations."""
        paths = list(dict.fromkeys(ids[: end + 1] for ids in continuations for end in range(len(ids))))
        read = {ids[:end] for ids in continuations for end in range(1, len(ids))}
        nodes = sorted((path for path in paths if path in read), key=len)
        row = {path: 1 + position for position, path in enumerate(nodes)}
        edge = {path: position for position, path in enumerate(paths)}
        shares = np.zeros((len(paths), len(continuations)), np.float32)
        for column, ids in enumerate(continuations):
            shares[[edge[ids[: end + 1]] for end in range(len(ids))], column] = 1 / len(ids)
        sees = np.eye(len(nodes), dtype=np.bool_)
        for position, path in enumerate(nodes):
            if len(path) > 1:
                sees[position] |= sees[row[path[:-1]] - 1]
        return cls(
            tokens=np.array([path[-1] for path in nodes], np.int64),
            depths=np.array([len(path) - 1 for path in nodes], np.int64),
            sees=sees,
            rows=np.array([row.get(path[:-1], 0) for path in paths], np.int64),
            targets=np.array([path[-1] for path in paths], np.int64),
            shares=shares,
        )
