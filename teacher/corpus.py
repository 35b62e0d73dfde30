"""Turn sources into a clean corpus: pool, gold, dev and test, with no text that stands in two of them.

Test wins over dev, and both win over gold and pool. Knows nothing of teachers and students.
"""

import hashlib
from collections import Counter
from collections.abc import Callable, Mapping
from pathlib import Path

from teacher.errors import CorpusError
from teacher.example import Example, content_id, leak_key, normalise
from teacher.labelled import check_gold, choose_labels, describe_left_out, read_labelled, settle
from teacher.leaks import LeakIndex
from teacher.parts import PARTS, CorpusMeta, PartWriter, iterate_part, read_meta, read_part, write_meta
from teacher.pool import write_pool
from teacher.quarantine import LabelBook
from teacher.read import Columns, check_source, digest_sources
from teacher.sift import Ledger, Sifter
from teacher.spec import DataSpec, TaskSpec
from teacher.split import split_gold

__all__ = [
    "CorpusMeta",
    "Example",
    "content_id",
    "iterate_part",
    "leak_key",
    "normalise",
    "prepare_corpus",
    "read_meta",
    "read_part",
    "source_digest",
]


def prepare_corpus(
    data: DataSpec,
    task: TaskSpec,
    base: Path,
    target: Path,
    seed: int,
    progress: Callable[[int], None] | None = None,
) -> CorpusMeta:
    """Clean and split the sources of `data`; fill the folder `target` and return what it holds.

    Writes {pool,gold,dev,test}.parquet, quarantine.csv and, last, meta.json. `data.root` is relative to
    `base`; `progress` gets the number of rows read since its last call. The same seed gives the same parts.
    Raises CorpusError, before anything is written, when a source is unusable or gold cannot be learned from:
    a missing file or column, no rows, one class only, a label without gold.
    """
    sifter = Sifter(
        data, base / data.root, Ledger(drops_near=data.near_duplicates == "drop"), progress or (lambda rows: None)
    )
    for source in data.unlabeled:
        check_source(source, sifter.root, Columns(data.text))
    parts, labels = _read_parts(sifter, task, seed)
    held = _drop_leaks(parts, sifter.ledger, data.near_duplicate)
    check_gold(parts["gold"], labels, task.kind, sifter.ledger)
    for part in ("dev", "test"):
        _check_held_out(parts[part], part, sifter.ledger)
    target.mkdir(parents=True, exist_ok=True)
    rows, unlabeled, digest = _write_parts(sifter, parts, held, target)
    class_counts = Counter(name for example in parts["gold"] for name in example.labels or ())
    meta = CorpusMeta(
        labels=labels,
        kind=task.kind,
        rows=rows,
        unlabeled=unlabeled,
        dropped=_by_part(sifter.ledger.dropped),
        flagged=_by_part(sifter.ledger.flagged),
        quarantined=sifter.ledger.quarantine.counts(),
        class_counts={name: class_counts[name] for name in labels},
        leaks=sifter.ledger.leaks,
        digest=digest,
    )
    write_meta(target, meta)
    return meta


def source_digest(data: DataSpec, base: Path) -> str:
    """Return the SHA-256 over the role, name and bytes of every source; raise CorpusError without a file."""
    roles = [("pool", source) for source in data.unlabeled]
    roles += [("gold", data.gold), *((part, source) for part, source in _held_out(data) if source)]
    return digest_sources(roles, base / data.root)


def _by_part(counts: Mapping[str, Counter[str]]) -> dict[str, dict[str, int]]:
    return {part: dict(+reasons) for part, reasons in counts.items() if +reasons}


def _held_out(data: DataSpec) -> list[tuple[str, str | None]]:
    return [("dev", data.dev), ("test", data.test)]


def _read_parts(sifter: Sifter, task: TaskSpec, seed: int) -> tuple[dict[str, list[Example]], list[str]]:
    """Return gold, dev and test, each without repeats, and the labels in order; split what has no source."""
    data = sifter.data
    sources = {"gold": data.gold, **{part: source for part, source in _held_out(data) if source}}
    rows = {part: read_labelled(sifter, part, source, task.kind) for part, source in sources.items()}
    labels = choose_labels(task, rows["gold"])
    book = LabelBook(labels)
    parts = {part: settle(rows[part], book, sifter.ledger) for part in rows}
    shares = {"dev": data.dev_share, "test": data.test_share}
    shares = {part: share for part, share in shares.items() if part not in parts}
    if sum(shares.values()) >= 1:
        raise CorpusError(f"data.dev_share and data.test_share add up to {sum(shares.values()):g}; wanted less than 1")
    if shares:
        parts |= split_gold(parts["gold"], shares, data.near_duplicate, seed)
    return parts, labels


def _drop_leaks(parts: dict[str, list[Example]], ledger: Ledger, near_duplicate: float) -> LeakIndex:
    """Drop from dev what is in test and from gold what is in either; return the index of both."""
    held = LeakIndex(near_duplicate)
    for part in ("test", "dev", "gold"):
        if part != "test":
            parts[part] = [row for row in parts[part] if not ledger.drop_leak(held, part, row.text)]
        if part != "gold":
            for row in parts[part]:
                held.add(part, row.text)
    return held


def _check_held_out(examples: list[Example], part: str, ledger: Ledger) -> None:
    if not examples:
        raise CorpusError(
            f"{part} has no row{describe_left_out(ledger, part)}; add gold rows, raise data.{part}_share "
            f"or name a file under data.{part}"
        )


def _write_parts(
    sifter: Sifter, parts: dict[str, list[Example]], held: LeakIndex, target: Path
) -> tuple[dict[str, int], int, str]:
    """Write all parts and the quarantine; return rows by part, the unlabelled ones, the digest."""
    quarantine = target / "quarantine.csv"
    quarantine.unlink(missing_ok=True)
    sifter.ledger.quarantine.save(quarantine)
    digest = hashlib.sha256()
    rows: dict[str, int] = {}
    for part in PARTS:
        with PartWriter(target, part) as writer:
            if part == "pool":
                unlabeled = write_pool(sifter, parts["gold"], held, writer, quarantine)
            else:
                writer.write(parts[part])
        rows[part] = writer.rows
        digest.update(f"{part} {writer.digest}\n".encode())
    return rows, unlabeled, digest.hexdigest()
