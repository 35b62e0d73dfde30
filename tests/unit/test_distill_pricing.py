"""Facts about the price of labelling: it comes from real calls, they are kept, and it is the one that is paid."""

import json
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy.stats import t

from distill.cli import run
from distill.config import load_config
from distill.errors import InputError
from distill.pricing import mean_interval, price_labelling
from distill.progress import SilentReporter
from teacher.errors import BudgetError, PriceError
from teacher.paid import PaidAnswers
from teacher.select import read_selection
from teacher.soft_labels import read_store
from tests.fault_server import FaultServer

POOL, DEV, TEST = 270, 90, 90


@pytest.fixture
def server() -> Iterator[FaultServer]:
    """Return a running server that answers every prompt with a code."""
    running = FaultServer().start()
    yield running
    running.stop()


@pytest.fixture
def config(server: FaultServer, write_corpus: Callable[[], Path], tiny_encoder: Path) -> Path:
    """Return a config whose teacher is the server's model."""
    folder = write_corpus()
    (folder / "prices.yaml").write_text(
        "models: {tiny: {prompt: 1, completion: 1, batch_discount: 0.5}}", encoding="utf-8"
    )
    teacher = {"kind": "llm_api", "base_url": server.url, "model": "tiny", "key_env": None, "prices": "prices.yaml"}
    content = {
        "name": "paid",
        "data": {"unlabeled": ["pool.csv"], "gold": "gold.csv", "dev": "dev.csv", "test": "test.csv"},
        "teacher": teacher,
        "student": {"init": str(tiny_encoder)},
        "label": {"weak_teacher": "warn"},
    }
    path = folder / "paid.yaml"
    path.write_text(json.dumps(content), encoding="utf-8")  # JSON is YAML
    return path


def price(config: Path, rows: int, *overrides: str, **options: Any) -> list[str]:
    loaded = load_config(config, overrides)
    return price_labelling(loaded, rows, runs=config.parent / "runs", reporter=SilentReporter(), **options)


def money(line: str) -> tuple[float, float, float]:
    """Return mean, low and high of the last price in a line."""
    found = re.findall(r"\$([\d.]+) \[([\d.]+), ([\d.]+)\]", line)[-1]
    mean, low, high = map(float, found)
    return mean, low, high


def pool_rows(config: Path) -> int:
    meta = json.loads((config.parent / "runs/paid/corpus/meta.json").read_text(encoding="utf-8"))
    return int(meta["rows"]["pool"])


def test_a_dry_run_asks_as_many_rows_as_wanted_and_a_second_one_nothing(config: Path, server: FaultServer) -> None:
    lines = price(config, 20)
    assert server.counts()["paid"] == 20
    assert "20 rows asked, 0 of them rejected; a row takes 1 calls" in lines[0]
    assert price(config, 20) == lines
    assert server.counts()["paid"] == 20


def test_the_price_of_the_run_is_that_of_the_rows_it_will_ask(config: Path, server: FaultServer) -> None:
    lines = price(config, 20)
    a_row, low, high = money(lines[0])
    assert a_row == pytest.approx(server.usd / 20, abs=1e-6)
    assert low <= a_row <= high
    rows = pool_rows(config) + DEV
    assert f"labelling: {rows:,} rows, {rows:,} calls" in lines[1]
    assert money(lines[1])[0] == pytest.approx(rows * server.usd / 20, rel=1e-2)
    assert f"{TEST:,} rows" in lines[2]


def test_labelling_asks_what_is_selected_and_pays_for_no_dry_answer_again(config: Path, server: FaultServer) -> None:
    chosen = "label.select={strategy: both, budget_rows: 40}"
    lines = price(config, 10, chosen)
    a_row, before = money(lines[0])[0], server.usd
    runs = config.parent / "runs"
    assert run(["label", str(config), chosen, "--runs", str(runs)]) == 0
    counts = server.counts()
    assert counts["most_paid"] == 1
    assert DEV + 40 <= counts["paid"] < DEV + 40 + 10  # rows of test and pool that the dry run alone asked
    with PaidAnswers(runs / "paid/answers.sqlite") as paid:
        assert paid.spent_usd == pytest.approx(server.usd)
    assert server.usd == pytest.approx(a_row * counts["paid"], rel=0.03)
    assert before == pytest.approx(10 * a_row, rel=0.01)
    selection = read_selection(runs / "paid/labels")
    assert selection is not None
    store = read_store(runs / "paid/labels")
    assert store.meta.rows == len(selection.ids) == 40
    assert store.answered(selection.ids).all()


def test_votes_are_priced_with_all_their_samples(config: Path, server: FaultServer) -> None:
    one, five = (
        price(config, 6, "teacher.answers=votes", f"teacher.samples={samples}", f"name=votes{samples}")[0]
        for samples in (1, 5)
    )
    assert "1.0 completion tokens" in one
    assert "5.0 completion tokens" in five


def test_rejected_rows_are_paid_too_and_named(config: Path, server: FaultServer) -> None:
    server.settings.faults, server.settings.kinds = 0.3, ["outside the label set"]
    lines = price(config, 20, "teacher.answers=votes", "teacher.samples=1")
    rejected = int(re.findall(r"(\d+) of them rejected", lines[0])[0])
    assert 0 < rejected < 20
    assert money(lines[0])[0] == pytest.approx(server.usd / 20, rel=0.05)


def test_a_batch_run_is_priced_with_its_discount_but_asked_directly(config: Path, server: FaultServer) -> None:
    direct = money(price(config, 10)[0])[0]
    batch = money(price(config, 10, "teacher.transport=batch")[0])[0]
    assert batch == pytest.approx(direct / 2, abs=1e-6)
    assert server.counts()["batches"] == 0


def test_a_price_without_a_date_is_warned_of(config: Path) -> None:
    assert "  warning: the price of tiny (1 and 1 USD per million tokens) carries no date" in price(config, 5)[3]


def test_only_the_selected_rows_are_priced(config: Path) -> None:
    lines = price(config, 5, "label.select={strategy: random, budget_rows: 40}")
    assert f"labelling: {40 + DEV} rows" in lines[1]


def test_a_budget_stops_a_dry_run_too(config: Path, server: FaultServer) -> None:
    with pytest.raises(BudgetError, match="--budget-usd"):
        price(config, 20, budget_usd=2e-4)
    assert server.usd <= 2e-4


def test_a_teacher_without_an_endpoint_costs_nothing(config: Path, server: FaultServer, tiny_encoder: Path) -> None:
    assert price(config, 20, f"teacher={{kind: prototypes, model: {tiny_encoder}}}") == [
        "nothing to pay: no teacher of this config asks an endpoint"
    ]
    assert server.counts()["asked"] == 0


def test_a_paid_member_of_a_committee_is_priced_at_its_place(config: Path, tiny_encoder: Path) -> None:
    member = json.loads(config.read_text(encoding="utf-8"))["teacher"]
    committee = {"kind": "committee", "members": [{"kind": "prototypes", "model": str(tiny_encoder)}, member]}
    lines = price(config, 5, f"teacher={json.dumps(committee)}")
    assert lines[0].startswith("teacher.members.1 (tiny): 5 rows asked")


def test_too_few_rows_and_a_missing_price_are_wrong_use_before_a_call(config: Path, server: FaultServer) -> None:
    with pytest.raises(InputError, match="at least 3"):
        price(config, 2)
    with pytest.raises(PriceError, match="unknown-model"):
        price(config, 20, "teacher.model=unknown-model")
    assert server.counts()["asked"] == 0


def test_the_command_prints_the_lines(config: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["label", str(config), "--dry-run", "5", "--runs", str(config.parent / "runs")]) == 0
    shown = capsys.readouterr().out.splitlines()
    assert shown[0].startswith("teacher (tiny): 5 rows asked")
    assert shown[-1].startswith("paid in this run so far: $")


def test_the_interval_of_a_mean_is_students() -> None:
    values = np.random.default_rng(0).gamma(2.0, size=12)
    found = mean_interval(values)
    low, high = t.interval(0.95, 11, values.mean(), values.std(ddof=1) / np.sqrt(12))
    assert (found.low, found.estimate, found.high) == pytest.approx((low, values.mean(), high))
    assert mean_interval(np.array([0.0, 0.0, 9.0])).low == 0


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ("teacher.base_url={moved}", r"under another endpoint {url}; they are .*; if that is the same model, {advice}"),
        ("teacher.prompt.examples=1", r"under another prompt; they are asked and paid anew$"),
        ("teacher.top_logprobs=5", r"under another decoding; they are asked and paid anew$"),
        ("teacher.model=larger", r"under another model tiny; they are asked and paid anew$"),
    ],
)
def test_what_was_paid_before_is_told_before_it_is_paid_anew(
    config: Path, server: FaultServer, change: str, told: str
) -> None:
    server.settings.models.append("larger")
    price(config, 9)
    moved = server.url.replace("127.0.0.1", "localhost")
    (config.parent / "prices.yaml").write_text("models: {'*': {prompt: 1, completion: 1}}", encoding="utf-8")
    *_, line, _ = price(config, 9, change.format(moved=moved))
    asked = rf"teacher \(\w+\): 9 of the {pool_rows(config) + DEV + TEST} texts of this run have answers, which cost \$"
    advice = rf"teacher\.endpoint={server.url} finds them$"
    assert re.search(asked + r"\d\.\d{4}, " + told.format(url=server.url, advice=advice), line)
    assert "9 of the" not in "".join(price(config, 9, change.format(moved=moved)))
    if "base_url" in change:
        before = server.counts()["paid"]
        price(config, 9, change.format(moved=moved), f"teacher.endpoint={server.url}")
        assert server.counts()["paid"] == before
