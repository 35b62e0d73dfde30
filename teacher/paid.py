"""The answers somebody paid for and the money they cost, in one SQLite file that a killed process leaves whole.

One thread writes: it commits what many callers hand it as one transaction and tells them when that is on disk.
Several processes may have the file open. Knows neither what an answer means nor where it is from.
"""

import errno
import hashlib
import json
import os
import queue
import sqlite3
import threading
import uuid
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

from teacher.errors import BudgetError, StoreError

_APPLICATION, _FORMAT = 0x506F7473, 1  # "Pots"; both stand in the header of the file
_SCHEMA = f"""
PRAGMA journal_mode = WAL;
PRAGMA application_id = {_APPLICATION};
PRAGMA user_version = {_FORMAT};
CREATE TABLE answers (
    key TEXT PRIMARY KEY, model TEXT NOT NULL, cost_usd REAL NOT NULL, content TEXT NOT NULL, digest TEXT NOT NULL
) WITHOUT ROWID;
CREATE TABLE spending (
    model TEXT PRIMARY KEY, answers INTEGER NOT NULL, usd REAL NOT NULL, unanswered_usd REAL NOT NULL
) WITHOUT ROWID;
"""
_INSERT = "INSERT OR IGNORE INTO answers VALUES (?, ?, ?, ?, ?)"
_SPEND = """
INSERT INTO spending VALUES (?1, ?2, ?3, ?4) ON CONFLICT (model) DO UPDATE
SET answers = answers + ?2, usd = usd + ?3, unanswered_usd = unanswered_usd + ?4
"""
_BUSY_SECONDS = 60.0  # another process may be writing
_ROUNDING_USD = 1e-12  # what adding up many prices may be off


@dataclass(frozen=True, slots=True)
class Answer:
    """What was stored under a key, and what it cost when it was paid."""

    content: dict[str, Any]
    cost_usd: float


@dataclass(frozen=True, slots=True)
class Spending:
    """What a model has cost: `usd` in all, of which `unanswered_usd` bought nothing that could be used."""

    model: str
    answers: int
    usd: float
    unanswered_usd: float


@dataclass(frozen=True, slots=True)
class _Work:
    run: Callable[[sqlite3.Connection], Any]
    reserved_usd: float
    done: Future[Any]


class PaidAnswers:
    """A durable cache of answers and the budget of those still to be bought; every method may be called by any thread.

    Raises StoreError when `path` is damaged or something else, and OSError when the disk is full.
    """

    def __init__(self, path: Path, budget_usd: float | None = None) -> None:
        """Open the file, or create it; `budget_usd` bounds all that was and will be paid in it (None: unbounded)."""
        self.path = path
        self.budget_usd = budget_usd
        # By key, what got no answer in spite of every retry. In memory alone: a fault may have passed by the next run.
        self.given_up: dict[str, Any] = {}
        path.parent.mkdir(parents=True, exist_ok=True)
        if not path.exists():
            _create(path)
        self._reader = self._open()
        self._reading = threading.Lock()
        self._money = threading.Lock()
        self._reserved_usd = 0.0
        self._spent_usd = _total(self._reader)
        self._queue: queue.SimpleQueue[_Work | None] = queue.SimpleQueue()
        self._writer = threading.Thread(target=self._write, name="paid answers", daemon=True)
        self._writer.start()

    def __enter__(self) -> "PaidAnswers":
        """Return this."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close the file."""
        self.close()

    @property
    def spent_usd(self) -> float:
        """Return all that was ever paid, as of the last commit or opening."""
        return self._spent_usd

    @property
    def reserved_usd(self) -> float:
        """Return what the calls under way may cost."""
        return self._reserved_usd

    def find(self, key: str) -> Answer | None:
        """Return what is stored under `key`, None when nothing is; raise StoreError when it is damaged."""
        row = self.read("SELECT content, cost_usd, model, digest FROM answers WHERE key = ?", (key,))
        if not row:
            return None
        content, cost_usd, model, digest = row[0]
        if digest != _digest(key, model, cost_usd, content):
            raise self._damaged(f"the answer {key[:16]} is not as it was written")
        return Answer(json.loads(content), cost_usd)

    def record(self, key: str, content: Mapping[str, Any], cost_usd: float) -> None:
        """Store an answer and its price; return when both are committed. The first answer to a key stays."""
        self.record_soon(key, content, cost_usd).result()

    def record_soon(
        self, key: str, content: Mapping[str, Any], cost_usd: float, *, model: str = "", reserved_usd: float = 0.0
    ) -> Future[None]:
        """Do what `record` does and release what was reserved; the future is done when it is committed."""
        return self.write(lambda connection: store(connection, key, model, content, cost_usd), reserved_usd)

    def reserve(self, cost_usd: float, *, is_owed: bool = False) -> None:
        """Set money apart for a call; raise BudgetError, before the call, when the budget might not cover it.

        What is owed already, for a call that an earlier process sent, is set apart in any case.
        """
        with self._money:
            wanted = self._spent_usd + self._reserved_usd + cost_usd
            if self.budget_usd is not None and wanted > self.budget_usd + _ROUNDING_USD and not is_owed:
                raise BudgetError(
                    f"spent ${self._spent_usd:.6f} of the budget of ${self.budget_usd:.6f}, and the next call may cost "
                    f"${cost_usd:.6f}; what is paid is kept: raise --budget-usd and run the same command again"
                )
            self._reserved_usd += cost_usd

    def settle(self, reserved_usd: float, actual_usd: float) -> None:
        """Release what was reserved for a call that gave no answer to keep, and book what it cost all the same."""
        self.settle_soon(reserved_usd, actual_usd).result()

    def settle_soon(self, reserved_usd: float, actual_usd: float, *, model: str = "") -> Future[None]:
        """Do what `settle` does; the future is done when it is committed."""
        if actual_usd == 0:
            self._release(reserved_usd)
            done: Future[None] = Future()
            done.set_result(None)
            return done
        return self.write(lambda connection: spend(connection, model, actual_usd), reserved_usd)

    def spending(self) -> tuple[Spending, ...]:
        """Return what each model has cost so far."""
        return tuple(Spending(*row) for row in self.read("SELECT * FROM spending ORDER BY model"))

    def check(self) -> None:
        """Read every answer; raise StoreError naming the first that is not as it was written."""
        for row in self.read("SELECT key, model, cost_usd, content, digest FROM answers"):
            if row[-1] != _digest(*row[:-1]):
                raise self._damaged(f"the answer {row[0][:16]} is not as it was written")

    def read(self, query: str, values: Sequence[Any] = ()) -> list[Any]:
        """Return the rows of a query, as they are committed."""
        try:
            with self._reading:
                return self._reader.execute(query, values).fetchall()
        except sqlite3.DatabaseError as error:
            raise self._explained(error) from error

    def write(self, work: Callable[[sqlite3.Connection], Any], reserved_usd: float = 0.0) -> Future[Any]:
        """Run `work` on the writing connection, whole or not at all; the future is done when that is committed."""
        done: Future[Any] = Future()
        self._queue.put(_Work(work, reserved_usd, done))
        return done

    def close(self) -> None:
        """Commit what is waiting and close the file."""
        self._queue.put(None)
        self._writer.join()
        with self._reading:
            self._reader.close()

    def _write(self) -> None:
        connection = self._open()
        is_open = True
        while is_open:
            group = [self._queue.get()]
            while not self._queue.empty():
                group.append(self._queue.get())
            is_open = None not in group
            if work := [each for each in group if each is not None]:
                self._commit(connection, work)
        connection.close()

    def _commit(self, connection: sqlite3.Connection, group: Sequence[_Work]) -> None:
        try:
            results, spent_usd = self._transact(connection, group)
        except Exception as error:
            if connection.in_transaction:
                connection.execute("ROLLBACK")
            if len(group) > 1:  # one bad piece of work must not take the others with it
                for each in group:
                    self._commit(connection, [each])
                return
            self._release(group[0].reserved_usd)
            group[0].done.set_exception(self._explained(error))
            return
        with self._money:
            self._spent_usd = spent_usd
        for each, result in zip(group, results, strict=True):
            self._release(each.reserved_usd)
            each.done.set_result(result)

    def _transact(self, connection: sqlite3.Connection, group: Sequence[_Work]) -> tuple[list[Any], float]:
        connection.execute("BEGIN IMMEDIATE")
        results = [each.run(connection) for each in group]
        spent_usd = _total(connection)
        connection.execute("COMMIT")
        return results, spent_usd

    def _release(self, reserved_usd: float) -> None:
        with self._money:
            self._reserved_usd = max(self._reserved_usd - reserved_usd, 0.0)

    def _open(self) -> sqlite3.Connection:
        try:
            connection = sqlite3.connect(
                self.path, timeout=_BUSY_SECONDS, isolation_level=None, check_same_thread=False
            )
            connection.execute("PRAGMA synchronous = FULL")
            application, version = (
                connection.execute(f"PRAGMA {name}").fetchone()[0] for name in ("application_id", "user_version")
            )
            problem = connection.execute("PRAGMA quick_check(1)").fetchone()[0]
        except sqlite3.DatabaseError as error:
            raise self._explained(error) from error
        if application != _APPLICATION:
            raise self._damaged("it is empty or no answer cache")
        if version != _FORMAT:
            raise StoreError(f"{self.path}: found format {version}, wanted {_FORMAT}; open it with its own version")
        if problem != "ok":
            raise self._damaged(problem)
        return connection

    def _explained(self, error: Exception) -> Exception:
        """Return `error` as one of ours where SQLite raised it."""
        code = getattr(error, "sqlite_errorcode", 0) & 0xFF
        if code == sqlite3.SQLITE_FULL:
            return OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(self.path))
        if code in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_READONLY, sqlite3.SQLITE_IOERR):
            return StoreError(
                f"{self.path} cannot be written ({error}); look at the disk and at who else uses the file"
            )
        return self._damaged(str(error)) if isinstance(error, sqlite3.DatabaseError) else error

    def _damaged(self, what: str) -> StoreError:
        text = " ".join(what.split())
        return StoreError(
            f"{self.path} is damaged ({text}); put a copy of it back, or move it away and pay for its answers again"
        )


def store(connection: sqlite3.Connection, key: str, model: str, content: Mapping[str, Any], cost_usd: float) -> None:
    """Put an answer and its price into the transaction at hand; the first answer to a key stays."""
    text, cost_usd = json.dumps(content, separators=(",", ":")), float(cost_usd)
    row = (key, model, cost_usd, text, _digest(key, model, cost_usd, text))
    is_new = connection.execute(_INSERT, row).rowcount
    connection.execute(_SPEND, (model, is_new, cost_usd, 0.0 if is_new else cost_usd))


def spend(connection: sqlite3.Connection, model: str, cost_usd: float) -> None:
    """Put into the transaction at hand what a call cost that gave no answer to keep."""
    connection.execute(_SPEND, (model, 0, cost_usd, cost_usd))


def answer_key(**parts: Any) -> str:
    """Return the SHA-256 of `parts` as canonical JSON: all that changes an answer, and nothing else."""
    text = json.dumps(parts, sort_keys=True, ensure_ascii=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()


def _create(path: Path) -> None:
    # Linked into place whole, so that an empty file is always a damaged one and two processes make one file.
    temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex}.partial")
    connection = sqlite3.connect(temporary, isolation_level=None)
    connection.executescript(_SCHEMA)
    connection.close()
    try:
        os.link(temporary, path)
    except FileExistsError:
        pass
    finally:
        temporary.unlink()


def _total(connection: sqlite3.Connection) -> float:
    return float(connection.execute("SELECT COALESCE(SUM(usd), 0) FROM spending").fetchone()[0])


def _digest(key: str, model: str, cost_usd: float, content: str) -> str:
    return hashlib.sha256(json.dumps([key, model, cost_usd, content]).encode()).hexdigest()[:32]
