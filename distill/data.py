"""What a student trains on: texts of a corpus joined with soft labels by content id, as token rows."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from transformers import PreTrainedTokenizerBase

from teacher.corpus import read_meta, read_part
from teacher.errors import StoreError
from teacher.example import Example
from teacher.finetune import TokenRows
from teacher.parts import PartName
from teacher.soft_labels import read_store
from teacher.task import Task, TaskKind

VARIANTS: PartName = "variants"  # the folder of a label store, and its part, that hold variants of pool texts
_GOLD_TRUST = 0.95  # probability of a gold label where it stands in for the teacher's answer


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

    def joined(self, other: "Transfer") -> "Transfer":
        """Return the texts of this and, behind them, those of `other`; neither carries embeddings yet."""
        arrays = [
            np.concatenate([getattr(self, name), getattr(other, name)]) for name in ("soft", "targets", "has_gold")
        ]
        return Transfer([*self.texts, *other.texts], *arrays)

    def rows(self, tokenizer: PreTrainedTokenizerBase, max_tokens: int) -> TokenRows:
        """Tokenize the texts and attach everything the distillation objective reads."""
        arrays = {"soft": self.soft, "targets": self.targets, "has_gold": self.has_gold}
        if self.hidden is not None:
            arrays["hidden"] = self.hidden
        return TokenRows(tokenizer, self.texts, max_tokens, **arrays)


def read_transfer(corpus: Path, labels: Path, task: Task, part: PartName) -> Transfer:
    """Join the texts of `part` ("pool" or "gold") with the stored soft labels.

    A gold text that the teacher was not asked about, or rejected, takes its gold label with the rest of the mass spread
    evenly; other texts without a soft label stay out. Raises StoreError when the store is damaged, belongs to another
    corpus, or leaves no text.
    """
    store, examples = read_store(labels), read_part(corpus, part)
    if store.meta.corpus != read_meta(corpus).digest:
        raise StoreError(f"{labels} holds the labels of another corpus; label this one: distill label CONFIG")
    gold = {example.id: example.labels for example in read_part(corpus, "gold")}
    answered = store.answered([example.id for example in examples])
    kept = [row for row, example in enumerate(examples) if answered[row] or example.id in gold]
    if not kept:
        raise StoreError(f"none of the {len(examples)} texts of {part} has a soft label; run distill label again")
    examples, answered = [examples[row] for row in kept], answered[kept]
    known = [gold.get(example.id) for example in examples]
    targets = task.targets([names or () for names in known])
    soft = _softened(task.kind, targets)
    soft[answered] = store.probs([examples[row].id for row in np.flatnonzero(answered)])
    has_gold = np.array([names is not None for names in known], bool)
    return Transfer([example.text for example in examples], soft, targets, has_gold)


def label_stores(labels: Path) -> list[Path]:
    """Return the store of the pool's answers and, where variants were made, that of theirs."""
    return [folder for folder in (labels, labels / VARIANTS) if folder.is_dir()]


def read_variants(labels: Path) -> Transfer | None:
    """Return the variants of pool texts with the teacher's answers to them; None where none were made."""
    folder = labels / VARIANTS
    if not folder.is_dir():
        return None
    store, examples = read_store(folder), read_part(folder, VARIANTS)
    answered = store.answered([example.id for example in examples])
    examples = [examples[row] for row in np.flatnonzero(answered)]
    soft = store.probs([example.id for example in examples])
    return Transfer([example.text for example in examples], soft, np.zeros_like(soft), np.zeros(len(soft), bool))


def _softened(kind: TaskKind, targets: NDArray[np.float32]) -> NDArray[np.float32]:
    even = 1 / targets.shape[1] if kind is TaskKind.SINGLE_LABEL else 0.5
    return np.asarray(_GOLD_TRUST * targets + (1 - _GOLD_TRUST) * even, np.float32)


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
