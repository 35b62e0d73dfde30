"""Which texts the paid answers are about, whom they were asked of and how, in the SQLite file of the answers.

Written down before the calls, so that what a killed process paid is known by its text too. Asks nothing.
"""

import json
import sqlite3
from collections.abc import Iterable
from dataclasses import asdict, dataclass

from teacher.paid import PaidAnswers

_SCHEMA = (
    "CREATE TABLE IF NOT EXISTS asked (key TEXT PRIMARY KEY, text TEXT NOT NULL, origin TEXT NOT NULL) WITHOUT ROWID"
)
_PAID = "SELECT text, origin, SUM(cost_usd) FROM asked JOIN answers USING (key) GROUP BY text, origin"


@dataclass(frozen=True, slots=True)
class Origin:
    """Whom an answer was asked of and how; `prompt` and `decoding` are digests."""

    endpoint: str
    model: str
    prompt: str
    decoding: str

    def differences(self, other: "Origin") -> list[str]:
        """Return the names of what is not the same."""
        ours, theirs = asdict(self), asdict(other)
        return [name for name in ours if ours[name] != theirs[name]]


def note_asked(paid: PaidAnswers, origin: Origin, asked: Iterable[tuple[str, str]]) -> None:
    """Write down (cache key, content id of the text) of the calls that are about to be made."""
    rows = [(key, text, json.dumps(asdict(origin), sort_keys=True)) for key, text in asked]

    def work(connection: sqlite3.Connection) -> None:
        connection.execute(_SCHEMA)
        connection.executemany("INSERT OR IGNORE INTO asked VALUES (?, ?, ?)", rows)

    paid.write(work).result()


def paid_texts(paid: PaidAnswers) -> dict[str, dict[Origin, float]]:
    """Return what was paid for answers to each text, by its content id, and for each origin."""
    found: dict[str, dict[Origin, float]] = {}
    paid.write(lambda connection: connection.execute(_SCHEMA)).result()  # nobody may have asked yet
    for text, origin, usd in paid.read(_PAID):
        found.setdefault(text, {})[Origin(**json.loads(origin))] = usd
    return found
