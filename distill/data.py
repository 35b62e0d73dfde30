"""What a student trains on: texts of a corpus joined with soft labels by content id, as token rows."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from transformers import PreTrainedTokenizerBase

from teacher.corpus import read_part
from teacher.example import Example
from teacher.finetune import TokenRows
from teacher.parts import PartName
from teacher.soft_labels import read_store
from teacher.task import Task


@dataclass(frozen=True, slots=True)
class Transfer:
    """N texts with the teacher's answers and, where somebody gave them, gold labels.

    `soft` and `targets` are float32 (N, C); `has_gold` (N,) says which rows of `targets` mean anything; `hidden`
    (N, width) are the teacher's sentence embeddings, where the student is to learn them too.
    """

    texts: list[str]
    soft: NDArray[np.float32]
    targets: NDArray[np.float32]
    has_gold: NDArray[np.bool_]
    hidden: NDArray[np.float16] | None = None

    def rows(self, tokenizer: PreTrainedTokenizerBase, max_tokens: int) -> TokenRows:
        """Tokenize the texts and attach everything the distillation objective reads."""
        arrays = {"soft": self.soft, "targets": self.targets, "has_gold": self.has_gold}
        if self.hidden is not None:
            arrays["hidden"] = self.hidden
        return TokenRows(tokenizer, self.texts, max_tokens, **arrays)


def read_transfer(corpus: Path, labels: Path, task: Task, part: PartName) -> Transfer:
    """Join the texts of `part` ("pool" or "gold") with the stored soft labels.

    Raises StoreError when the store is damaged or lacks a text.
    """
    examples = read_part(corpus, part)
    soft = read_store(labels).probs([example.id for example in examples])
    gold = {example.id: example.labels for example in read_part(corpus, "gold")}
    known = [gold.get(example.id) for example in examples]
    return Transfer(
        texts=[example.text for example in examples],
        soft=soft,
        targets=task.targets([names or () for names in known]),
        has_gold=np.array([names is not None for names in known], bool),
    )


def labelled_rows(
    examples: Sequence[Example], task: Task, tokenizer: PreTrainedTokenizerBase, max_tokens: int
) -> TokenRows:
    """Tokenize labelled examples (gold, dev) with their 0/1 `targets`; the gold label stands in for `soft`."""
    targets = task.targets([example.labels or () for example in examples])
    return Transfer([example.text for example in examples], targets, targets, np.ones(len(examples), bool)).rows(
        tokenizer, max_tokens
    )


def needed_tokens(tokenizer: PreTrainedTokenizerBase, texts: Sequence[str], limit: int, share: float = 0.999) -> int:
    """Return how many tokens `share` of a sample of `texts` needs, rounded up to 16, at most `limit`."""
    sample = [texts[position] for position in np.linspace(0, len(texts) - 1, min(len(texts), 20_000)).astype(int)]
    lengths = [len(row) for row in tokenizer(sample)["input_ids"]]
    needed = int(np.quantile(lengths, share)) + 1
    return int(min(-(-needed // 16) * 16, limit))
