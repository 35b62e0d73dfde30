from typing import Any

import pytest

from export.report_plan import rewrites_table, variants_table

REPORT: dict[str, Any] = {
    "export": {
        "variant": "dynamic_int8",
        "rewrites": [
            {"name": "packed_projections", "applied": True, "change": 3e-06, "reason": ""},
            {"name": "first_position_only", "applied": False, "change": 0.01, "reason": "changes a logit by 0.01"},
        ],
        "variants": [
            {
                "name": "static_int8",
                "mean_ms": 0.51,
                "ratio": {"estimate": 0.981, "low": 0.95, "high": 1.02},
                "tokens": [9, 13],
                "p50_ms": [0.41, 0.61],
                "bytes": 9e6,
                "passed": False,
                "reason": "kl_divergence",
            },
            {"name": "dynamic_int8", "mean_ms": 0.52, "tokens": [9, 13], "p50_ms": [0.4, 0.64], "passed": True},
            {"name": "block_int8", "reason": "cannot be quantized"},
        ],
    }
}


def test_a_rewrite_that_was_left_out_says_why() -> None:
    rows = rewrites_table(REPORT).rows
    assert rows[0][:2] == ("packed projections", "applied")
    assert rows[1][1:3] == ("left out", "changes a logit by 0.01")


def test_variants_are_told_with_their_times_at_the_lengths_of_the_corpus() -> None:
    table = variants_table(REPORT)
    assert table.columns[5:7] == ("9 tokens", "13 tokens")
    ratio = "0.981 [0.95, 1.02]"
    wanted = ("static int8", "FAILED", "kl_divergence", ratio, "0.51 ms", "0.41 ms", "0.61 ms", "9.0 MB")
    assert table.rows[0] == wanted
    assert table.rows[1][1] == "passed"
    assert table.rows[2][1:3] == ("not judged", "cannot be quantized")
    assert {len(row) for row in table.rows} == {len(table.columns)}
    assert table.note.startswith("Shipped: dynamic int8.")


@pytest.mark.parametrize(("is_sound", "ends_with"), [(True, "timed twice."), (False, "so the preset comes first.")])
def test_times_of_a_machine_that_was_too_busy_say_so(is_sound: bool, ends_with: str) -> None:
    timing = {"is_sound": is_sound, "control": {"estimate": 1.04, "low": 0.9, "high": 1.2}}
    note = variants_table({"export": {**REPORT["export"], "timing": timing}}).note
    assert "The preset took 1.04 [0.9, 1.2] of its own time" in note
    assert note.endswith(ends_with)


@pytest.mark.parametrize("report", [{}, {"export": {}}, {"export": {"variant": "fp32", "variants": []}}])
def test_a_report_of_before_has_empty_tables_that_say_so(report: dict[str, Any]) -> None:
    assert rewrites_table(report).note == "The graph is as it was traced."
    assert variants_table(report).note == "No variant was built."
