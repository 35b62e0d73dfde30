"""`distill init`: what it sees in a file and the config it writes."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from distill.config import Config, load_config
from distill.errors import InputError
from distill.findings import look_at
from distill.starter import write_config


def write_lines(path: Path, *lines: str) -> Path:
    """Write `lines` to `path`."""
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


def started(data: Path) -> Config:
    """Return the config that init writes for `data`."""
    target = data.with_suffix(".yaml")
    write_config(data, target)
    return load_config(target).config


def test_the_written_config_is_valid_and_uses_the_files_beside_it(write_corpus: Callable[[], Path]) -> None:
    folder = write_corpus()
    config = started(folder / "gold.csv")
    assert config.data.gold == "gold.csv"
    assert (config.data.dev, config.data.test, config.data.unlabeled) == ("dev.csv", "test.csv", ["pool.csv"])


def test_what_was_found_is_said(write_corpus: Callable[[], Path]) -> None:
    folder = write_corpus()
    said = "\n".join(write_config(folder / "gold.csv", folder / "new" / "shop.yaml"))
    assert "30 rows; the texts are in the column 'text'" in said
    assert "3 labels in the column 'label'" in said
    assert "test.csv lies beside it" in said
    assert load_config(folder / "new" / "shop.yaml").config.data.gold == "../gold.csv"


def test_columns_of_unknown_names_are_found_by_what_they_hold(tmp_path: Path) -> None:
    rows = [f"{number},words about thing {number},{'ab'[number % 2]}" for number in range(8)]
    findings = look_at(write_lines(tmp_path / "data.csv", "nr,said,sort", *rows))
    assert (findings.text, findings.label) == ("said", "sort")


def test_a_file_without_labels_becomes_the_pool(tmp_path: Path) -> None:
    config = started(write_lines(tmp_path / "messages.txt", "one message", "another message"))
    assert (config.data.unlabeled, config.data.gold) == (["messages.txt"], "gold.csv")


def test_rows_without_a_label_join_the_pool(tmp_path: Path) -> None:
    config = started(write_lines(tmp_path / "mixed.csv", "text,label", "a b,x", "c d,y", "e f,", "g h,"))
    assert (config.data.unlabeled, config.data.gold) == (["mixed.csv"], "mixed.csv")


def test_cells_that_join_known_labels_make_a_multi_label_task(tmp_path: Path) -> None:
    data = write_lines(tmp_path / "data.csv", "text,label", "a b,x", "c d,y", "e f,x;y")
    config = started(data)
    assert (config.task.kind, config.data.separator) == ("multi_label", ";")


def test_a_comma_inside_a_label_is_no_separator(tmp_path: Path) -> None:
    rows = ['a b,"bed, bath"', 'c d,"bed, bath"', "e f,garden"]
    assert look_at(write_lines(tmp_path / "data.csv", "text,label", *rows)).separator is None


def test_a_handful_of_gold_asks_for_prototypes(tmp_path: Path) -> None:
    few = [json.dumps({"text": f"text {number}", "label": "ab"[number % 2]}) for number in range(6)]
    assert started(write_lines(tmp_path / "few.jsonl", *few)).teacher.kind == "prototypes"
    many = [json.dumps({"text": f"text {number}", "label": "ab"[number % 2]}) for number in range(40)]
    assert started(write_lines(tmp_path / "many.jsonl", *many)).teacher.kind == "encoder"


def test_an_existing_config_is_never_overwritten(tmp_path: Path) -> None:
    data = write_lines(tmp_path / "data.txt", "some text")
    target = write_lines(tmp_path / "data.yaml", "precious: true")
    with pytest.raises(InputError, match="choose another with --output"):
        write_config(data, target)
    assert target.read_text(encoding="utf-8") == "precious: true\n"


@pytest.mark.parametrize(
    ("name", "content", "reason"),
    [
        ("empty.csv", "", "found no rows"),
        ("data.xlsx", "x", "wanted one of .csv, .tsv, .jsonl, .txt, .parquet"),
        ("ids.csv", "a,b\n1,2\n", "found no column of texts; the columns are: a, b"),
        ("bad.jsonl", '{"text": "a"}\nnot json\n', "line 2: found text that is not JSON"),
    ],
)
def test_a_file_that_cannot_be_used_says_why(tmp_path: Path, name: str, content: str, reason: str) -> None:
    (tmp_path / name).write_text(content, encoding="utf-8")
    with pytest.raises(InputError, match=reason.replace(".", r"\.")):
        write_config(tmp_path / name, tmp_path / "new.yaml")
    assert not (tmp_path / "new.yaml").exists()
