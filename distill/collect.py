"""Turn what servers captured into a parquet pool that a run reads as `data.unlabeled`.

Knows the lines that `export/capture.py` writes. Collecting again adds what is new and nothing twice; captured files
are left where they are, because a server may still be writing.
"""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from distill.errors import InputError
from teacher.example import content_id
from teacher.files import write_atomically

_SUFFIX = ".captured.jsonl"
_SCHEMA = pa.schema(
    [
        ("text", pa.string()),
        ("answer", pa.string()),
        ("answered_by", pa.string()),
        ("certainty", pa.float64()),
        ("model", pa.string()),
        ("captured", pa.float64()),
    ]
)


@dataclass(frozen=True, slots=True)
class Collected:
    """How many texts the pool holds, how many of them are new, and how many lines could not be read."""

    rows: int
    added: int
    damaged: int


def collect(folder: Path, pool: Path) -> Collected:
    """Add the captured texts in `folder` to the parquet file `pool`, each text once, the latest answer to it.

    Raises InputError when there is nothing to collect or `pool` is something else.
    """
    if pool.suffix != ".parquet":
        raise InputError(f"found {pool.name}, wanted the name of a .parquet file")
    files = sorted(folder.glob(f"*{_SUFFIX}"))
    if not files:
        raise InputError(f"found no *{_SUFFIX} in {folder}, wanted the folder that a server captures into")
    held = {content_id(row["text"]): row for row in _held(pool)}
    before, damaged = len(held), 0
    for row in _captured(files):
        if row is None:
            damaged += 1
        else:
            held[content_id(row["text"])] = row
    table = pa.Table.from_pylist([*held.values()], schema=_SCHEMA)
    pool.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(pool, lambda path: pq.write_table(table, path))
    return Collected(len(held), len(held) - before, damaged)


def _held(pool: Path) -> list[dict[str, Any]]:
    if not pool.exists():
        return []
    try:
        rows: list[dict[str, Any]] = pq.read_table(pool, schema=_SCHEMA).to_pylist()
    except (pa.ArrowInvalid, OSError) as error:
        raise InputError(f"{pool}: cannot be read as a pool ({error}); name another file") from error
    return rows


def _captured(files: list[Path]) -> Iterator[dict[str, Any] | None]:
    """Yield each row, None for a line that is damaged, as the last one of a killed server is."""
    for file in files:
        for line in file.read_bytes().splitlines():
            try:
                row = json.loads(line)
                content_id(row["text"])
                # Built alone, so that one wrong value does not spoil the whole table.
                yield pa.Table.from_pylist([row], schema=_SCHEMA).to_pylist()[0]
            except (ValueError, TypeError, KeyError, AttributeError, pa.ArrowException):
                yield None
