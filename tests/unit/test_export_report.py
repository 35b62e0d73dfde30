import copy
import json
import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from export.report import render_html, render_markdown
from export.report_verdict import verdict

SAMPLE = json.loads((Path(__file__).parents[1] / "assets" / "report.json").read_text(encoding="utf-8"))
HOSTILE = '<img src=x onerror="alert(1)"> | `code` </table>'
pytestmark = pytest.mark.usefixtures("drawn_once")
_VOID = {"meta", "br", "wbr", "img", "link", "input"}


@pytest.fixture
def report() -> dict[str, Any]:
    return copy.deepcopy(SAMPLE)


class Page(HTMLParser):
    """What a page consists of: tags in order, attributes, visible text; fails on bad nesting."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.attributes: list[tuple[str, str | None]] = []
        self.words: list[str] = []
        self._open: list[str] = []
        self.feed(html)
        self.close()
        assert self._open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += attrs
        if tag not in _VOID:
            self._open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += attrs

    def handle_endtag(self, tag: str) -> None:
        assert self._open.pop() == tag

    def handle_data(self, data: str) -> None:
        if not {"style", "title"} & set(self._open):
            self.words.append(data.strip())


def test_the_verdict_says_quality_speed_size_and_gates_in_one_breath(report: dict[str, Any]) -> None:
    opening = verdict(report)
    assert opening.status == "passed"
    assert opening.sentence == (
        "The int8 student is 0.7 points behind its teacher in accuracy [−1.3, −0.1]; it is 15.6× faster "
        "(0.41 ms a text) and 11.3× smaller. All 4 gates passed."
    )


def test_a_gap_whose_interval_holds_zero_is_called_noise(report: dict[str, Any]) -> None:
    report["gap"] = {"estimate": 0.004, "low": -0.002, "high": 0.01, "metric": "macro_f1"}
    sentence = verdict(report).sentence
    assert "0.4 points ahead of its teacher in macro-F1 [−0.2, +1.0], within the noise of 3,080 test" in sentence


def test_a_gap_that_rounds_to_nothing_is_called_level(report: dict[str, Any]) -> None:
    report["gap"] = {"estimate": -0.0002, "low": -0.001, "high": 0.001, "metric": "accuracy"}
    assert "is level with its teacher in accuracy" in verdict(report).sentence


@pytest.mark.parametrize("name", ["gold_only", "tfidf_gold", "tfidf_soft"])
def test_a_baseline_that_wins_is_said_in_the_verdict_of_both_renderings(report: dict[str, Any], name: str) -> None:
    report["quality"][name]["accuracy"] = 0.951
    opening = verdict(report)
    assert opening.status == "caution"
    assert "beats the student: 95.1 % against 93.4 % accuracy" in opening.remarks[0]
    assert opening.remarks[0] in Page(render_html(report)).words
    assert "beats the student" in render_markdown(report)


def test_a_baseline_that_ties_is_said_too(report: dict[str, Any]) -> None:
    report["quality"]["tfidf_gold"]["accuracy"] = report["quality"]["student_int8"]["accuracy"]
    assert "is as good as the student" in verdict(report).remarks[0]


def test_a_baseline_that_was_not_measured_is_named(report: dict[str, Any]) -> None:
    del report["quality"]["gold_only"]
    assert verdict(report).remarks == ("Not measured: gold only.",)


def test_a_failed_gate_comes_first_and_says_not_to_ship(report: dict[str, Any]) -> None:
    report["gates"][1] |= {"passed": False, "value": 0.31}
    report["warnings"] = ["the pool is small"]
    opening = verdict(report)
    assert opening.status == "failed"
    assert "1 of 4 gates failed: do not ship this file." in opening.sentence
    assert opening.remarks[0] == "Gate “kl divergence” failed: 0.31, limit 0.02 (nats, dev and 2,000 pool texts)."
    assert opening.remarks[-1] == "the pool is small"


def test_a_report_without_gates_does_not_claim_that_any_passed(report: dict[str, Any]) -> None:
    report["gates"] = []
    assert verdict(report).sentence.endswith("No gate was run.")


def test_a_control_that_does_not_hold_one_casts_doubt_on_the_latency(report: dict[str, Any]) -> None:
    report["latency"] |= {"control_low": 1.02, "control_high": 1.09}
    opening = verdict(report)
    assert opening.status == "caution"
    assert "does not hold 1 ([1.02, 1.09])" in opening.remarks[0]


def test_a_student_slower_and_larger_than_its_teacher_is_said_to_be_so(report: dict[str, Any]) -> None:
    report["latency"]["speedup_p50"], report["size"]["ratio"] = 0.5, 0.25
    assert "2.00× slower (0.41 ms a text) and 4.00× larger" in verdict(report).sentence


def test_a_run_that_kept_fp32_is_judged_by_its_fp32_student(report: dict[str, Any]) -> None:
    del report["quality"]["student_int8"], report["gap"]
    report["quality"]["student_fp32"]["accuracy"] = 0.93
    assert verdict(report).sentence.startswith("The fp32 student is 1.2 points behind its teacher in accuracy;")


def test_the_page_is_well_formed_self_contained_and_runs_nothing(report: dict[str, Any]) -> None:
    html = render_html(report)
    page = Page(html)
    assert page.tags.count("svg") == 7
    assert not {"script", "link", "img", "iframe"} & set(page.tags)
    assert "://" not in html
    targets = [value for name, value in page.attributes if name in ("href", "src") and value]
    assert all(target.startswith("#") for target in targets)
    assert {target[1:] for target in targets} <= {value for name, value in page.attributes if name == "id"}


def test_the_page_knows_light_and_dark_and_defines_every_colour_it_uses(report: dict[str, Any]) -> None:
    html = render_html(report)
    assert "prefers-color-scheme: dark" in html
    assert set(re.findall(r"var\((--[a-z0-9]+)\)", html)) <= set(re.findall(r"(--[a-z0-9]+):", html))


def test_hostile_text_anywhere_in_a_report_stays_text(report: dict[str, Any]) -> None:
    def poisoned(value: Any) -> Any:
        if isinstance(value, dict):
            return {key: poisoned(inner) for key, inner in value.items()}
        if isinstance(value, list):
            return [poisoned(inner) for inner in value]
        return HOSTILE if isinstance(value, str) else value

    poisoned_report = poisoned(report) | {"headline": "accuracy", "machine": {HOSTILE: HOSTILE}}
    page = Page(render_html(poisoned_report))
    assert "img" not in page.tags
    assert HOSTILE in page.words
    markdown = render_markdown(poisoned_report)
    assert "\\<img" in markdown
    assert not re.search(r"(?<!\\)[<`]", markdown)


def test_a_markdown_table_keeps_its_columns_whatever_a_label_holds(report: dict[str, Any]) -> None:
    report["worst_classes"][0]["label"] = "a|b\nc"
    rows = [line for line in render_markdown(report).splitlines() if line.startswith("| a\\|b c |")]
    assert len(rows) == 1
    assert len(re.findall(r"(?<!\\)\|", rows[0])) == 7


@pytest.mark.parametrize("absent", [{}, {"name": "x"}, {key: None for key in SAMPLE}, {key: {} for key in SAMPLE}])
def test_a_report_with_nothing_in_it_shows_dashes_and_no_zero(absent: dict[str, Any]) -> None:
    page = Page(render_html(absent))
    figures = [word for word in page.words if re.fullmatch(r"[\d.,]+( ?(%|ms|s|MB|×|M))?", word)]
    assert figures == []
    assert "–" in page.words
    assert "was not measured" in verdict(absent).sentence
    assert "| teacher | – |" in render_markdown(absent)


@pytest.mark.parametrize("key", SAMPLE)
def test_no_single_absent_entry_breaks_the_markdown(report: dict[str, Any], key: str) -> None:
    del report[key]
    assert render_markdown(report).startswith("# ")


@pytest.mark.parametrize("key", ["quality", "latency", "reliability"])
def test_a_chart_without_data_is_replaced_by_words(report: dict[str, Any], key: str) -> None:
    del report[key]
    page = Page(render_html(report))
    assert page.tags.count("svg") == 7 - page.words.count("Not measured.") < 7


def test_figures_that_are_not_a_number_are_shown_as_dashes(report: dict[str, Any]) -> None:
    report["quality"]["student_fp32"] = {
        "accuracy": float("nan"),
        "macro_f1": None,
        "ece": "unknown",
        "n": True,
    }
    assert "| student fp32 | – | – | – | – | – | – |" in render_markdown(report)
    assert "nan" not in Page(render_html(report)).words


def test_a_percentile_without_enough_samples_is_a_dash(report: dict[str, Any]) -> None:
    report["latency"]["teacher"]["p99_ms"] = None
    assert "| teacher | 6.41 ms | 8.20 ms | – | 2,100 | 2 |" in render_markdown(report)


def test_the_right_answer_of_a_disagreement_is_marked(report: dict[str, Any]) -> None:
    page = render_html(report)
    assert '<dt>teacher</dt><dd class="right">card_<wbr>arrival 81 %</dd>' in page
    assert "<dt>student</dt><dd>card_<wbr>delivery_<wbr>estimate 52 %</dd>" in page


def test_labels_of_a_multi_label_disagreement_are_listed(report: dict[str, Any]) -> None:
    report["disagreements"] = [{"text": "t", "gold": ["joy", "love"], "teacher": ["joy"], "student": []}]
    assert "| t | joy, love | joy (–) | none (–) |" in render_markdown(report)


def test_a_report_of_many_long_disagreements_stays_small_and_says_what_it_left_out(
    report: dict[str, Any],
) -> None:
    report["disagreements"] = [report["disagreements"][0] | {"text": "word " * 4000}] * 5000
    html = render_html(report)
    assert len(html.encode()) < 2_000_000
    assert "40 of 5000 recorded." in html


def test_every_gold_row_and_quarantine_reason_is_accounted_for(report: dict[str, Any]) -> None:
    markdown = render_markdown(report)
    assert "| gold rows that shaped the teacher | 8,003 |" in markdown
    assert "pool “How do I activate my card?” (same text in test: “how do i activate my card”)" in markdown
    assert "| quarantined | conflicting labels | 4 |" in markdown
    assert "| dropped | gold: near duplicate of test | 9 |" in markdown


def test_a_near_duplicate_that_was_only_flagged_is_not_said_to_be_dropped(report: dict[str, Any]) -> None:
    report["corpus"]["flagged"] = {"pool": {"near duplicate of dev": 3}}
    markdown = render_markdown(report)
    assert "| flagged | pool: near duplicate of dev | 3 |" in markdown
    assert "Leaks found, for example" in markdown


def test_the_page_says_when_it_was_made(report: dict[str, Any]) -> None:
    assert "single-label · 77 labels · 2026-03-14 09:26 UTC" in Page(render_html(report)).words


def test_the_same_report_renders_to_the_same_bytes(report: dict[str, Any], drawn_once: dict[str, str | None]) -> None:
    drawn_once.clear()
    first = render_html(report)
    drawn_once.clear()
    assert render_html(copy.deepcopy(report)) == first


def test_every_member_of_a_committee_stands_beside_the_mixture(report: dict[str, Any]) -> None:
    markdown = render_markdown(report)
    wanted = (
        "| recorded | 0.29 | 98.4 % | 80.2 % | [78.4, 82.0] | 79.8 % | [78.4, 81.2] | 81.1 % | 94.4 % |",
        "| learned weights | – | 100.0 % | 94.3 % | [93.3, 95.3] | 94.2 % | [93.3, 95.0] | 94.2 % | 94.2 % |",
    )
    for line in wanted:
        assert line.replace("[", "\\[").replace("]", "\\]") in markdown
    assert "Committee, member by member" in Page(render_html(report)).words


def test_rejected_texts_are_counted_by_reason_and_shown_with_what_was_said(report: dict[str, Any]) -> None:
    markdown = render_markdown(report)
    assert "| outside the label set |  |  | 39 |" in markdown
    assert "| outside the label set, for example | Is there a fee for that? | fees\\_and\\_charges |  |" in markdown
    assert "| no answer, for example | hello | (nothing) |  |" in markdown
    assert "| texts rejected | 43 |" in markdown


def test_small_prices_keep_their_digits_and_sources_their_texts(report: dict[str, Any]) -> None:
    markdown = render_markdown(report)
    assert "| paid for an answered text | \\$0.000081 |" in markdown
    assert "| paid for labelling | \\$0.16 |" in markdown
    assert "| 0f3c21d4a9b85e67 | Where do I see the exchange rate? | 48 |" in markdown
    assert "1,957 answers rest on 613 examples and passages." in markdown


def test_a_selection_is_described_and_its_curve_drawn_only_where_there_was_one(report: dict[str, Any]) -> None:
    assert "| texts chosen by | both |" in render_markdown(report)
    assert "Quality against teacher calls" in render_html(report)
    report["labelling"] |= {"selection": None, "curve": []}
    assert "texts chosen" not in render_markdown(report)
    page = Page(render_html(report))
    assert page.tags.count("svg") == 6
    assert "What more teacher calls were worth" not in page.words


def test_a_teacher_that_is_no_committee_has_no_members_to_show(report: dict[str, Any]) -> None:
    report["ablation"] = {"metric": "accuracy", "rows": []}
    assert "The teacher is no committee." in render_markdown(report)


def test_both_renderings_say_what_was_promised_and_what_it_came_to(report: dict[str, Any]) -> None:
    words = Page(render_html(report)).words
    for shown in ("97.0 %", "83.3 %", "98.3 % [97.8, 98.8]", "93.9 %", "$13.50"):
        assert shown in words
    assert "answered alone, test | 83.3 %" in render_markdown(report)


def test_a_promise_that_no_threshold_keeps_is_said_to_be_so(report: dict[str, Any]) -> None:
    report["abstain"] |= {"threshold": None, "coverage": 0.0, "test": None}
    assert "No threshold keeps the promise on these dev rows" in render_markdown(report)
    assert "| of them right, test | – |" in render_markdown(report)
    del report["abstain"]
    assert "The bundle promises nothing." in render_markdown(report)
