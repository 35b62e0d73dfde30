"""Read the rows of a text table one after the other: csv, tsv, jsonl, txt and parquet.

For commands that look at a file or answer its rows; what a corpus may hold is decided in `teacher`.
"""

import csv
import json
import sys
from collections.abc import Callable, Iterator
from itertools import chain, islice
from pathlib import Path
from typing import Any, TextIO

from distill.errors import InputError

Row = dict[str, Any]

_HEAD_ROWS = 64  # a JSON row may lack a key, so one row does not tell which columns there are


def read_rows(path: Path) -> Iterator[Row]:
    """Yield the rows of `path` as {column: value}; a .txt line is {"text": line}. Memory stays bounded.

    Bytes that are not UTF-8 become lone surrogates. Raises InputError when the file is missing, empty, of
    another kind or malformed.
    """
    reader = _READERS.get(path.suffix.lower())
    if reader is None:
        raise InputError(f"{path}: found the file type {path.suffix!r}, wanted one of {', '.join(_READERS)}")
    if not path.is_file():
        there = sorted(file.name for file in path.parent.glob("*.*")) if path.parent.is_dir() else []
        raise InputError(f"{path}: found no such file; {path.parent} holds {', '.join(there[:12]) or 'nothing'}")
    rows = reader(path)
    first = next(rows, None)
    if first is None:
        raise InputError(f"{path}: found no rows, wanted at least one")
    return chain([first], rows)


def read_column(path: Path, column: str) -> Iterator[Any]:
    """Yield the values of one column; None where a row lacks it. Raises InputError, naming the columns."""
    rows = read_rows(path)
    head = list(islice(rows, _HEAD_ROWS))
    columns = list(dict.fromkeys(name for row in head for name in row))
    if column not in columns:
        raise InputError(f"{path}: found no column {column!r}; the columns are: {', '.join(columns)}")
    return (row.get(column) for row in chain(head, rows))


def _text_reader(parse: Callable[[TextIO], Iterator[Row]]) -> Callable[[Path], Iterator[Row]]:
    def read(path: Path) -> Iterator[Row]:
        try:
            with path.open(encoding="utf-8-sig", errors="surrogateescape", newline="") as file:
                yield from parse(file)
        except (ValueError, csv.Error) as error:
            raise InputError(f"{path}: {error}") from None

    return read


def _parse_delimited(delimiter: str) -> Callable[[TextIO], Iterator[Row]]:
    def parse(file: TextIO) -> Iterator[Row]:
        csv.field_size_limit(sys.maxsize)
        for row in csv.DictReader(file, delimiter=delimiter):
            yield {name: value for name, value in row.items() if name is not None}

    return parse


def _parse_json_lines(file: TextIO) -> Iterator[Row]:
    for number, line in enumerate(file, 1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except ValueError as error:
            raise ValueError(f"line {number}: found text that is not JSON ({error})") from None
        if not isinstance(row, dict):
            raise ValueError(f"line {number}: found {line.strip()[:40]}, wanted a JSON object a line")
        yield row


def _parse_lines(file: TextIO) -> Iterator[Row]:
    return ({"text": line.rstrip("\r\n")} for line in file)


def _read_parquet(path: Path) -> Iterator[Row]:
    try:
        import pyarrow as pa
        from pyarrow import parquet
    except ImportError:
        raise InputError(f"{path}: a parquet file needs pyarrow; pip install 'potstill[train]'") from None
    try:
        with parquet.ParquetFile(path) as file:
            for batch in file.iter_batches(8192):
                yield from batch.to_pylist()
    except pa.ArrowInvalid as error:
        raise InputError(f"{path}: found no valid parquet file ({str(error).splitlines()[0]})") from None


_READERS: dict[str, Callable[[Path], Iterator[Row]]] = {
    ".csv": _text_reader(_parse_delimited(",")),
    ".tsv": _text_reader(_parse_delimited("\t")),
    ".jsonl": _text_reader(_parse_json_lines),
    ".txt": _text_reader(_parse_lines),
    ".parquet": _read_parquet,
}
SUFFIXES = tuple(_READERS)
