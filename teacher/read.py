"""Read rows out of csv, tsv, jsonl, parquet and txt files and hub data sets, one after another.

Checks what makes a whole source unusable (no such file, no such column, no rows); what is wrong with a single
row is told with the row and judged elsewhere. Bytes that are not UTF-8 arrive as lone surrogates.
"""

import csv
import difflib
import hashlib
import itertools
import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from teacher.errors import CorpusError

HUB = "hub:"
# A longer cell is an unclosed quote that swallows the rest of the file.
_LONGEST_CELL = 64 * 2**20
_FOREIGN = {
    b"PAR1": "a parquet file",
    b"\x1f\x8b": "a gzip file",
    b"PK\x03\x04": "a zip or Excel file",
    b"\xff\xfe": "UTF-16 text",
    b"\xfe\xff": "UTF-16 text",
}


@dataclass(frozen=True, slots=True)
class Row:
    """A raw row: its number in the source (the first is 1), cells as found, `fault` when it has no cells."""

    number: int
    text: object
    label: object = None
    fault: str = ""


@dataclass(frozen=True, slots=True)
class Columns:
    """The names of the text column and, where labels are wanted, of the label column."""

    text: str
    label: str | None = None
    advice: str = "Set data.text and data.label"  # where a person names them

    def names(self) -> list[str]:
        """Return the columns a source must have."""
        return [self.text] if self.label is None else [self.text, self.label]


def read_rows(source: str, root: Path, columns: Columns) -> Iterator[Row]:
    """Yield the rows of `source`, a file under `root` or `hub:owner/name#split`, in order, never all at once.

    Raises CorpusError at the first row when the source is missing, of another type or lacks a column.
    """
    if source.startswith(HUB):
        yield from _hub_rows(source, columns)
        return
    path = find_file(source, root)
    with _readable(path):
        yield from READERS[path.suffix.lower()](path, columns)


def check_source(source: str, root: Path, columns: Columns) -> None:
    """Read the first row only; raise CorpusError when there is none or it cannot be read."""
    if next(read_rows(source, root, columns), None) is None:
        raise CorpusError(f"{source} has no rows; wanted at least one row of {columns.names()}")


def find_file(source: str, root: Path) -> Path:
    """Return the path of the file `source` under `root`; raise CorpusError when it cannot be read."""
    path = root / source
    if path.suffix.lower() not in READERS:
        raise CorpusError(f"{source} is not a type that can be read; wanted one of {', '.join(READERS)}")
    if not path.is_file():
        raise CorpusError(f"there is no file {path}; {_folder_content(path)}")
    with _readable(path), path.open("rb") as file:
        start = file.read(4)
    found = next((kind for magic, kind in _FOREIGN.items() if start.startswith(magic)), None)
    if not start:
        raise CorpusError(f"{path} is empty; wanted a header and rows")
    if found and path.suffix.lower() != ".parquet":
        raise CorpusError(f"{path} holds {found}; wanted plain UTF-8 {path.suffix[1:]}: convert or rename it")
    return path


def digest_sources(sources: Iterable[tuple[str, str]], root: Path) -> str:
    """Return the SHA-256 over the role, name and bytes of each (role, source) pair.

    Of a hub data set only the name is known. Raises CorpusError when a file is missing.
    """
    digest = hashlib.sha256()
    for role, source in sources:
        digest.update(f"{role} {len(source)} {source}\n".encode())
        if not source.startswith(HUB):
            path = find_file(source, root)
            with _readable(path), path.open("rb") as file:
                digest.update(hashlib.file_digest(file, "sha256").digest())
    return digest.hexdigest()


@contextmanager
def _readable(path: Path) -> Iterator[None]:
    try:
        yield
    except (OSError, UnicodeError, csv.Error, pa.ArrowException) as error:
        raise CorpusError(f"cannot read {path}: {error}; is it a whole {path.suffix[1:]} file?") from error


def _folder_content(path: Path) -> str:
    if not path.parent.is_dir():
        return f"there is no folder {path.parent} either; paths are relative to data.root"
    names = sorted(entry.name for entry in path.parent.iterdir())
    close = difflib.get_close_matches(path.name, names, 1)
    shown = ", ".join(names[:12]) + (f" and {len(names) - 12} more" if len(names) > 12 else "")
    return f"its folder holds: {shown or 'nothing'}" + (f"; did you mean {close[0]}?" if close else "")


def _require(name: object, columns: Columns, found: list[str]) -> None:
    """Raise CorpusError unless each wanted column is among `found`, once."""
    for wanted in columns.names():
        if found.count(wanted) == 1:
            continue
        if wanted in found:
            raise CorpusError(f"{name} has {found.count(wanted)} columns {wanted!r}; wanted one: rename the others")
        close = difflib.get_close_matches(wanted, found, 1)
        hint = f"did you mean {close[0]!r}? " if close else ""
        if len(found) == 1 and any(mark in found[0] for mark in ";\t,"):
            hint = "is it separated by another character? Use commas in .csv and tabs in .tsv. "
        raise CorpusError(
            f"{name} has no column {wanted!r}; its columns are: {', '.join(map(repr, found)) or 'none'}; "
            f"{hint}{columns.advice}"
        )


def _row(number: int, cells: Sequence[object]) -> Row:
    """Return the row of a text cell and, where labels are wanted, a label cell."""
    return Row(number, cells[0], cells[1] if len(cells) > 1 else None)


def _delimited_rows(delimiter: str) -> Callable[[Path, Columns], Iterator[Row]]:
    def rows(path: Path, columns: Columns) -> Iterator[Row]:
        csv.field_size_limit(_LONGEST_CELL)
        with path.open(encoding="utf-8-sig", errors="surrogateescape", newline="") as file:
            reader = csv.reader(file, delimiter=delimiter)
            header = next(reader, [])
            _require(path, columns, header)
            places = [header.index(name) for name in columns.names()]
            for number, cells in enumerate(reader, start=1):
                yield _delimited_row(number, cells, places, len(header))

    return rows


def _delimited_row(number: int, cells: list[str], places: list[int], width: int) -> Row:
    if not cells:
        return Row(number, "")
    # One cell too many is an unquoted delimiter: every later cell stands in the wrong column.
    if len(cells) <= max(places) or any(cells[width:]):
        fault = f"found {len(cells)} cells, wanted {width}"
        return Row(number, cells[places[0]] if len(cells) > places[0] else "", fault=fault)
    return _row(number, [cells[place] for place in places])


def _jsonl_rows(path: Path, columns: Columns) -> Iterator[Row]:
    with path.open(encoding="utf-8-sig", errors="surrogateescape", newline="\n") as file:
        objects = (_parse_object(line) for line in file)
        # A key may be absent where its value is null, so one row does not tell which there are.
        head = list(itertools.islice(objects, 64))
        found = list(dict.fromkeys(key for row in head if isinstance(row, dict) for key in row))
        if head:
            _require(path, columns, found)
        for number, row in enumerate(itertools.chain(head, objects), start=1):
            if isinstance(row, dict):
                yield _row(number, [row.get(name) for name in columns.names()])
            elif row.strip():
                yield Row(number, row, fault="not a JSON object")
            else:
                yield Row(number, "")


def _parse_object(line: str) -> dict[str, Any] | str:
    """Return the object that `line` holds, or the line itself when it holds none."""
    try:
        value = json.loads(line)
    except (ValueError, RecursionError):
        return line
    return value if isinstance(value, dict) else line


def _parquet_rows(path: Path, columns: Columns) -> Iterator[Row]:
    with pq.ParquetFile(path) as file:
        _require(path, columns, file.schema_arrow.names)
        kind = file.schema_arrow.field(columns.text).type
        if pa.types.is_dictionary(kind):
            kind = kind.value_type
        if not (pa.types.is_string(kind) or pa.types.is_large_string(kind)):
            raise CorpusError(f"column {columns.text!r} of {path} holds {kind}; wanted text: set data.text")
        number = itertools.count(1)
        for batch in file.iter_batches(batch_size=4096, columns=columns.names()):
            # As bytes: one text that is not UTF-8 must not cost the whole batch.
            texts = batch.column(columns.text).cast(pa.large_string()).cast(pa.large_binary()).to_pylist()
            labels = batch.column(columns.label).to_pylist() if columns.label else [None] * len(texts)
            for text, label in zip(texts, labels, strict=True):
                yield Row(next(number), text and text.decode(errors="surrogateescape"), label)


def _text_rows(path: Path, columns: Columns) -> Iterator[Row]:
    if columns.label is not None:
        raise CorpusError(f"{path} is a txt file and holds no labels; wanted a file with a column {columns.label!r}")
    with path.open(encoding="utf-8-sig", errors="surrogateescape", newline="\n") as file:
        for number, line in enumerate(file, start=1):
            yield Row(number, line.rstrip("\r\n"))


def _hub_rows(source: str, columns: Columns) -> Iterator[Row]:
    # Optional and slow to import: only a hub source pays for it.
    try:
        import datasets
    except ImportError as error:
        raise CorpusError(f"{source} needs the datasets package: pip install 'potstill[train]'") from error
    name, _, split = source.removeprefix(HUB).partition("#")
    try:
        rows = datasets.load_dataset(name, split=split or "train", streaming=True)
        features = rows.features or dict.fromkeys(next(iter(rows), {}))
        _require(source, columns, list(features))
        names = _class_names(features[columns.label]) if columns.label else None
        for number, row in enumerate(rows, start=1):
            label = row[columns.label] if columns.label else None
            yield Row(number, row[columns.text], _name_classes(label, names))
    except CorpusError:
        raise
    # The hub client raises errors of half a dozen packages.
    except Exception as error:
        raise CorpusError(f"cannot read {source}: {error}; wanted hub:owner/name#split") from error


def _class_names(feature: Any) -> list[str] | None:
    """Return the label names a hub feature carries, directly or for each item of a list."""
    return getattr(feature, "names", None) or getattr(getattr(feature, "feature", None), "names", None)


def _name_classes(label: object, names: list[str] | None) -> object:
    if names is None or label is None:
        return label
    if isinstance(label, list):
        return [_name_classes(item, names) for item in label]
    # Data sets without labels carry -1.
    return names[label] if isinstance(label, int) and 0 <= label < len(names) else None


READERS: dict[str, Callable[[Path, Columns], Iterator[Row]]] = {
    ".csv": _delimited_rows(","),
    ".tsv": _delimited_rows("\t"),
    ".jsonl": _jsonl_rows,
    ".parquet": _parquet_rows,
    ".txt": _text_rows,
}
