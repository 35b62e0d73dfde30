"""Soft labels and their store: what a teacher said about N texts, on disk, resumable and checkable.

A store is a directory of parquet shards, each written under a temporary name, synced and renamed, and a
`meta.json` that comes last. Rows are keyed by content id, never by position. Shards name the teacher that
answered, so an interrupted store goes on only with the same teacher and the same labels.
"""

import hashlib
import json
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, ValidationError

from teacher.errors import StoreError
from teacher.files import file_digest, write_atomically
from teacher.task import Task, TaskKind

DENSE_LABELS = 512  # above this many labels a row keeps its top entries and the remaining mass
_ROW_SUM_TOLERANCE = 1e-3


@dataclass(frozen=True, slots=True)
class Rejected:
    """A text without an answer: why, what the teacher said instead, and what that cost."""

    id: str
    reason: str  # short and countable, such as "outside the label set"
    raw: str = ""
    cost_usd: float | None = None


@dataclass(frozen=True, slots=True)
class SoftLabels:
    """Answers at temperature 1: `probs` float32 (N, C); `outside` float32 (N,), mass on no label at all.

    What only some teachers know of a row is None where they do not: its price, the ids of the gold rows and passages
    it was answered from, how far the members of a committee disagree (nats), and the unit-length sentence embeddings
    (N, width) that a pooled encoder answered from. `rejected` are texts beside the N.
    """

    ids: tuple[str, ...]
    probs: NDArray[np.float32]
    outside: NDArray[np.float32]
    method: str
    rejected: tuple[Rejected, ...] = ()
    cost_usd: NDArray[np.float64] | None = None
    sources: tuple[tuple[str, ...], ...] | None = None
    disagreement: NDArray[np.float32] | None = None
    embeddings: NDArray[np.float16] | None = None

    @property
    def spent_usd(self) -> list[float]:
        """Return what each row cost whose price is known, the rejected ones included."""
        answered = [] if self.cost_usd is None else self.cost_usd.tolist()
        return [*answered, *(one.cost_usd for one in self.rejected if one.cost_usd is not None)]

    def __post_init__(self) -> None:
        """Refuse arrays that do not fit together or are not probabilities."""
        if len(self.ids) != len(self.probs) or len(self.ids) != len(self.outside):
            raise StoreError(
                f"found {len(self.ids)} ids, {len(self.probs)} rows of probabilities and "
                f"{len(self.outside)} of outside mass; the three must be equally long"
            )
        if not (np.isfinite(self.probs).all() and (self.probs >= 0).all() and (self.probs <= 1 + 1e-4).all()):
            raise StoreError("the teacher answered with numbers that are no probabilities (NaN, or not in 0..1)")


class StoreMeta(BaseModel):
    """What a finished store says of itself; `parts` maps each shard to its SHA-256, `digest` covers the rest."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    labels: list[str]
    kind: TaskKind
    teacher: str
    corpus: str
    rows: int
    parts: dict[str, str]
    rejected: dict[str, int] = {}
    cost_usd: float = 0.0
    digest: str | None = None  # None in a store that was finished before there were digests

    def sealed(self) -> "StoreMeta":
        """Return this with the digest of everything else."""
        content = self.model_dump_json(exclude={"digest"})
        return self.model_copy(update={"digest": hashlib.sha256(content.encode()).hexdigest()})

    def spelled(self) -> str:
        """Return the one spelling of this in meta.json, so that any changed byte shows."""
        return self.model_dump_json(indent=2, exclude_none=True)


class LabelStore:
    """Append shards of soft labels to `directory`, or go on where an interrupted run stopped."""

    def __init__(self, directory: Path, task: Task, teacher: str) -> None:
        """Adopt the whole shards of the same teacher and labels; remove anything else."""
        self.directory = directory
        self.task = task
        self.teacher = teacher
        directory.mkdir(parents=True, exist_ok=True)
        self.rows = 0  # answered ones
        self._rejected: Counter[str] = Counter()
        self._cost_usd = 0.0
        self._parts: list[str] = []
        self._adopted = np.empty(0, np.uint64)  # sorted
        self._adopt()

    def has(self, ids: Sequence[str]) -> NDArray[np.bool_]:
        """Say for each id whether an interrupted run had already stored its answer, or that it was rejected."""
        return _position(self._adopted, _as_keys(ids))[1]

    def append(self, answers: SoftLabels) -> None:
        """Write one shard durably; raise StoreError when a single-label row does not sum to 1."""
        if answers.probs.shape[1:] != (len(self.task.labels),):
            raise StoreError(f"found answers of shape {answers.probs.shape}, wanted {len(self.task.labels)} columns")
        if self.task.kind is TaskKind.SINGLE_LABEL:
            worst = float(np.abs(answers.probs.sum(axis=1) - 1).max(initial=0))
            if worst > _ROW_SUM_TOLERANCE:
                raise StoreError(f"a row of probabilities is off 1 by {worst:.4f}; normalise before storing")
        table = _to_table(answers).replace_schema_metadata(self._identity())
        name = f"part-{len(self._parts):05d}.parquet"
        # The checksums show a resumed run that a stored answer has changed; meta.json does not exist yet.
        write_atomically(self.directory / name, lambda path: pq.write_table(table, path, write_page_checksum=True))
        self._parts.append(name)
        self._count(table)

    def finish(self, corpus: str) -> StoreMeta:
        """Write meta.json last and return it; after this the store may be read."""
        meta = StoreMeta(
            labels=list(self.task.labels),
            kind=self.task.kind,
            teacher=self.teacher,
            corpus=corpus,
            rows=self.rows,
            parts={name: file_digest(self.directory / name) for name in self._parts},
            rejected=dict(sorted(self._rejected.items())),
            cost_usd=self._cost_usd,
        ).sealed()
        text = meta.spelled()
        write_atomically(self.directory / "meta.json", lambda path: path.write_text(text, encoding="utf-8"))
        return meta

    def _identity(self) -> dict[str, str]:
        return {"potstill.teacher": self.teacher, "potstill.labels": json.dumps(self.task.labels)}

    def _shard_schema(self) -> pa.Schema:
        """Return the schema that parquet gives back for a shard of this store."""
        one = SoftLabels(("0",), np.zeros((1, len(self.task.labels)), np.float32), np.zeros(1, np.float32), "")
        buffer = pa.BufferOutputStream()
        pq.write_table(_to_table(one).replace_schema_metadata(self._identity()), buffer)
        return pq.read_schema(pa.BufferReader(buffer.getvalue()))

    def _adopt(self) -> None:
        wanted = self._shard_schema()
        usable, adopted = True, [self._adopted]
        for position, path in enumerate(sorted(self.directory.glob("part-*.parquet"))):
            in_order = usable and path.name == f"part-{position:05d}.parquet"
            table = _stored_table(path, wanted) if in_order else None
            usable = table is not None
            if table is None:
                path.unlink()
                continue
            self._parts.append(path.name)
            adopted.append(_as_keys(table["id"].to_pylist()))
            self._count(table)
        self._adopted = np.sort(np.concatenate(adopted))

    def _count(self, table: pa.Table) -> None:
        self._rejected.update(reason for reason in table["rejected"].to_pylist() if reason is not None)
        self._cost_usd += sum(cost for cost in table["cost_usd"].to_pylist() if cost is not None)
        self.rows += table["rejected"].null_count


@dataclass(frozen=True, slots=True)
class StoredLabels:
    """A finished store in memory: answers looked up by content id."""

    meta: StoreMeta
    _keys: NDArray[np.uint64]  # sorted; without the rejected
    _probs: NDArray[np.float32]  # in the order of _keys

    def answered(self, ids: Sequence[str]) -> NDArray[np.bool_]:
        """Say for each id whether it has a soft label."""
        return _position(self._keys, _as_keys(ids))[1]

    def probs(self, ids: Sequence[str]) -> NDArray[np.float32]:
        """Return the probabilities (N, C) of `ids`; raise StoreError when one was never labelled."""
        position, found = _position(self._keys, _as_keys(ids))
        if not found.all():
            raise StoreError(
                f"{int((~found).sum())} of {len(ids)} texts have no soft label (first: {ids[int(found.argmin())]}); "
                "label the corpus again: distill label CONFIG"
            )
        return self._probs[position]


def read_store(directory: Path) -> StoredLabels:
    """Read and verify a finished store; raise StoreError naming the shard that is missing or damaged."""
    meta = _meta_in(directory)
    for name, digest in meta.parts.items():
        path = directory / name
        if not path.is_file() or file_digest(path) != digest:
            state = "damaged" if path.is_file() else "missing"
            raise StoreError(f"{path} is {state}; delete the folder and label again")
    keys = [np.empty(0, np.uint64)]
    probs = [np.empty((0, len(meta.labels)), np.float32)]
    for table in _shards(directory, meta, "top", "probs", "rest"):
        keys.append(_as_keys(table["id"].to_pylist()))
        probs.append(_from_table(table, len(meta.labels)))
    all_keys = np.concatenate(keys)
    order = np.argsort(all_keys, kind="stable")
    return StoredLabels(meta, all_keys[order], np.concatenate(probs)[order])


def read_embeddings(directories: Iterable[Path], ids: Sequence[str]) -> tuple[NDArray[np.float16], NDArray[np.bool_]]:
    """Return the sentence embeddings (N, width) of `ids` in stores that `read_store` has verified, and which are there.

    The others are zeros; the width is 0 where no teacher gave any.
    """
    keys, stored = [np.empty(0, np.uint64)], []
    for directory in directories:
        for table in _shards(directory, _meta_in(directory), "embedding"):
            if len(table) and "embedding" in table.column_names:
                keys.append(_as_keys(table["id"].to_pylist()))
                stored.append(_rows_of(table["embedding"]))
    if not stored:
        return np.zeros((len(ids), 0), np.float16), np.zeros(len(ids), bool)
    all_keys = np.concatenate(keys)
    order = np.argsort(all_keys, kind="stable")
    position, found = _position(all_keys[order], _as_keys(ids))
    embeddings = np.concatenate(stored)[order[position]]
    embeddings[~found] = 0
    return embeddings, found


def _shards(directory: Path, meta: StoreMeta, *columns: str) -> Iterator[pa.Table]:
    """Yield the ids of the answered rows of each shard, and those of `columns` that it has."""
    for name in meta.parts:
        present = pq.read_schema(directory / name).names
        kept = [column for column in ("id", "rejected", *columns) if column in present]
        table = pq.read_table(directory / name, columns=kept)
        yield table.filter(table["rejected"].is_null())


def _to_table(answers: SoftLabels) -> pa.Table:
    """Return the answered rows and, behind them, the rejected ones, whose probabilities are zeros."""
    answered, refused = len(answers.ids), answers.rejected
    labels = answers.probs.shape[1]
    probs = np.concatenate([answers.probs, np.zeros((len(refused), labels), np.float32)]).astype(np.float32)
    nothing = [None] * len(refused)
    unknown = [None] * answered
    columns = {
        "id": pa.array([*answers.ids, *(one.id for one in refused)], pa.string()),
        "outside": pa.array(np.concatenate([answers.outside, np.ones(len(refused), np.float32)]), pa.float32()),
    }
    columns |= _probability_columns(probs)
    columns |= {
        "method": pa.array([answers.method] * len(probs), pa.string()).dictionary_encode(),
        "cost_usd": pa.array([*_listed(answers.cost_usd, unknown), *(one.cost_usd for one in refused)], pa.float64()),
        "sources": pa.array([*(answers.sources or unknown), *nothing], pa.list_(pa.string())),
        "disagreement": pa.array([*_listed(answers.disagreement, unknown), *nothing], pa.float32()),
        "rejected": pa.array([*unknown, *(one.reason for one in refused)], pa.string()),
        "raw": pa.array([*unknown, *(one.raw for one in refused)], pa.string()),
    }
    if answers.embeddings is not None:
        none = np.zeros((len(refused), answers.embeddings.shape[1]), np.float16)
        columns["embedding"] = _row_column(np.concatenate([answers.embeddings, none]))
    return pa.table(columns)


def _listed(values: NDArray[np.floating] | None, unknown: list[None]) -> list[float] | list[None]:
    return unknown if values is None else values.tolist()


def _probability_columns(probs: NDArray[np.float32]) -> dict[str, pa.Array]:
    labels = probs.shape[1]
    if labels <= DENSE_LABELS:
        return {"probs": _row_column(probs)}
    top = np.argpartition(-probs, DENSE_LABELS, axis=1)[:, :DENSE_LABELS]
    kept = np.take_along_axis(probs, top, axis=1)
    return {
        "top": _row_column(top.astype(np.int32)),
        "probs": _row_column(kept),
        "rest": pa.array((probs.sum(axis=1) - kept.sum(axis=1)).astype(np.float32)),
    }


def _row_column(rows: NDArray[Any]) -> pa.Array:
    """Return a matrix as one list a row."""
    return pa.FixedSizeListArray.from_arrays(pa.array(np.ascontiguousarray(rows).ravel()), rows.shape[1])


def _rows_of(column: pa.ChunkedArray) -> NDArray[Any]:
    """Return the matrix that `_row_column` wrote."""
    flat: NDArray[Any] = column.combine_chunks().flatten().to_numpy(zero_copy_only=False)
    return flat.reshape(-1, column.type.list_size)


def _from_table(table: pa.Table, labels: int) -> NDArray[np.float32]:
    kept = _rows_of(table["probs"])
    if "top" not in table.column_names:
        return np.asarray(kept, np.float32)
    top = _rows_of(table["top"])
    rest = np.clip(table["rest"].to_numpy(), 0, None) / (labels - DENSE_LABELS)
    probs = np.repeat(rest[:, None], labels, axis=1).astype(np.float32)
    np.put_along_axis(probs, top, kept, axis=1)
    return probs


def _position(keys: NDArray[np.uint64], wanted: NDArray[np.uint64]) -> tuple[NDArray[np.intp], NDArray[np.bool_]]:
    """Return where each wanted key stands in the sorted `keys`, and whether it is there at all."""
    position = np.searchsorted(keys, wanted)
    inside = position < len(keys)
    position = np.where(inside, position, 0)
    found = inside & (keys[position] == wanted) if len(keys) else inside
    return position, found


def _as_keys(ids: Sequence[str]) -> NDArray[np.uint64]:
    return np.fromiter((int(content_id, 16) for content_id in ids), np.uint64, len(ids))


def _meta_in(directory: Path) -> StoreMeta:
    try:
        text = (directory / "meta.json").read_bytes()
    except FileNotFoundError as error:
        raise StoreError(f"{directory}: no meta.json, so labelling never finished; run distill label") from error
    meta = _read_meta(text)
    if meta is None:
        raise StoreError(f"{directory}/meta.json is damaged; delete the folder and label again")
    return meta


def _read_meta(text: bytes) -> StoreMeta | None:
    """Return what meta.json says; None when it is not as it was written."""
    try:
        meta = StoreMeta.model_validate_json(text)
    except ValidationError:
        return None
    is_whole = text == meta.spelled().encode() and meta.digest in (None, meta.sealed().digest)
    return meta if is_whole else None


def _stored_table(path: Path, wanted: pa.Schema) -> pa.Table | None:
    """Return a shard; None when it is damaged or its schema, metadata included, is not the `wanted`."""
    try:
        table = pq.read_table(path, page_checksum_verification=True)
        _as_keys(table["id"].to_pylist())
    except (pa.ArrowException, OSError, ValueError, TypeError):
        return None
    schema = table.schema
    if (place := schema.get_field_index("embedding")) >= 0:  # which not every teacher of every version gives
        schema = schema.remove(place)
    return table if schema.equals(wanted, check_metadata=True) else None
