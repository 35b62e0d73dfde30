"""Score every label after a prompt with a causal language model, the prompt read once for all labels.

Which layout of the labels a model takes is proven on the first prompts, against a pass for each label alone.
"""

from collections import defaultdict
from collections.abc import Callable, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from transformers import PreTrainedModel

from teacher.errors import TeacherError
from teacher.label_layouts import Prompts, expanded, packed, sees_all, separate
from teacher.label_tokens import Border, Encode, find_border

Layout = Callable[[PreTrainedModel, Prompts, Border, int], NDArray[np.float32]]
LAYOUTS: dict[str, Layout] = {"packed": packed, "expanded": expanded, "separate": separate}
_TAIL_CHARACTERS, _TAIL_TOKENS = 48, 8  # what decides how a label's first token merges with the prompt
_BORDERS_KEPT = 1024
_PROOF_LABELS = 3
_PROOF_TOLERANCE = {torch.float32: 1e-3, torch.bfloat16: 0.1}  # of a mean log-probability
# What a model may raise that does not know a mask, a cache or an argument.
_MODEL_ERRORS = (AttributeError, LookupError, RuntimeError, TypeError, ValueError)


class LabelScorer:
    """Score label strings behind prompts: the mean log-probability of a label's tokens given the prompt."""

    def __init__(self, model: PreTrainedModel, encode: Encode, max_tokens: int, batch_size: int) -> None:
        """Keep `model` in evaluation mode on its device; `encode` turns whole strings into its token ids."""
        self.model = model.eval()
        self.encode = encode
        self.max_tokens = max_tokens
        self.batch_size = batch_size
        self.layout: str | None = None  # unknown until the first prompts prove it
        self._borders: dict[tuple[str, tuple[int, ...], tuple[str, ...]], Border] = {}

    def scores(self, prompts: Sequence[str], labels: Sequence[str]) -> NDArray[np.float32]:
        """Return scores (N, C) of `labels` behind each of `prompts`; a row is NaN where prompt and label do not fit
        into `max_tokens`.

        Labels are what follows the prompt, a leading space included. Raises TeacherError when an answer of the model
        is not finite.
        """
        scores = np.full((len(prompts), len(labels)), np.nan, np.float32)
        for border, rows, tokens in self._groups(prompts, tuple(labels)):
            longest = self.max_tokens - max(len(ids) for ids in border.continuations)
            fitting = [position for position, ids in enumerate(tokens) if len(ids) <= longest]
            if fitting:
                answers = self._score([tokens[position] for position in fitting], border)
                scores[[rows[position] for position in fitting]] = answers
        return scores

    def border(self, prompt: str, labels: Sequence[str]) -> Border:
        """Return where `labels` begin behind `prompt`; raises like `find_border`."""
        return self._border(prompt, self.encode([prompt])[0], tuple(labels))

    def _groups(
        self, prompts: Sequence[str], labels: tuple[str, ...]
    ) -> list[tuple[Border, list[int], list[list[int]]]]:
        """Return each border found, the prompts (by number) that have it, and the tokens of these before it."""
        groups: dict[Border, tuple[list[int], list[list[int]]]] = defaultdict(lambda: ([], []))
        for row, (prompt, ids) in enumerate(zip(prompts, self.encode(list(prompts)), strict=True)):
            border = self._border(prompt, ids, labels)
            rows, tokens = groups[border]
            rows.append(row)
            tokens.append(ids[: len(ids) - border.dropped])
        return [(border, *members) for border, members in groups.items()]

    def _border(self, prompt: str, ids: list[int], labels: tuple[str, ...]) -> Border:
        key = (prompt[-_TAIL_CHARACTERS:], tuple(ids[-_TAIL_TOKENS:]), labels)
        if key not in self._borders:
            if len(self._borders) >= _BORDERS_KEPT:  # a prompt that ends in the text has a border of its own
                self._borders.clear()
            self._borders[key] = find_border(self.encode, prompt, labels)
        return self._borders[key]

    def _score(self, prompts: list[list[int]], border: Border) -> NDArray[np.float32]:
        if self.layout is None:
            self.layout = self._proven_layout(prompts, border)
        scores = LAYOUTS[self.layout](self.model, prompts, border, self.batch_size)
        if not np.isfinite(scores).all():
            raise TeacherError("the model answered with NaN or infinity; its weights are damaged or overflowed")
        return scores

    def _proven_layout(self, prompts: list[list[int]], border: Border) -> str:
        """Return the fastest layout that scores the shortest and the longest prompt like a pass for each label."""
        by_length = sorted(prompts, key=len)
        sample = [by_length[0], by_length[-1]]
        columns = np.linspace(0, len(border.continuations) - 1, _PROOF_LABELS).astype(int).tolist()
        wanted = separate(self.model, sample, border.only(columns), 1)
        tolerance = _PROOF_TOLERANCE.get(self.model.dtype, max(_PROOF_TOLERANCE.values()))
        quick = ["packed", "expanded"] if sees_all(self.model, self.max_tokens) else ["expanded"]
        for name in quick:
            try:
                found = LAYOUTS[name](self.model, sample, border, len(sample))[:, columns]
            except _MODEL_ERRORS:
                continue
            if np.abs(found - wanted).max() <= tolerance:
                return name
        return "separate"
