"""Label a corpus: stream texts past a teacher into a store, going on where an earlier run stopped."""

from collections.abc import Iterable, Iterator

from teacher.base import Progress, Teacher
from teacher.example import Example
from teacher.soft_labels import LabelStore


def label_corpus(
    teacher: Teacher, chunks: Iterable[list[Example]], store: LabelStore, *, shard_rows: int, progress: Progress
) -> None:
    """Answer every example of `chunks` that `store` lacks, `shard_rows` to a shard; memory holds one shard."""
    for shard in _shards(chunks, store, shard_rows, progress):
        answers = teacher.label([example.text for example in shard])
        store.append(answers)
        progress(len(shard))


def _shards(
    chunks: Iterable[list[Example]], store: LabelStore, shard_rows: int, progress: Progress
) -> Iterator[list[Example]]:
    waiting: list[Example] = []
    for chunk in chunks:
        stored = store.has([example.id for example in chunk])
        lacking = [example for example, is_stored in zip(chunk, stored, strict=True) if not is_stored]
        progress(len(chunk) - len(lacking))
        waiting.extend(lacking)
        while len(waiting) >= shard_rows:
            yield waiting[:shard_rows]
            waiting = waiting[shard_rows:]
    if waiting:
        yield waiting
