"""The report on a search: everyone tried in one table, the frontier drawn, hostile names harmless."""

import copy
import json
import re
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest

from export.frontier import frontier_chart
from export.report import render_html, render_markdown
from export.report_search import search_table

SAMPLE = json.loads((Path(__file__).parents[1] / "assets" / "report.json").read_text(encoding="utf-8"))
pytestmark = pytest.mark.usefixtures("drawn_once")
HOSTILE = '<img src=x onerror="alert(1)">'


def student(name: str, state: str, p50_ms: float, points: float, **more: Any) -> dict[str, Any]:
    around = {"estimate": p50_ms, "low": 0.9 * p50_ms, "high": 1.1 * p50_ms}
    gap = {"estimate": points / 100, "low": (points - 1) / 100, "high": (points + 1) / 100}
    score = {"estimate": 0.94 + points / 100, "low": 0.9, "high": 0.96}
    known = {"unfit": "", "share": 1.0, "size_bytes": 4_290_000, "p50_ms": around, "gap": gap, "score": score}
    return {"name": name, "state": state, **known, **more}


SEARCH: dict[str, Any] = {
    "lines": {"p50_ms": 1.0, "max_gap": 0.005},
    "metric": "accuracy",
    "rows": 797,
    "teacher": 0.94,
    "students": [
        student("static", "trained", 0.06, -1.3),
        student("2 layers", "chosen", 0.4, -0.3),
        student("3 layers", "dropped", 0.6, -0.8, share=0.25),
        student("4 layers", "trained", 0.8, -0.4, unfit="int8 failed quality_drop"),
        {"name": "6 layers", "state": "too slow", "share": 0.0, "size_bytes": 14_000_000},
    ],
    "sentence": "2 layers is the smallest student that holds both lines",
    "remarks": ["797 dev rows cannot tell"],
}


@pytest.fixture
def report() -> dict[str, Any]:
    return copy.deepcopy({**SAMPLE, "search": SEARCH})


def test_every_student_has_a_row_with_what_was_measured_and_a_dash_for_the_rest(report: dict[str, Any]) -> None:
    rows = {row[0]: row[1:] for row in search_table(report).rows}
    size = "4.3 MB"
    assert rows["2 layers"] == (
        *("chosen", "100 %", "0.40 ms", "[0.36, 0.44]", size),
        *("93.7 %", "−0.3", "[−1.3, +0.7]"),
    )
    assert rows["3 layers"][:2] == ("dropped", "25 %")
    assert rows["4 layers"][0] == "int8 failed quality_drop"
    assert rows["6 layers"] == ("too slow", "0 %", "–", "–", "14.0 MB", "–", "–", "–")


def test_both_renderings_give_the_answer_and_say_that_dev_chose(report: dict[str, Any]) -> None:
    for rendered in (render_html(report), render_markdown(report)):
        assert "2 layers is the smallest student that holds both lines. 797 dev rows cannot tell." in rendered
        assert "Dev chose among the students" in rendered


def test_a_report_without_a_search_says_so_and_draws_nothing(report: dict[str, Any]) -> None:
    charts = render_html(report).count("<svg")
    del report["search"]
    assert render_html(report).count("<svg") == charts - 1
    assert "No search was made." in render_markdown(report)


def drawn(students: list[dict[str, Any]] = SEARCH["students"]) -> str:
    chart = frontier_chart(students, 1.0, 0.005)
    assert chart is not None
    return chart


def test_the_frontier_names_everyone_who_was_trained_and_nobody_else() -> None:
    texts = {element.text for element in ElementTree.fromstring(drawn()).iter("text")}
    assert {"static", "2 layers", "3 layers", "4 layers"} <= texts
    assert "6 layers" not in texts


def test_every_colour_of_the_frontier_comes_from_the_page() -> None:
    chart = drawn()
    assert {"var(--student)", "var(--fp32)", "var(--baseline)", "var(--teacher)"} <= set(
        re.findall(r"var\([^)]*\)", chart)
    )
    assert re.findall(r"(?:fill|stroke): (?!var\(--|none)[^;\"]+", chart) == []
    assert "://" not in chart


def test_a_student_that_was_dropped_is_a_hollow_dot() -> None:
    assert "fill: none; stroke: var(--baseline)" in drawn()


def test_a_search_that_trained_nobody_has_no_frontier() -> None:
    assert frontier_chart(SEARCH["students"][-1:], 1.0, 0.005) is None


def test_a_hostile_name_is_text_in_table_and_chart(report: dict[str, Any]) -> None:
    report["search"]["students"][0]["name"] = HOSTILE
    report["search"]["sentence"] = HOSTILE
    assert "<img" not in render_html(report)
    assert HOSTILE not in render_markdown(report)
