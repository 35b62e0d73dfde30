"""The table of recorded answers: filled row by row, kept as parquet, looked up by text.

A text may have answers of several models; each is one vote. Knows nothing of how far an answer is trusted.
"""

import hashlib
from array import array
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from teacher.example import content_id, leak_key
from teacher.recorded_cells import Said
from teacher.soft_labels import Rejected

NOT_RECORDED = "no recorded answer"
ANSWERS, TEXTS, SPELLINGS = "answers.parquet", "texts.parquet", "spellings.parquet"
Integers = NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Votes:
    """What was recorded for N texts: `shares` (answered, C), mass `outside` (answered,), and who has no answer."""

    answered: NDArray[np.bool_]  # (N,)
    shares: NDArray[np.float32]
    outside: NDArray[np.float32]
    rejected: tuple[Rejected, ...]


@dataclass(slots=True)
class TableWriter:
    """Collects answers; memory holds numbers, and the words only of what is no answer."""

    _keys: "array[int]" = field(default_factory=lambda: array("Q"))
    _loose: "array[int]" = field(default_factory=lambda: array("Q"))
    _voters: "array[int]" = field(default_factory=lambda: array("q"))
    _votes: "array[int]" = field(default_factory=lambda: array("q"))
    _starts: "array[int]" = field(default_factory=lambda: array("q", [0]))
    _columns: "array[int]" = field(default_factory=lambda: array("i"))
    _shares: "array[float]" = field(default_factory=lambda: array("f"))
    _weights: "array[float]" = field(default_factory=lambda: array("f"))
    _outside: "array[float]" = field(default_factory=lambda: array("f"))
    _reasons: list[str] = field(default_factory=list)
    _raws: list[str] = field(default_factory=list)
    _known: dict[Said, int] = field(default_factory=dict)

    @property
    def rows(self) -> int:
        """The number of votes so far."""
        return len(self._keys)

    def add(self, id: str, loose: str | None, voter: int, said: Said, *, repeats: bool) -> None:
        """Take one vote on the text `id`; `repeats`: the same is said of many texts, so it is kept once."""
        self._keys.append(int(id, 16))
        if loose is not None:
            self._loose.append(_loose_key(loose))
        self._voters.append(voter)
        vote = self._known.get(said) if repeats else None
        if vote is None:
            vote = self._keep(said)
            if repeats:
                self._known[said] = vote
        self._votes.append(vote)

    def save(self, directory: Path) -> None:
        """Write the three parquet files of a table into `directory`."""
        starts = pa.array(np.asarray(self._starts, np.int64))
        lists = [
            pa.LargeListArray.from_arrays(starts, pa.array(np.asarray(values, kind)))
            for values, kind in ((self._columns, np.int32), (self._shares, np.float32))
        ]
        columns = {
            "columns": lists[0],
            "shares": lists[1],
            "weight": pa.array(np.asarray(self._weights, np.float32)),
            "outside": pa.array(np.asarray(self._outside, np.float32)),
            "reason": pa.array(self._reasons, pa.string()),
            "raw": pa.array(self._raws, pa.string()),
        }
        pq.write_table(pa.table(columns), directory / ANSWERS)
        for name, keys in ((TEXTS, self._keys), (SPELLINGS, self._loose)):
            self._write_index(directory / name, np.asarray(keys, np.uint64))

    def _keep(self, said: Said) -> int:
        self._columns.extend(said.columns)
        self._shares.extend(said.shares)
        self._starts.append(len(self._columns))
        self._weights.append(said.weight)
        self._outside.append(said.outside)
        self._reasons.append(said.reason)
        # Half a character, as a cut answer leaves it, cannot be stored.
        self._raws.append(said.raw.encode(errors="backslashreplace").decode())
        return len(self._weights) - 1

    def _write_index(self, path: Path, keys: NDArray[np.uint64]) -> None:
        voters, votes = (np.asarray(values, np.int64)[: len(keys)] for values in (self._voters, self._votes))
        order = np.lexsort((votes, voters, keys))
        keys, voters, votes = keys[order], voters[order], votes[order]
        # What one model says twice of one text is one vote.
        repeats = (keys[1:] == keys[:-1]) & (voters[1:] == voters[:-1]) & (votes[1:] == votes[:-1])
        fresh = np.concatenate([np.ones(min(len(keys), 1), bool), ~repeats])
        pq.write_table(pa.table({"key": keys[fresh], "answer": votes[fresh]}), path)


class RecordedTable:
    """A saved table in memory."""

    def __init__(self, directory: Path, labels: int) -> None:
        """Read what a `TableWriter` saved for a task of so many labels."""
        answers = pq.read_table(directory / ANSWERS)
        lists = answers["columns"].combine_chunks(), answers["shares"].combine_chunks()
        self._labels = labels
        self._starts = lists[0].offsets.to_numpy().astype(np.int64)
        self._columns, self._shares = (each.flatten().to_numpy() for each in lists)
        self._weights, self._outside = (answers[name].to_numpy() for name in ("weight", "outside"))
        self._reasons, self._raws = answers["reason"], answers["raw"]
        self._texts, self._spellings = (_Index.read(directory / name) for name in (TEXTS, SPELLINGS))

    @property
    def texts(self) -> int:
        """The number of texts with a record."""
        return len(self._texts.keys)

    def votes(self, texts: Sequence[str]) -> Votes:
        """Return what was recorded for each text, the mean where several models answered.

        A text that was recorded in another spelling alone (case, spaces, punctuation) is found if `spellings` has it.
        """
        ids = tuple(content_id(text) for text in texts)
        owners, answers = self._find(texts, ids)
        weight, outside = np.zeros((2, len(texts)), np.float64)
        np.add.at(weight, owners, self._weights[answers])
        np.add.at(outside, owners, self._outside[answers])
        shares = np.zeros((len(texts), self._labels), np.float64)
        entries, places = _expand(self._starts[answers], self._starts[answers + 1])
        np.add.at(
            shares,
            (owners[entries], self._columns[places]),
            self._shares[places] * self._weights[answers][entries],
        )
        answered = weight > 0
        rejected = self._rejected(np.flatnonzero(~answered), ids, owners, answers)
        return Votes(
            answered,
            (shares[answered] / weight[answered, None]).astype(np.float32),
            (outside[answered] / (weight + outside)[answered]).astype(np.float32),
            rejected,
        )

    def _find(self, texts: Sequence[str], ids: Sequence[str]) -> tuple[Integers, Integers]:
        """Return pairs of the row of a text and of an answer to it, by text."""
        keys = np.fromiter((int(id, 16) for id in ids), np.uint64, len(ids))
        first, last = self._texts.find(keys)
        owners, places = _expand(first, last)
        answers = self._texts.answers[places]
        missing = np.flatnonzero(first == last)
        if len(self._spellings.keys) and len(missing):
            loose = np.fromiter((_loose_key(leak_key(texts[row])) for row in missing.tolist()), np.uint64, len(missing))
            more, places = _expand(*self._spellings.find(loose))
            owners = np.concatenate([owners, missing[more]])
            answers = np.concatenate([answers, self._spellings.answers[places]])
        return owners, answers

    def _rejected(
        self, rows: Integers, ids: Sequence[str], owners: Integers, answers: Integers
    ) -> tuple[Rejected, ...]:
        given: dict[int, list[int]] = {int(row): [] for row in rows}
        for owner, answer in zip(owners.tolist(), answers.tolist(), strict=True):
            if owner in given:
                given[owner].append(answer)
        return tuple(self._reject(ids[row], said) for row, said in given.items())

    def _reject(self, id: str, answers: Sequence[int]) -> Rejected:
        if not answers:
            return Rejected(id, NOT_RECORDED)
        reasons = dict.fromkeys(self._reasons[answer].as_py() for answer in answers)
        return Rejected(id, next(iter(reasons)), " / ".join(self._raws[answer].as_py() for answer in answers))


@dataclass(frozen=True, slots=True)
class _Index:
    keys: NDArray[np.uint64]  # sorted, each once
    starts: Integers  # (len(keys) + 1,): where the answers of a key begin
    answers: Integers

    @classmethod
    def read(cls, path: Path) -> "_Index":
        table = pq.read_table(path)
        rows = table["key"].to_numpy()
        keys, first = np.unique(rows, return_index=True)
        return cls(keys, np.append(first, len(rows)).astype(np.int64), table["answer"].to_numpy())

    def find(self, keys: NDArray[np.uint64]) -> tuple[Integers, Integers]:
        """Return where the answers of each key begin and end; both are 0 for an unknown one."""
        if not len(self.keys):
            nothing = np.zeros(len(keys), np.int64)
            return nothing, nothing
        place = np.minimum(np.searchsorted(self.keys, keys), len(self.keys) - 1)
        found = self.keys[place] == keys
        return np.where(found, self.starts[place], 0), np.where(found, self.starts[place + 1], 0)


def _expand(first: Integers, last: Integers) -> tuple[Integers, Integers]:
    """Return, for ranges first[i] to last[i], the i and the member of every member of every range."""
    counts = last - first
    owners = np.repeat(np.arange(len(counts)), counts)
    inside = np.arange(counts.sum()) - np.repeat(np.cumsum(counts) - counts, counts)
    return owners, np.repeat(first, counts) + inside


def _loose_key(spelling: str) -> int:
    return int(hashlib.sha256(spelling.encode()).hexdigest()[:16], 16)
