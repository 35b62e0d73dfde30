import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest

from export.charts import (
    calls_chart,
    cascade_chart,
    coverage_chart,
    load_chart,
    percentile_chart,
    quality_chart,
    reliability_chart,
    tokens_chart,
)

REPORT = json.loads((Path(__file__).parents[1] / "assets" / "report.json").read_text(encoding="utf-8"))
LOAD = {"bundle": [(100.0, 0.5, 1.5), (900.0, 2.0, None)], "other": [(50.0, 4.0, None)]}
CHARTS: dict[str, Callable[[], str | None]] = {
    "quality": lambda: quality_chart(REPORT["quality"], "accuracy"),
    "percentiles": lambda: percentile_chart(REPORT["latency"]["percentiles"]),
    "tokens": lambda: tokens_chart(REPORT["latency"]["by_tokens"]),
    "reliability": lambda: reliability_chart(REPORT["reliability"]),
    "coverage": lambda: coverage_chart(REPORT["abstain"]["curve"], 0.97, 0.83),
    "cascade": lambda: cascade_chart(REPORT["abstain"]["cascade"], 81.0, 0.17),
    "load": lambda: load_chart(LOAD, {"bundle": "ours", "other": "theirs"}),
    "calls": lambda: calls_chart(REPORT["labelling"]["curve"], "accuracy"),
}


def drawn(name: str) -> str:
    chart = CHARTS[name]()
    assert chart is not None
    return chart


def texts(chart: str) -> list[str]:
    return [element.text or "" for element in ElementTree.fromstring(chart).iter("text")]


@pytest.mark.parametrize("name", CHARTS)
def test_a_chart_is_well_formed_and_names_no_address(name: str) -> None:
    chart = drawn(name)
    assert ElementTree.fromstring(chart).tag == "svg"
    assert "://" not in chart
    assert "<script" not in chart


@pytest.mark.parametrize("name", CHARTS)
def test_every_colour_of_a_chart_comes_from_the_page(name: str) -> None:
    chart = drawn(name)
    assert "var(--student)" in chart
    assert re.findall(r"(?:fill|stroke): (?!var\(--|none)[^;\"]+", chart) == []
    assert "DejaVu" not in chart


def test_charts_on_one_page_share_no_element_id() -> None:
    ids = [identity for name in CHARTS for identity in re.findall(r'\bid="([^"]+)"', drawn(name))]
    assert ids
    assert len(ids) == len(set(ids))


def test_every_reference_inside_a_chart_has_its_target() -> None:
    for name in CHARTS:
        chart = drawn(name)
        wanted = set(re.findall(r'href="#([^"]+)"|url\(#([^)]+)\)', chart))
        assert {a or b for a, b in wanted} <= set(re.findall(r'\bid="([^"]+)"', chart))


def test_the_same_figures_give_the_same_drawing() -> None:
    assert drawn("quality") == drawn("quality")


def test_the_quality_chart_names_every_contender_with_its_value() -> None:
    shown = texts(drawn("quality"))
    assert {"teacher", "student int8", "gold only", "TF-IDF on soft labels"} <= set(shown)
    assert {"94.2 %", "93.4 %", "85.1 %"} <= set(shown)


def test_a_contender_that_was_not_measured_is_left_out_of_the_chart() -> None:
    quality: dict[str, Any] = {
        "teacher": {"accuracy": 0.9},
        "gold_only": {"accuracy": None},
        "tfidf_gold": None,
    }
    chart = quality_chart(quality, "accuracy")
    assert chart is not None
    assert "teacher" in texts(chart)
    assert "gold only" not in texts(chart)


def test_the_percentile_chart_labels_no_percentile_that_was_not_measured() -> None:
    chart = percentile_chart({"student_int8": [[50, 0.4], [90, 0.6]]})
    assert chart is not None
    assert "p90" in texts(chart)
    assert "p99" not in texts(chart)


@pytest.mark.parametrize("points", [{}, {"teacher": None}, {"teacher": [[50, None]]}, {"teacher": [[100, 3.0]]}])
def test_a_percentile_chart_without_a_point_is_absent(points: dict[str, Any]) -> None:
    assert percentile_chart(points) is None


def test_charts_without_data_are_absent() -> None:
    assert quality_chart({}, "accuracy") is None
    assert tokens_chart({}) is None
    assert reliability_chart({"teacher": []}) is None
    assert calls_chart([], "accuracy") is None
    assert coverage_chart([], 0.97, None) is None
    assert cascade_chart([[0.0, 0.9]], None, None) is None


def test_one_point_is_no_curve_of_calls_and_a_point_without_a_figure_is_left_out() -> None:
    assert calls_chart([[0, 0.8, 0.7, 0.9]], "accuracy") is None
    assert calls_chart([[0, 0.8, 0.7, 0.9], [10, None, 0.7, 0.9]], "accuracy") is None


def test_the_curve_of_calls_says_what_it_measures() -> None:
    chart = calls_chart(REPORT["labelling"]["curve"], "macro_f1")
    assert chart is not None
    assert {"teacher calls", "macro-F1 on test, %", "2,000"} <= set(texts(chart))


def test_a_teacher_without_a_price_is_shown_by_its_share_of_the_texts() -> None:
    curve = REPORT["abstain"]["cascade"]
    free, priced = cascade_chart(curve, None, None), cascade_chart(curve, 81.0, None)
    assert free is not None
    assert priced is not None
    assert "handed to the teacher, %" in texts(free)
    assert "USD, a million texts" in texts(priced)


def test_the_load_chart_names_only_contenders_that_were_loaded() -> None:
    chart = load_chart({"bundle": LOAD["bundle"]}, {"bundle": "ours", "other": "theirs"})
    assert chart is not None
    assert "ours" in texts(chart)
    assert "theirs" not in texts(chart)
    assert load_chart({}, {"bundle": "ours"}) is None
