"""A prepared corpus on disk: one parquet file a part and, written last, meta.json.

Knows nothing of where the texts came from or why one is in a part.
"""

import hashlib
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import TracebackType
from typing import Literal

import pyarrow as pa
import pyarrow.parquet as pq
from pydantic import BaseModel, ConfigDict, ValidationError

from teacher.errors import CorpusError
from teacher.example import Example
from teacher.task import TaskKind

PartName = Literal["pool", "gold", "dev", "test", "variants"]
PARTS: tuple[PartName, ...] = ("pool", "gold", "dev", "test")  # variants are made later, beside their labels
ROW_GROUP = 20_000
_META = "meta.json"
_SCHEMA = pa.schema(
    [
        pa.field("id", pa.string(), nullable=False),
        pa.field("text", pa.string(), nullable=False),
        pa.field("labels", pa.list_(pa.string())),
    ]
)


class LeakExample(BaseModel):
    """A dropped or flagged text, beside the text of a later part that it repeats."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    part: str
    text: str
    reason: str
    held_part: str
    held_text: str


class CorpusMeta(BaseModel):
    """What a prepared corpus holds, what was left out of it, and which near duplicates were flagged and stayed.

    `rows`, `dropped` and `flagged` (by reason) are per part; `quarantined` is by reason, and a row of a source that
    serves two parts counts twice. `unlabeled` counts the pool rows that came from unlabelled sources,
    `class_counts` the gold rows of each label. `digest` is the SHA-256 over the ids and labels of all parts.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    labels: list[str]
    kind: TaskKind
    rows: dict[str, int]
    unlabeled: int
    dropped: dict[str, dict[str, int]]
    flagged: dict[str, dict[str, int]]
    quarantined: dict[str, int]
    class_counts: dict[str, int]
    leaks: list[LeakExample]
    digest: str


class PartWriter:
    """Writes one part, row group by row group; `rows` and `digest` say what was written so far."""

    def __init__(self, directory: Path, part: PartName) -> None:
        """Open the file of `part` in `directory`."""
        self.rows = 0
        self._digest = hashlib.sha256()
        # Checksums let a reader notice a flipped bit instead of training on it.
        self._writer = pq.ParquetWriter(
            directory / f"{part}.parquet", _SCHEMA, compression="zstd", write_page_checksum=True
        )

    def __enter__(self) -> "PartWriter":
        """Return self."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Write the footer."""
        self._writer.close()

    @property
    def digest(self) -> str:
        """Return the SHA-256 over the ids and labels written so far, in order."""
        return self._digest.hexdigest()

    def write(self, examples: Sequence[Example]) -> None:
        """Append `examples` in row groups."""
        rows = [{"id": row.id, "text": row.text, "labels": row.labels} for row in examples]
        if rows:
            self._writer.write_table(pa.Table.from_pylist(rows, schema=_SCHEMA), row_group_size=ROW_GROUP)
        for row in examples:
            self._digest.update(f"{row.id} {json.dumps(row.labels)}\n".encode())
        self.rows += len(examples)


def write_meta(directory: Path, meta: CorpusMeta) -> None:
    """Write meta.json, which makes the corpus in `directory` a finished one."""
    (directory / _META).write_text(meta.model_dump_json(indent=1) + "\n", encoding="utf-8")


def read_meta(directory: Path) -> CorpusMeta:
    """Return what the corpus in `directory` holds; raise CorpusError when it is unfinished or damaged."""
    path = directory / _META
    if not path.is_file():
        raise CorpusError(f"{directory} has no {_META}: the corpus is unfinished; prepare it again")
    try:
        return CorpusMeta.model_validate_json(path.read_bytes())
    except (OSError, ValidationError) as error:
        raise CorpusError(f"{path} is damaged ({error}); prepare the corpus again") from error


def read_part(directory: Path, part: PartName) -> list[Example]:
    """Return all examples of `part`; raise CorpusError when its file is missing or damaged."""
    return [example for batch in iterate_part(directory, part) for example in batch]


def iterate_part(directory: Path, part: PartName, rows: int = 8192) -> Iterator[list[Example]]:
    """Yield the examples of `part` in order, at most `rows` at a time; raise like read_part."""
    path = directory / f"{part}.parquet"
    if not path.is_file():
        raise CorpusError(f"there is no {path}; wanted one of {', '.join(PARTS)} of a prepared corpus")
    try:
        with pq.ParquetFile(path, page_checksum_verification=True) as file:
            for batch in file.iter_batches(batch_size=rows):
                columns = (batch.column(name).to_pylist() for name in _SCHEMA.names)
                yield [
                    Example(id, text, None if labels is None else tuple(labels))
                    for id, text, labels in zip(*columns, strict=True)
                ]
    except (OSError, KeyError, ValueError, pa.ArrowException) as error:
        raise CorpusError(f"{path} is damaged ({error}); prepare the corpus again") from error
