"""What was submitted to a batch API and is not harvested yet, in the SQLite file of the answers.

A batch is written down before the provider is told to begin, and closed in the transaction that keeps its answers.
"""

import sqlite3
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from teacher.paid import PaidAnswers

_SCHEMA = (
    "CREATE TABLE IF NOT EXISTS batches (file TEXT PRIMARY KEY, id TEXT, address TEXT NOT NULL, model TEXT NOT NULL, "
    "reserved_usd REAL NOT NULL, is_harvested INTEGER NOT NULL) WITHOUT ROWID",
    "CREATE TABLE IF NOT EXISTS batch_rows (file TEXT, key TEXT, PRIMARY KEY (file, key)) WITHOUT ROWID",
)
_OPEN = "SELECT file, id, reserved_usd FROM batches WHERE address = ? AND model = ? AND NOT is_harvested ORDER BY file"


@dataclass(slots=True)
class Submitted:
    """A batch that waits for its harvest; `id` is None when nobody saw the provider accept its file."""

    file: str
    id: str | None
    reserved_usd: float


class BatchBook:
    """The batches of one model at one address."""

    def __init__(self, paid: PaidAnswers, address: str, model: str) -> None:
        """Make the tables where they are not there yet."""
        self._paid, self._address, self._model = paid, address, model
        self._paid.write(_make_tables).result()

    def open_batches(self) -> list[Submitted]:
        """Return what waits for its harvest, and reserve what it may cost: it is owed already."""
        found = [Submitted(*row) for row in self._paid.read(_OPEN, (self._address, self._model))]
        for each in found:
            self._paid.reserve(each.reserved_usd, is_owed=True)
        return found

    def keys(self, submitted: Submitted) -> set[str]:
        """Return the cache keys that a batch asks for."""
        rows = self._paid.read("SELECT key FROM batch_rows WHERE file = ?", (submitted.file,))
        return {key for (key,) in rows}

    def add(self, file: str, keys: Iterable[str], reserved_usd: float) -> Submitted:
        """Write down an uploaded file of requests for which `reserved_usd` is reserved."""
        batch = (file, None, self._address, self._model, reserved_usd, 0)
        rows = [(file, key) for key in keys]

        def work(connection: sqlite3.Connection) -> None:
            connection.execute("INSERT INTO batches VALUES (?, ?, ?, ?, ?, ?)", batch)
            connection.executemany("INSERT INTO batch_rows VALUES (?, ?)", rows)

        self._paid.write(work).result()
        return Submitted(file, None, reserved_usd)

    def begun(self, submitted: Submitted, name: str) -> None:
        """Write down under which id the provider works on a batch."""
        submitted.id = name
        values = (name, submitted.file)
        self._paid.write(lambda c: c.execute("UPDATE batches SET id = ? WHERE file = ?", values)).result()

    def close(self, submitted: Submitted, keep: Callable[[sqlite3.Connection], None] = lambda connection: None) -> None:
        """Mark a batch as harvested and `keep` its answers in one transaction, once among all processes."""

        def work(connection: sqlite3.Connection) -> None:
            mark = "UPDATE batches SET is_harvested = 1 WHERE file = ? AND NOT is_harvested"
            if connection.execute(mark, (submitted.file,)).rowcount:
                keep(connection)

        self._paid.write(work, submitted.reserved_usd).result()


def _make_tables(connection: sqlite3.Connection) -> None:
    for statement in _SCHEMA:
        connection.execute(statement)
