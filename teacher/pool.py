"""Write the pool: every distinct text a teacher is to label, streamed from its sources to disk.

Knows nothing of labels; the only thing held in memory is eight bytes a text.
"""

from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from teacher.example import Example, content_id
from teacher.leaks import LeakIndex
from teacher.parts import ROW_GROUP, PartWriter
from teacher.sift import DUPLICATE, Sifter

_BATCH_CHARACTERS = 16 * 2**20


class SeenIds:
    """A set of content ids in sorted arrays, 8 bytes an id: a set of strings would take ten times that."""

    def __init__(self) -> None:
        """Start empty."""
        self._runs: list[NDArray[np.uint64]] = []

    def add(self, ids: Sequence[str]) -> list[bool]:
        """Add `ids` (16 hex digits each); return for each whether it is seen for the first time."""
        numbers = np.array([int(id, 16) for id in ids], np.uint64)
        distinct, first = np.unique(numbers, return_index=True)
        is_new = np.ones(len(distinct), bool)
        for run in self._runs:
            places = np.minimum(np.searchsorted(run, distinct), len(run) - 1)
            is_new &= run[places] != distinct
        self._keep(distinct[is_new])
        answers = np.zeros(len(numbers), bool)
        answers[first[is_new]] = True
        return [bool(answer) for answer in answers]

    def _keep(self, run: NDArray[np.uint64]) -> None:
        # Merging only runs of like size moves each id a logarithmic number of times.
        while self._runs and len(self._runs[-1]) <= 2 * len(run):
            run = np.sort(np.concatenate((self._runs.pop(), run)))
        if len(run):
            self._runs.append(run)


def write_pool(sifter: Sifter, gold: Iterable[Example], held: LeakIndex, writer: PartWriter, quarantine: Path) -> int:
    """Write the unlabelled texts, in file order, then those of `gold` not among them, to `writer`.

    Texts that repeat one of `held` are dropped. Returns the number of rows from unlabelled sources. The
    quarantined rows are appended to the file `quarantine` on the way, so that they do not pile up either.
    """
    seen = SeenIds()
    ledger = sifter.ledger
    for batch in _batches(_unlabelled(sifter)):
        is_new = seen.add([example.id for example in batch])
        fresh = [example for example, new in zip(batch, is_new, strict=True) if new]
        ledger.dropped["pool"][DUPLICATE] += len(batch) - len(fresh)
        writer.write([example for example in fresh if not ledger.drop_leak(held, "pool", example.text)])
        ledger.quarantine.save(quarantine)
    unlabelled = writer.rows
    for batch in _batches(Example(example.id, example.text) for example in gold):
        is_new = seen.add([example.id for example in batch])
        writer.write([example for example, new in zip(batch, is_new, strict=True) if new])
    return unlabelled


def _unlabelled(sifter: Sifter) -> Iterator[Example]:
    for source in sifter.data.unlabeled:
        for _, text, _ in sifter.sift("pool", source):
            yield Example(content_id(text), text)


def _batches(examples: Iterable[Example]) -> Iterator[list[Example]]:
    """Yield lists of one row group, or less where the texts are long."""
    iterator = iter(examples)
    while batch := list(islice(iterator, 1)):
        characters = len(batch[0].text)
        for example in iterator:
            batch.append(example)
            characters += len(example.text)
            if len(batch) == ROW_GROUP or characters > _BATCH_CHARACTERS:
                break
        yield batch
