"""Facts about reading rows from files of every type, whole and broken."""

import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from teacher.errors import CorpusError
from teacher.read import Columns, check_source, digest_sources, read_rows

BOTH = Columns("text", "label")
ROWS = [("my card, please", "payment"), ('she said "no"', "size"), ("zwei\nZeilen", "size")]


def write(folder: Path, name: str, content: str | bytes) -> str:
    """Write a file and return its name."""
    data = content if isinstance(content, bytes) else content.encode(errors="surrogatepass")
    (folder / name).write_bytes(data)
    return name


def cells(folder: Path, name: str, columns: Columns = BOTH) -> list[tuple[object, object]]:
    """Return the text and label cells of a source."""
    return [(row.text, row.label) for row in read_rows(name, folder, columns)]


def test_csv_tsv_jsonl_and_parquet_give_the_same_rows(tmp_path: Path) -> None:
    quoted = [('"' + text.replace('"', '""') + '"', label) for text, label in ROWS]
    write(tmp_path, "a.csv", "id,text,label\n" + "".join(f"1,{text},{label}\n" for text, label in quoted))
    write(tmp_path, "a.tsv", "label\ttext\n" + "".join(f"{label}\t{text}\n" for text, label in quoted))
    lines = [json.dumps({"text": text, "other": [1], "label": label}) for text, label in ROWS]
    write(tmp_path, "a.jsonl", "\n".join(lines))
    texts, labels = zip(*ROWS, strict=True)
    pq.write_table(pa.table({"label": pa.array(labels).dictionary_encode(), "text": texts}), tmp_path / "a.parquet")
    for name in ("a.csv", "a.tsv", "a.jsonl", "a.parquet"):
        assert cells(tmp_path, name) == ROWS, name


def test_a_txt_file_is_one_text_a_line(tmp_path: Path) -> None:
    write(tmp_path, "a.txt", "\ufeffone, two\r\n\n\u2028three\n")
    assert cells(tmp_path, "a.txt", Columns("text")) == [
        ("one, two", None),
        ("", None),
        ("\u2028three", None),
    ]


def test_a_byte_order_mark_is_no_part_of_the_first_column(tmp_path: Path) -> None:
    write(tmp_path, "a.csv", "\ufefftext,label\nhello,a\n")
    assert cells(tmp_path, "a.csv") == [("hello", "a")]


def test_rows_are_numbered_from_one_and_every_row_counts(tmp_path: Path) -> None:
    write(tmp_path, "a.csv", 'text,label\n"two\nlines",a\n\nlast,b\n')
    assert [(row.number, row.text) for row in read_rows("a.csv", tmp_path, BOTH)] == [
        (1, "two\nlines"),
        (2, ""),
        (3, "last"),
    ]


@pytest.mark.parametrize(("line", "is_faulty"), [("a,b,c", True), ("a", True), ("a,b,", False), ("a,b", False)])
def test_a_row_whose_cells_are_shifted_is_faulty(tmp_path: Path, line: str, is_faulty: bool) -> None:
    write(tmp_path, "a.csv", f"text,label\n{line}\nnext,row\n")
    first, second = read_rows("a.csv", tmp_path, BOTH)
    assert bool(first.fault) is is_faulty
    assert (second.text, second.label, second.fault) == ("next", "row", "")


@pytest.mark.parametrize("line", ["{cut", "[1]", '"text"', "[" * 100_000, '{"text": "a"} {}'])
def test_a_line_that_is_no_json_object_is_faulty_and_the_next_is_read(tmp_path: Path, line: str) -> None:
    write(tmp_path, "a.jsonl", line + '\n{"text": "ok", "label": null}\n')
    first, second = read_rows("a.jsonl", tmp_path, BOTH)
    assert first.fault == "not a JSON object"
    assert (second.text, second.label, second.fault) == ("ok", None, "")


def test_a_key_that_the_first_json_rows_lack_is_still_a_column(tmp_path: Path) -> None:
    write(tmp_path, "a.jsonl", '{"text": "a"}\n{"text": "b", "label": "x"}\n')
    assert cells(tmp_path, "a.jsonl") == [("a", None), ("b", "x")]


def test_bytes_that_are_not_utf8_cost_no_other_row(tmp_path: Path) -> None:
    write(tmp_path, "a.csv", b"text,label\ncaf\xe9,a\nfine,b\n")
    column = pa.array([b"caf\xe9", b"fine", None]).cast(pa.binary())
    text = pa.Array.from_buffers(pa.string(), 3, column.buffers())
    pq.write_table(pa.table({"text": text, "label": ["a", "b", "c"]}), tmp_path / "a.parquet")
    assert cells(tmp_path, "a.csv") == [("caf\udce9", "a"), ("fine", "b")]
    assert cells(tmp_path, "a.parquet") == [("caf\udce9", "a"), ("fine", "b"), (None, "c")]


def test_a_text_of_ten_megabytes_is_read(tmp_path: Path) -> None:
    write(tmp_path, "a.csv", "text,label\n" + "x" * 10_000_000 + ",a\nnext,b\n")
    assert [len(str(text)) for text, _ in cells(tmp_path, "a.csv")] == [10_000_000, 4]


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        (
            "a.csv",
            "txet,label\na,b\n",
            r"no column 'text'; its columns are: 'txet', 'label'; did you mean 'txet'",
        ),
        ("a.csv", "text;label\na;b\n", "separated by another character"),
        ("a.csv", "text,label,text\na,b,c\n", "2 columns 'text'; wanted one"),
        ("a.csv", "", "is empty"),
        ("a.csv", "text,label\n", "has no rows"),
        ("a.jsonl", '{"body": "a"}\n', "its columns are: 'body'"),
        ("a.csv", "text,label\n".encode("utf-16"), "holds UTF-16 text"),
        ("a.csv", b"PK\x03\x04rest", "Excel file"),
        ("a.parquet", "text,label\na,b\n", "cannot read .*is it a whole parquet file"),
        ("a.xlsx", "x", "not a type that can be read; wanted one of .csv, .tsv, .jsonl, .parquet, .txt"),
        ("a.txt", "hello\n", "holds no labels"),
        ("a.csv", 'text,label\n"' + "x" * 70_000_000, "field larger than field limit"),
    ],
    ids=lambda value: str(value)[:20],
)
def test_an_unusable_source_says_what_is_wrong(tmp_path: Path, name: str, content: str | bytes, message: str) -> None:
    write(tmp_path, name, content)
    with pytest.raises(CorpusError, match=message):
        check_source(name, tmp_path, BOTH)


def test_a_missing_file_is_told_with_what_its_folder_holds(tmp_path: Path) -> None:
    write(tmp_path, "train.csv", "text\na\n")
    with pytest.raises(CorpusError, match=r"its folder holds: train.csv; did you mean train.csv\?"):
        check_source("trian.csv", tmp_path, BOTH)
    with pytest.raises(CorpusError, match="there is no folder"):
        check_source("nowhere/train.csv", tmp_path, BOTH)


def test_a_parquet_column_of_numbers_is_no_text_column(tmp_path: Path) -> None:
    pq.write_table(pa.table({"text": [1, 2], "label": ["a", "b"]}), tmp_path / "a.parquet")
    with pytest.raises(CorpusError, match=r"column 'text' of .* holds int64; wanted text"):
        check_source("a.parquet", tmp_path, BOTH)


def test_a_hub_data_set_is_read_and_its_class_numbers_become_names(tmp_path: Path) -> None:
    import datasets

    features = datasets.Features(text=datasets.Value("string"), label=datasets.ClassLabel(names=["no", "yes"]))
    folder = tmp_path / "owned"
    rows = {"text": ["a", "b", "c"], "label": [1, 0, -1]}
    datasets.Dataset.from_dict(rows, features=features).to_parquet(folder / "train.parquet")
    assert cells(tmp_path, f"hub:{folder}#train") == [("a", "yes"), ("b", "no"), ("c", None)]
    with pytest.raises(CorpusError, match="no column 'body'; its columns are: 'text', 'label'"):
        check_source(f"hub:{folder}#train", tmp_path, Columns("body"))
    with pytest.raises(CorpusError, match="wanted hub:owner/name#split"):
        check_source(f"hub:{folder}#validation", tmp_path, BOTH)


def test_the_digest_changes_with_a_byte_a_name_or_a_role(tmp_path: Path) -> None:
    write(tmp_path, "a.csv", "text\na\n")
    write(tmp_path, "b.csv", "text\na\n")
    pairs = [("gold", "a.csv"), ("gold", "b.csv"), ("test", "a.csv")]
    digests = {digest_sources([pair], tmp_path) for pair in pairs}
    before = digest_sources(pairs, tmp_path)
    assert digest_sources(pairs, tmp_path) == before
    write(tmp_path, "a.csv", "text\nb\n")
    assert len(digests) == 3
    assert digest_sources(pairs, tmp_path) != before
