"""Load scenarios: what a sceptic asks of their percentiles and of their arrivals."""

import math
import threading
import time
from pathlib import Path

import numpy as np
import pytest

from export.errors import ExportError
from export.loadgen import LoadgenGenerator
from export.scenarios import (
    OwnGenerator,
    early_stopping_estimate,
    poisson_arrivals,
    serve,
    summarise_load,
    tolerated_misses,
)


# Both sides of the numbers of queries that MLPerf's loadgen asks for, and what it discarded of 3,000 (t - 1 = 260).
@pytest.mark.parametrize(
    ("queries", "percent", "tolerated"),
    [
        (63, 90, 0),
        (64, 90, 1),
        (661, 99, 0),
        (662, 99, 1),
        (6635, 99.9, 0),
        (6636, 99.9, 1),
        (43, 90, -1),
        (3000, 90, 261),
    ],
)
def test_early_stopping_tolerates_as_many_misses_as_loadgen(queries: int, percent: float, tolerated: int) -> None:
    assert tolerated_misses(queries, percent) == tolerated


def test_the_tolerated_misses_are_the_most_that_stay_under_one_percent() -> None:
    def chance(misses: int) -> float:
        return sum(math.comb(500, count) * 0.1**count * 0.9 ** (500 - count) for count in range(misses + 1))

    tolerated = tolerated_misses(500, 90)
    assert chance(tolerated) < 0.01 <= chance(tolerated + 1)


def test_the_early_stopping_estimate_lies_above_the_percentile_and_seldom_below_the_truth() -> None:
    generator = np.random.default_rng(0)
    samples = (generator.exponential(1e6, (300, 500))).astype(np.int64)  # p90 of the truth is 2.303 ms
    estimates = [early_stopping_estimate(row, 90) for row in samples]
    assert all(
        one is not None and one >= np.percentile(row, 90) / 1e6 for one, row in zip(estimates, samples, strict=True)
    )
    assert sum(one < math.log(10) for one in estimates if one is not None) <= 9


def test_a_load_shows_no_percentile_without_its_samples() -> None:
    load = summarise_load(np.full(661, 2_000_000), 500.0)
    assert load.percentiles_ms == {"p50": 2.0, "p90": 2.0}
    assert load.bounds_ms == {"p90": 2.0}


def test_arrivals_are_those_of_a_poisson_process() -> None:
    arrivals = poisson_arrivals(1000.0, 20_000, seed=0)
    gaps = np.diff(arrivals)
    assert arrivals[-1] / 20_000 == pytest.approx(1e6, rel=0.03)
    assert gaps.std() / gaps.mean() == pytest.approx(1, rel=0.03)  # memoryless: as spread as it is long
    assert (arrivals == poisson_arrivals(1000.0, 20_000, seed=0)).all()


def test_arrivals_at_no_rate_are_refused() -> None:
    with pytest.raises(ExportError, match="at 0 a second"):
        poisson_arrivals(0, 5, seed=0)


def test_a_text_that_waits_for_the_one_before_it_counts_its_waiting() -> None:
    samples = serve(lambda text: time.sleep(0.02), ["one", "two", "three"], np.zeros(3, np.int64))
    assert (samples >= np.array([1, 2, 3]) * 20_000_000).all()


def test_texts_that_arrive_late_are_not_answered_before_they_arrive() -> None:
    asked: list[float] = []
    started = time.perf_counter()
    serve(lambda text: asked.append(time.perf_counter()), ["one", "two"], np.array([10_000_000, 30_000_000]))
    assert asked[0] - started >= 0.010
    assert asked[1] - started >= 0.030


def test_every_text_is_answered_once_whoever_takes_it() -> None:
    both = threading.Barrier(2, timeout=10)
    asked: list[str] = []

    def answer(text: str) -> None:
        both.wait()  # passes only when two workers answer at once
        asked.append(text)

    serve(answer, ["a", "b", "c", "d"], np.zeros(4, np.int64), workers=2)
    assert sorted(asked) == ["a", "b", "c", "d"]


@pytest.mark.parametrize("kind", [OwnGenerator, LoadgenGenerator], ids=["own", "loadgen"])
def test_each_generator_answers_as_many_queries_as_wanted_in_every_scenario(
    kind: type[OwnGenerator | LoadgenGenerator], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if kind is LoadgenGenerator:
        pytest.importorskip("mlperf_loadgen")
    monkeypatch.chdir(tmp_path)
    texts = ["one", "two", "three"]
    generator, asked, at_once = kind(seed=1), [], []
    stream = generator.single_stream(asked.append, texts, 100)
    assert (len(asked), set(asked)) == (100, set(texts))
    assert stream.queries == 100
    assert set(stream.percentiles_ms) == {"p50", "p90"}
    assert set(stream.bounds_ms) == {"p90"}
    offline = generator.offline(at_once.append, texts, 50)
    assert len(at_once) == 1
    assert len(at_once[0]) == pytest.approx(50, abs=1)
    assert offline.per_second > 0
    asked.clear()
    server = generator.server(asked.append, texts, poisson_arrivals(5000.0, 700, seed=0), target_ms=60_000)
    assert (len(asked), server.queries, server.meets_target) == (700, 700, True)
    assert server.percentiles_ms["p99"] >= server.percentiles_ms["p50"] > 0
    assert [path.name for path in tmp_path.iterdir()] == []


def test_a_server_that_is_too_slow_misses_its_target() -> None:
    arrivals = poisson_arrivals(1e6, 662, seed=0)
    assert OwnGenerator().server(lambda text: None, ["a"], arrivals, target_ms=1e-9).meets_target is False
    assert OwnGenerator().server(lambda text: None, ["a"], arrivals[:600], target_ms=1e9).meets_target is None
