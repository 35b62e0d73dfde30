"""Facts about turning sources into a clean corpus."""

import csv
import hashlib
import json
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from teacher.corpus import (
    CorpusMeta,
    Example,
    content_id,
    iterate_part,
    normalise,
    prepare_corpus,
    read_meta,
    read_part,
    source_digest,
)
from teacher.errors import CorpusError
from teacher.pool import SeenIds
from teacher.spec import DataSpec, TaskSpec
from teacher.split import split_gold

Rows = list[tuple[str, str]]
CLEAN: Rows = [
    (f"{opening} {thing} number {number}", label)
    for label, thing in (("payment", "the invoice"), ("size", "the jacket"))
    for number, opening in enumerate(("hello", "sorry", "please", "well", "hey", "listen", "hi", "look", "hm", "so"))
]


def write(path: Path, rows: Rows, header: tuple[str, str] = ("text", "label")) -> str:
    """Write a csv file, broken characters included, and return its name."""
    with path.open("w", newline="", encoding="utf-8", errors="surrogatepass") as file:
        csv.writer(file).writerows([header, *rows])
    return path.name


def prepare(folder: Path, task: TaskSpec | None = None, seed: int = 0, **data: Any) -> CorpusMeta:
    """Prepare the corpus of `folder` into folder/corpus."""
    spec = DataSpec(**{"gold": "gold.csv"} | data)
    return prepare_corpus(spec, task or TaskSpec(), folder, folder / "corpus", seed)


def texts(folder: Path, part: Any) -> list[str]:
    """Return the texts of a prepared part."""
    return [example.text for example in read_part(folder / "corpus", part)]


def quarantined(folder: Path) -> list[dict[str, str]]:
    """Return the rows of the quarantine file."""
    with (folder / "corpus" / "quarantine.csv").open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


@pytest.fixture
def four_parts(tmp_path: Path) -> Path:
    """Return a folder with clean gold.csv, dev.csv, test.csv and pool.csv."""
    write(tmp_path / "gold.csv", CLEAN)
    write(tmp_path / "dev.csv", [("a dev text of payment", "payment"), ("a dev text of size", "size")])
    write(tmp_path / "test.csv", [("a test text of payment", "payment"), ("a test text of size", "size")])
    write(tmp_path / "pool.csv", [(f"pool text {number}", "") for number in range(30)])
    return tmp_path


FILES = {"dev": "dev.csv", "test": "test.csv", "unlabeled": ["pool.csv"]}


def test_texts_are_normalised_and_identified_by_content() -> None:
    assert normalise("  Cafe\u0301\u00a0 au\n\tlait ") == "Café au lait"
    assert content_id(" a\n b ") == content_id("a b") == hashlib.sha256(b"a b").hexdigest()[:16]


def test_every_part_is_written_and_read_back(write_corpus: Callable[[], Path]) -> None:
    folder = write_corpus()
    meta = prepare(folder, **FILES)
    assert meta == read_meta(folder / "corpus")
    assert meta.labels == ["delivery", "payment", "size"]
    assert meta.rows == {part: len(texts(folder, part)) for part in ("pool", "gold", "dev", "test")}
    assert meta.class_counts == Counter(row.labels[0] for row in read_part(folder / "corpus", "gold") if row.labels)
    assert all(row.labels is None for row in read_part(folder / "corpus", "pool"))


def test_the_pool_holds_unlabelled_texts_in_file_order_and_then_the_rest_of_gold(four_parts: Path) -> None:
    write(four_parts / "pool.csv", [("zebra", ""), CLEAN[3], ("apple", ""), ("zebra ", "")])
    meta = prepare(four_parts, **FILES)
    rest = [text for text, _ in CLEAN if text != CLEAN[3][0]]
    assert texts(four_parts, "pool") == ["zebra", CLEAN[3][0], "apple", *rest]
    assert (meta.unlabeled, meta.rows["pool"], meta.dropped) == (3, 22, {"pool": {"duplicate": 1}})


def test_a_part_can_be_read_in_batches(four_parts: Path) -> None:
    prepare(four_parts, **FILES)
    batches = list(iterate_part(four_parts / "corpus", "pool", rows=16))
    assert [len(batch) for batch in batches] == [16, 16, 16, 2]
    assert [row for batch in batches for row in batch] == read_part(four_parts / "corpus", "pool")


def test_test_wins_over_dev_and_both_over_gold_and_pool(four_parts: Path) -> None:
    long = "could you tell me when the parcel I ordered on Monday is going to be here"
    write(four_parts / "test.csv", [("Shared one", "size"), (long, "payment")])
    write(four_parts / "dev.csv", [("shared one!", "size"), ("Shared two", "size"), ("own text", "payment")])
    write(four_parts / "gold.csv", [*CLEAN, ("SHARED one", "size"), ("shared-two", "size")])
    write(four_parts / "pool.csv", [("shared ONE.", ""), (long.replace("Monday", "Sunday"), ""), ("free", "")])
    meta = prepare(four_parts, **FILES, near_duplicates="drop")
    assert meta.dropped == {
        "dev": {"same text in test": 1},
        "gold": {"same text in test": 1, "same text in dev": 1},
        "pool": {"same text in test": 1, "near duplicate of test": 1},
    }
    assert texts(four_parts, "pool")[:2] == ["free", CLEAN[0][0]]
    near = next(leak for leak in meta.leaks if leak.reason == "near duplicate of test")
    assert (near.part, near.held_text) == ("pool", long)


def test_a_near_duplicate_is_flagged_and_stays_unless_it_is_to_be_dropped(four_parts: Path) -> None:
    long = "could you tell me when the parcel I ordered on Monday is going to be here"
    write(four_parts / "test.csv", [("a test text", "size"), (long, "payment")])
    near = long.replace("Monday", "Sunday")
    write(four_parts / "pool.csv", [(near, ""), ("free", "")])
    meta = prepare(four_parts, **FILES)
    assert (meta.dropped, meta.flagged) == ({}, {"pool": {"near duplicate of test": 1}})
    assert near in texts(four_parts, "pool")
    assert [leak.held_text for leak in meta.leaks] == [long]


def test_all_rows_of_a_text_with_two_answers_are_quarantined(four_parts: Path) -> None:
    write(four_parts / "gold.csv", [*CLEAN, ("both ways", "size"), ("both  ways", "payment"), CLEAN[0]])
    meta = prepare(four_parts, **FILES)
    assert meta.quarantined == {"conflicting labels": 2}
    assert meta.dropped["gold"] == {"duplicate": 1}
    assert "both ways" not in texts(four_parts, "gold")
    assert {(row["row"], row["detail"]) for row in quarantined(four_parts)} == {
        ("21", "payment; size"),
        ("22", "payment; size"),
    }


DIRTY = [
    ("lone \ud800 surrogate", "size", "lone surrogate"),
    ("a\0b", "size", "NUL character"),
    ("", "size", "empty text"),
    (" \t\u200b\u00a0", "size", "blank text"),
    ("x" * 10_000_000, "size", "text too long"),
    ("no label", "", "no label"),
    ("a typo", "paymnet", "unknown label"),
    ("a stranger", "colour", "unknown label"),
    ("another case", "Size", "label differs by case or space"),
    ("another space", "size ", "label differs by case or space"),
    ("a number", "3", "label is a number"),
]
ODD = [
    "a right-to-left \u200f mark",
    "a zero\u200bwidth space",
    '{"nested": ["json"]}',
    "=HYPERLINK(1)",
    "\ufeffa mark in the middle",
]


def test_every_dirty_row_is_quarantined_for_its_reason_and_no_clean_one_is_lost(four_parts: Path) -> None:
    dirty: Rows = [(text, label) for text, label, _ in DIRTY]
    write(four_parts / "gold.csv", [*dirty, *CLEAN, *((text, "size") for text in ODD)])
    with (four_parts / "gold.csv").open("ab") as file:
        file.write(b"caf\xe9,size\na,b,c,size\n")
    meta = prepare(four_parts, TaskSpec(labels=["payment", "size"]), **FILES)
    assert meta.quarantined == Counter([*(reason for *_, reason in DIRTY), "not UTF-8", "malformed row"])
    assert texts(four_parts, "gold") == [*(text for text, _ in CLEAN), *ODD]
    assert sorted(int(row["row"]) for row in quarantined(four_parts)) == [*range(1, 12), 37, 38]


def test_json_cells_of_other_types_are_quarantined(four_parts: Path) -> None:
    rows: list[Any] = [
        {"text": {"nested": 1}, "label": "size"},
        {"text": 5, "label": "size"},
        {"text": "a", "label": None},
        {"text": "b", "label": 1},
        {"text": "c", "label": True},
        {"text": "d", "label": ["size", "payment"]},
        {"text": "\ud800", "label": "size"},
        {"label": "size"},
        [],
        {"text": "fine", "label": ["size"]},
        *({"text": text, "label": label} for text, label in CLEAN),
    ]
    (four_parts / "gold.jsonl").write_text("\n".join(map(json.dumps, rows)))
    meta = prepare(four_parts, gold="gold.jsonl", **FILES)
    assert meta.quarantined == {
        "text is not a string": 2,
        "label is not a string": 2,
        "no label": 1,
        "label is a number": 1,
        "lone surrogate": 1,
        "empty text": 1,
        "malformed row": 1,
    }
    assert meta.rows["gold"] == len(CLEAN) + 1


def test_quarantine_suggests_the_label_that_was_meant(four_parts: Path) -> None:
    write(four_parts / "gold.csv", [*CLEAN, ("one", "paymnet"), ("two", " SIZE")])
    prepare(four_parts, TaskSpec(labels=["payment", "size"]), **FILES)
    assert {row["text"]: row["detail"] for row in quarantined(four_parts)} == {
        "one": "found 'paymnet'; did you mean 'payment'?",
        "two": "found ' SIZE'; did you mean 'size'?",
    }


def test_without_listed_labels_the_most_frequent_spelling_is_the_label(four_parts: Path) -> None:
    write(four_parts / "gold.csv", [*CLEAN, ("one", "Payment")])
    meta = prepare(four_parts, **FILES)
    assert (meta.labels, meta.quarantined) == (["payment", "size"], {"label differs by case or space": 1})


def test_labels_keep_the_order_of_the_task(four_parts: Path) -> None:
    meta = prepare(four_parts, TaskSpec(labels={"size": "it does not fit", "payment": ""}), **FILES)
    assert list(meta.class_counts) == meta.labels == ["size", "payment"]


@pytest.mark.parametrize("start", ["=1+1", "+1", "-1", "@cmd", "\t=1"])
def test_no_quarantined_cell_starts_a_formula(four_parts: Path, start: str) -> None:
    write(four_parts / "gold.csv", [*CLEAN, (f"{start} x", start)])
    prepare(four_parts, TaskSpec(labels=["payment", "size"]), **FILES)
    (row,) = quarantined(four_parts)
    assert row["text"].startswith("'" + start.strip()[0])


def test_several_labels_are_split_and_put_in_order(four_parts: Path) -> None:
    rows = [
        ("one", "size|payment"),
        ("two", "payment"),
        ("two", "payment|payment"),
        ("three", "size|"),
        ("four", ""),
    ]
    write(four_parts / "gold.csv", rows)
    meta = prepare(four_parts, TaskSpec(kind="multi_label"), **FILES)
    assert [(row.text, row.labels) for row in read_part(four_parts / "corpus", "gold")] == [
        ("one", ("payment", "size")),
        ("two", ("payment",)),
        ("three", ("size",)),
    ]
    assert (meta.quarantined, meta.class_counts) == ({"no label": 1}, {"payment": 2, "size": 2})


def test_an_empty_list_says_that_no_label_applies(four_parts: Path) -> None:
    rows = [{"text": "none", "label": []}, *({"text": text, "label": [label]} for text, label in CLEAN)]
    (four_parts / "gold.jsonl").write_text("\n".join(map(json.dumps, rows)))
    prepare(four_parts, TaskSpec(kind="multi_label"), gold="gold.jsonl", **FILES)
    assert read_part(four_parts / "corpus", "gold")[0].labels == ()


def test_missing_dev_and_test_are_split_from_gold_by_seed(tmp_path: Path) -> None:
    write(tmp_path / "gold.csv", CLEAN)
    meta = prepare(tmp_path, dev_share=0.2, test_share=0.3)
    first = {part: texts(tmp_path, part) for part in ("gold", "dev", "test")}
    assert meta.rows == {"pool": 10, "gold": 10, "dev": 4, "test": 6}
    assert meta.class_counts == {"payment": 5, "size": 5}
    assert sorted(text for part in first.values() for text in part) == sorted(text for text, _ in CLEAN)
    assert prepare(tmp_path, dev_share=0.2, test_share=0.3).digest == meta.digest
    assert prepare(tmp_path, dev_share=0.2, test_share=0.3, seed=1).digest != meta.digest


def test_texts_that_repeat_one_another_stay_on_one_side_of_a_split() -> None:
    pairs = [(f"text {number} of {label}", label) for label in ("a", "b") for number in range(20)]
    gold = [Example(f"{text}{mark}", f"{text}{mark}", (label,)) for text, label in pairs for mark in ("", "!")]
    parts = split_gold(gold, {"dev": 0.25, "test": 0.25}, 0.9, seed=0)
    sides = {part: {row.text.rstrip("!") for row in rows} for part, rows in parts.items()}
    assert {part: len(rows) for part, rows in parts.items()} == {"gold": 40, "dev": 20, "test": 20}
    assert not sides["gold"] & sides["dev"] | sides["gold"] & sides["test"] | sides["dev"] & sides["test"]


def test_every_label_stays_in_gold_however_rare() -> None:
    labels = [("a",)] * 40 + [("a", "b")] * 3 + [("b", "c")] * 2 + [("d",)]
    gold = [Example(str(row), str(row), names) for row, names in enumerate(labels)]
    for seed in range(20):
        parts = split_gold(gold, {"dev": 0.4, "test": 0.4}, 0.9, seed)
        assert {name for row in parts["gold"] for name in row.labels or ()} == set("abcd")


@pytest.mark.parametrize(
    ("rows", "task", "data", "message"),
    [
        ([("a", "size"), ("b", "size")], {}, FILES, "one class only"),
        (CLEAN, {"labels": ["payment", "size", "colour"]}, FILES, "1 of 3 labels have no gold row: 'colour'"),
        (
            [("a", "1"), ("b", "2")],
            {"labels": ["payment", "size"]},
            FILES,
            r"no usable .* 2 x label is a number",
        ),
        (CLEAN, {}, FILES | {"label": "lable"}, "no column 'lable'; .* did you mean 'label'"),
        (CLEAN, {}, FILES | {"unlabeled": ["pool.csv", "more.csv"]}, "there is no file .*more.csv"),
        (CLEAN, {}, FILES | {"root": "nowhere"}, "there is no folder"),
        ([("a", "size"), ("b", "payment")], {}, {}, "dev has no row; add gold rows"),
        (CLEAN, {}, {"dev_share": 0.5, "test_share": 0.5}, "add up to 1; wanted less than 1"),
    ],
)
def test_unusable_input_is_told_before_anything_is_written(
    four_parts: Path, rows: Rows, task: dict[str, Any], data: dict[str, Any], message: str
) -> None:
    write(four_parts / "gold.csv", rows)
    with pytest.raises(CorpusError, match=message):
        prepare(four_parts, TaskSpec(**task), **data)
    assert not (four_parts / "corpus").exists()


def test_progress_adds_up_to_the_rows_read(four_parts: Path) -> None:
    reported: list[int] = []
    data = DataSpec(gold="gold.csv", **FILES)
    prepare_corpus(data, TaskSpec(), four_parts, four_parts / "corpus", 0, reported.append)
    assert sum(reported) == len(CLEAN) + 2 + 2 + 30


def test_a_flipped_bit_or_a_missing_file_is_noticed(four_parts: Path) -> None:
    prepare(four_parts, **FILES)
    path = four_parts / "corpus" / "gold.parquet"
    content = bytearray(path.read_bytes())
    content[100] ^= 1
    path.write_bytes(content)
    with pytest.raises(CorpusError, match=r"gold.parquet is damaged .* prepare the corpus again"):
        read_part(four_parts / "corpus", "gold")
    path.unlink()
    with pytest.raises(CorpusError, match="there is no"):
        read_part(four_parts / "corpus", "gold")
    (four_parts / "corpus" / "meta.json").write_text("{")
    with pytest.raises(CorpusError, match=r"meta.json is damaged"):
        read_meta(four_parts / "corpus")
    (four_parts / "corpus" / "meta.json").unlink()
    with pytest.raises(CorpusError, match="is unfinished"):
        read_meta(four_parts / "corpus")


def test_the_source_digest_follows_the_files(four_parts: Path) -> None:
    data = DataSpec(gold="gold.csv", **FILES)
    before = source_digest(data, four_parts)
    assert source_digest(data, four_parts) == before
    write(four_parts / "pool.csv", [("other", "")])
    assert source_digest(data, four_parts) != before


def test_seen_ids_tell_new_from_known_across_and_inside_batches() -> None:
    ids = [content_id(str(number)) for number in range(1000)]
    seen = SeenIds()
    assert seen.add([ids[0], ids[1], ids[0]]) == [True, True, False]
    assert all(seen.add(ids[start : start + 7]) == [start > 1] * 7 for start in range(2, 996, 7))
    assert seen.add(ids) == [False] * 996 + [True] * 4
    assert seen.add(["f" * 16, "0" * 16]) == [True, True]
