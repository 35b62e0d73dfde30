from datetime import date, timedelta
from pathlib import Path

import pytest
import yaml

from teacher.errors import PriceError
from teacher.prices import CARRIED_TABLE, find_price

TABLE = """
models:
  big: {prompt: 10, completion: 20, batch_discount: 0.5}
  big-*: {prompt: 1, completion: 2}
  big-small*: {prompt: 0.1, completion: 0.2}
  here: {prompt: 0, completion: 0}
"""


@pytest.fixture
def table(tmp_path: Path) -> Path:
    """Return a table of prices."""
    path = tmp_path / "prices.yaml"
    path.write_text(TABLE, encoding="utf-8")
    return path


def test_a_price_is_for_a_million_tokens(table: Path) -> None:
    assert find_price("big", table).cost_usd(1_000_000, 500_000) == pytest.approx(20)


@pytest.mark.parametrize(("model", "usd"), [("big", 10), ("big-one", 1), ("big-small-2", 0.1)])
def test_the_name_beats_a_pattern_and_a_longer_pattern_a_shorter_one(table: Path, model: str, usd: float) -> None:
    assert find_price(model, table).prompt_usd == pytest.approx(usd / 1e6)


def test_the_batch_discount_counts_for_batches_alone(table: Path) -> None:
    assert find_price("big", table, is_batch=True).completion_usd == pytest.approx(10 / 1e6)
    assert find_price("big", table).completion_usd == pytest.approx(20 / 1e6)


def test_nothing_is_a_price_that_somebody_wrote_down(table: Path) -> None:
    assert find_price("here", table).cost_usd(5, 5) == 0


def test_a_model_without_a_price_is_refused_with_the_line_to_write(table: Path) -> None:
    with pytest.raises(PriceError, match=r"no price for 'biggest'.*`models: {'biggest': {prompt.*teacher.prices"):
        find_price("biggest", table)


def test_the_line_that_the_refusal_tells_to_write_is_a_table(tmp_path: Path) -> None:
    with pytest.raises(PriceError) as caught:
        find_price("my/model:free")
    path = tmp_path / "own.yaml"
    path.write_text(str(caught.value).split("`")[1], encoding="utf-8")
    assert find_price("my/model:free", path).cost_usd(1e6, 1e6) == pytest.approx(0.75)


def test_the_carried_table_knows_dated_names_and_takes_no_big_model_for_a_small_one() -> None:
    assert find_price("gpt-4o-mini-2024-07-18").prompt_usd == find_price("gpt-4o-mini").prompt_usd
    assert find_price("gpt-4o-2024-08-06").prompt_usd > 10 * find_price("gpt-4o-mini").prompt_usd


def test_every_carried_price_says_when_and_where_it_was_read() -> None:
    rows = yaml.safe_load(CARRIED_TABLE.read_text(encoding="utf-8"))["models"].values()
    assert all(isinstance(row["as_of"], date) and row["source"] for row in rows)


@pytest.mark.parametrize(
    ("row", "doubt"),
    [
        ("{{prompt: 1, completion: 2, as_of: {today}}}", None),
        ("{{prompt: 1, completion: 2, as_of: {old}, source: a page}}", "is of {old}, from a page: older than"),
        ("{{prompt: 1, completion: 2}}", "carries no date"),
        ("{{prompt: 0, completion: 0}}", None),
    ],
)
def test_a_price_that_is_old_or_has_no_date_is_doubted(tmp_path: Path, row: str, doubt: str | None) -> None:
    days = {"today": date.today(), "old": date.today() - timedelta(days=200)}
    (tmp_path / "prices.yaml").write_text(f"models: {{m: {row.format(**days)}}}", encoding="utf-8")
    found = find_price("m", tmp_path / "prices.yaml").doubt
    assert found is None if doubt is None else found is not None and doubt.format(**days) in found


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("models: {m: {prompt: -1, completion: 1}}", "models.m.prompt"),
        ("models: {m: {prompt: 1}}", "models.m.completion"),
        ("models: {m: {prompt: 1, completion: .nan}}", "models.m.completion"),
        ("{}", "models wrong"),
        ("models: [", "no YAML"),
        ("models: {m: {prompt: 1, completion: 1, input: 1}}", "models.m.input"),
    ],
)
def test_a_table_that_is_wrong_is_refused_with_the_place(tmp_path: Path, text: str, said: str) -> None:
    path = tmp_path / "prices.yaml"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(PriceError, match=said) as caught:
        find_price("m", path)
    assert "\n" not in str(caught.value)


def test_a_table_that_is_missing_is_refused(tmp_path: Path) -> None:
    with pytest.raises(PriceError, match=r"nowhere\.yaml: cannot be read"):
        find_price("m", tmp_path / "nowhere.yaml")
