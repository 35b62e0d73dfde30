from pathlib import Path

import numpy as np
import pytest

from export.bench import (
    cold_start,
    latency_by_tokens,
    measure_interleaved,
    paired_ratio,
    percentile_curve,
    summarise,
)
from export.bundle import BundleManifest, write_bundle
from export.errors import ExportError
from export.graph import export_graph

LABELS = ("delivery", "payment", "size")


def milliseconds(values: list[list[float]]) -> np.ndarray:
    return (np.array(values) * 1e6).astype(np.int64)


def test_every_contender_answers_every_text_in_every_repeat() -> None:
    asked: dict[str, list[str]] = {"a": [], "b": []}
    contenders = {name: asked[name].append for name in asked}
    samples = measure_interleaved(contenders, ["x", "y", "z"], repeats=2, warmup=1, seed=0)
    assert asked["a"] == asked["b"] == ["x", *2 * ["x", "x", "y", "z"]]  # warm-up, then turns that open untimed
    assert {name: times.shape for name, times in samples.items()} == {"a": (2, 3), "b": (2, 3)}
    assert all((times > 0).all() for times in samples.values())


def test_contenders_take_turns_by_blocks_in_an_order_that_changes_and_repeats_with_the_seed() -> None:
    def order(seed: int) -> list[str]:
        calls: list[str] = []
        contenders = {name: lambda _, name=name: calls.append(name) for name in "ab"}
        measure_interleaved(contenders, [str(index) for index in range(320)], repeats=1, warmup=0, seed=seed)
        return calls

    calls, turn = order(1), 20 + 1
    assert {"a", "b"} == set(calls[:: 2 * turn])
    assert all(len(set(calls[start : start + turn])) == 1 for start in range(0, len(calls), turn))
    assert order(1) == order(1) != order(2)


def test_measuring_nothing_is_an_error_that_says_what_was_found() -> None:
    with pytest.raises(ExportError, match="0 texts") as caught:
        measure_interleaved({"a": str}, [], repeats=1, warmup=0, seed=0)
    assert "at least one" in str(caught.value)


def test_the_ratio_of_a_contender_to_itself_is_one_without_spread() -> None:
    samples = np.random.default_rng(0).integers(100, 900, (3, 50))
    ratio = paired_ratio(samples, samples)
    assert (ratio.estimate, ratio.low, ratio.high) == (1.0, 1.0, 1.0)


def test_the_ratio_interval_holds_a_known_ratio_of_noisy_samples() -> None:
    generator = np.random.default_rng(0)
    text_cost = generator.uniform(1e5, 1e6, 400)
    fast = (text_cost * generator.normal(1, 0.05, (3, 400))).astype(np.int64)
    slow = (5 * text_cost * generator.normal(1, 0.05, (3, 400))).astype(np.int64)
    ratio = paired_ratio(slow, fast, seed=1)
    assert ratio.low < 5 < ratio.high
    assert ratio.high - ratio.low < 0.5


def test_repeats_of_the_same_texts_do_not_narrow_the_ratio_interval() -> None:
    generator = np.random.default_rng(0)
    ours, theirs = generator.integers(100, 900, (2, 1, 60))
    once = paired_ratio(ours, theirs)
    many = paired_ratio(np.repeat(ours, 20, axis=0), np.repeat(theirs, 20, axis=0))
    assert many.high - many.low == pytest.approx(once.high - once.low)


def test_the_control_holds_one_when_whole_turns_are_disturbed() -> None:
    generator = np.random.default_rng(0)
    unsound = 0
    for seed in range(20):
        turns = generator.normal(1, 0.15, (2, 3, 35)).repeat(20, axis=2)  # each turn of 20 texts has its own pace
        ours, theirs = (turns * generator.normal(1, 0.02, turns.shape) * 1e6).astype(np.int64)
        ratio = paired_ratio(ours, theirs, resamples=200, seed=seed)
        unsound += not ratio.low <= 1 <= ratio.high
    assert unsound <= 4


def test_ratios_of_samples_of_different_shape_are_refused() -> None:
    with pytest.raises(ExportError) as caught:
        paired_ratio(np.ones((1, 3), np.int64), np.ones((1, 4), np.int64))
    assert "(1, 3)" in str(caught.value)


@pytest.mark.parametrize(
    ("samples", "has_p90", "has_p99"),
    [(63, False, False), (64, True, False), (661, True, False), (662, True, True)],
)
def test_a_percentile_is_absent_below_its_number_of_samples(samples: int, has_p90: bool, has_p99: bool) -> None:
    summary = summarise(np.full((1, samples), 2_000_000), threads=2)
    assert summary.p50_ms == 2.0
    assert (summary.p90_ms is not None, summary.p99_ms is not None) == (has_p90, has_p99)
    assert (summary.n, summary.threads) == (samples, 2)


def test_percentiles_are_in_milliseconds_over_all_repeats() -> None:
    summary = summarise(milliseconds([[float(value) for value in range(1, 102)]] * 7))
    assert (summary.p50_ms, summary.p90_ms, summary.p99_ms) == (51.0, 91.0, 100.0)


def test_the_percentile_curve_ends_where_the_samples_end() -> None:
    curve = percentile_curve(milliseconds([[1.0] * 100]))
    assert curve[-1] == (90.0, 1.0)


def test_latency_by_tokens_groups_texts_of_similar_length() -> None:
    tokens = [4, 4, 4, 40, 40, 40]
    curve = latency_by_tokens(milliseconds([[1, 1, 1, 9, 9, 9]]), tokens, buckets=2)
    assert curve == [(4, 1.0), (40, 9.0)]


def test_latency_by_tokens_of_texts_of_one_length_is_one_point() -> None:
    assert latency_by_tokens(milliseconds([[1, 2, 3]]), [5, 5, 5]) == [(5, 2.0)]


def test_a_cold_start_times_each_step_of_a_real_bundle(tiny_classifier: Path, tmp_path: Path) -> None:
    model = tmp_path / "model.onnx"
    export_graph(tiny_classifier, model)
    manifest = BundleManifest(name="tiny", kind="single_label", labels=LABELS, max_tokens=16, precision="fp32")
    write_bundle(tiny_classifier, {"fp32": model}, tmp_path / "bundle", manifest, {})
    start = cold_start(tmp_path / "bundle", "my parcel – naïve\n", restarts=2)
    assert min(start.import_s, start.load_s, start.first_answer_s) > 0
    assert start.total_s >= start.import_s
    assert start.restarts == 2
    assert start.resident_mb > 5


def test_a_cold_start_that_fails_names_the_bundle_and_the_reason(tmp_path: Path) -> None:
    with pytest.raises(ExportError) as caught:
        cold_start(tmp_path / "no-bundle", "hello", restarts=1)
    assert "no-bundle" in str(caught.value)
    assert "distill verify" in str(caught.value)
