"""Facts about the pool that captured texts become."""

import json
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from distill.collect import Collected, collect
from distill.errors import InputError
from teacher.read import Columns, read_rows


def write(folder: Path, name: str, *lines: Any) -> None:
    folder.mkdir(exist_ok=True)
    text = "".join(line if isinstance(line, str) else json.dumps(line) + "\n" for line in lines)
    (folder / f"{name}.captured.jsonl").write_text(text, encoding="utf-8")


def row(text: str, **changes: Any) -> dict[str, Any]:
    whole = {"text": text, "answer": "size", "answered_by": "student", "certainty": 0.6, "model": "m", "captured": 1.0}
    return whole | changes


def test_each_text_is_collected_once_with_the_latest_answer(tmp_path: Path) -> None:
    write(tmp_path / "kept", "1", row("the hat"), row("the  hat", answer="payment"), row("the box"))
    write(tmp_path / "kept", "2", row("the bank"))
    pool = tmp_path / "pools" / "pool.parquet"
    assert collect(tmp_path / "kept", pool) == Collected(rows=3, added=3, damaged=0)
    assert {one["text"]: one["answer"] for one in pq.read_table(pool).to_pylist()} == {
        "the  hat": "payment",
        "the box": "size",
        "the bank": "size",
    }


def test_collecting_again_adds_only_what_is_new(tmp_path: Path) -> None:
    write(tmp_path / "kept", "1", row("the hat"))
    pool = tmp_path / "pool.parquet"
    collect(tmp_path / "kept", pool)
    (tmp_path / "kept" / "1.captured.jsonl").unlink()
    write(tmp_path / "kept", "2", row("the hat"), row("the box"))
    assert collect(tmp_path / "kept", pool) == Collected(rows=2, added=1, damaged=0)


def test_a_damaged_line_is_counted_and_spoils_no_other(tmp_path: Path) -> None:
    damaged = [
        '{"text": "cut o',
        "\n",
        row("")["text"],
        "[]\n",
        {"text": 5},
        {"answer": "size"},
        row("x", certainty="y"),
    ]
    write(tmp_path / "kept", "1", row("the hat"), *damaged, row("the box"))
    found = collect(tmp_path / "kept", tmp_path / "pool.parquet")
    assert (found.rows, found.damaged) == (2, 5)


def test_a_corpus_reads_the_pool_as_texts_without_labels(tmp_path: Path) -> None:
    write(tmp_path / "kept", "1", row("the hat"), row("the box"))
    collect(tmp_path / "kept", tmp_path / "pool.parquet")
    assert [one.text for one in read_rows("pool.parquet", tmp_path, Columns("text"))] == ["the hat", "the box"]


def test_nothing_to_collect_and_a_foreign_pool_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"found no \*.captured.jsonl"):
        collect(tmp_path, tmp_path / "pool.parquet")
    write(tmp_path / "kept", "1", row("the hat"))
    with pytest.raises(InputError, match=r"wanted the name of a .parquet file"):
        collect(tmp_path / "kept", tmp_path / "pool.csv")
    (tmp_path / "pool.parquet").write_text("no parquet")
    with pytest.raises(InputError, match="cannot be read as a pool"):
        collect(tmp_path / "kept", tmp_path / "pool.parquet")
    assert (tmp_path / "pool.parquet").read_text() == "no parquet"
