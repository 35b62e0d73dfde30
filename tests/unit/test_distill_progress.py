"""Reporters: what a person and what a machine reads."""

import io
import json
from collections.abc import Callable

import pytest

from distill.progress import BarReporter, JsonReporter, PlainReporter, SilentReporter, make_reporter


def stepping_clock(seconds: float) -> Callable[[], float]:
    """Return a clock that moves on by `seconds` at each reading."""
    now = -seconds

    def clock() -> float:
        nonlocal now
        now += seconds
        return now

    return clock


def test_plain_progress_names_rows_speed_and_time_left() -> None:
    stream = io.StringIO()
    with PlainReporter(stream, stepping_clock(10.0)).track("label", 100) as update:
        update(50)
    first, last = stream.getvalue().splitlines()
    assert first.startswith("label: 50 of 100 rows, ")
    assert " rows/s, " in first
    assert first.endswith(" left")
    assert last.startswith("label: 50 rows in ")


def test_plain_progress_stays_quiet_between_its_lines() -> None:
    stream = io.StringIO()
    with PlainReporter(stream, stepping_clock(0.001)).track("label", 100) as update:
        for _ in range(100):
            update(1)
    assert stream.getvalue().splitlines() == ["label: 100 rows in 0.1 s"]


def test_progress_of_an_unknown_total_states_no_time_left() -> None:
    stream = io.StringIO()
    with PlainReporter(stream, stepping_clock(10.0)).track("predict", None) as update:
        update(5)
    assert "left" not in stream.getvalue()
    assert "5 rows" in stream.getvalue()


def test_a_stage_that_fails_reports_no_end() -> None:
    stream = io.StringIO()
    with pytest.raises(ValueError, match="broken"), PlainReporter(stream).track("label", 1):
        raise ValueError("broken")
    assert stream.getvalue() == ""


def test_every_json_line_is_an_object_with_a_time() -> None:
    stream = io.StringIO()
    reporter = JsonReporter(stream, stepping_clock(10.0))
    reporter.say("the teacher is good\nenough", accuracy=0.9)
    with reporter.track("label", 4) as update:
        update(4)
    lines = [json.loads(line) for line in stream.getvalue().splitlines()]
    assert all("time" in line for line in lines)
    assert lines[0]["accuracy"] == 0.9
    assert (lines[1]["finished"], lines[2]["finished"]) == (False, True)
    assert lines[2]["rows"] == 4


def test_only_the_first_process_of_a_distributed_run_speaks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RANK", "1")
    assert isinstance(make_reporter("json"), SilentReporter)
    monkeypatch.setenv("RANK", "0")
    assert isinstance(make_reporter("json"), JsonReporter)


def test_without_a_terminal_progress_is_plain(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("RANK", raising=False)
    assert isinstance(make_reporter(), PlainReporter)


def test_a_terminal_shows_a_bar_where_an_extra_brought_rich_and_plain_lines_elsewhere(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delenv("RANK", raising=False)
    monkeypatch.setattr("sys.stderr.isatty", lambda: True)
    assert isinstance(make_reporter(), BarReporter)
    monkeypatch.setattr("distill.progress.find_spec", lambda name: None)
    assert isinstance(make_reporter(), PlainReporter)


def test_the_bar_writes_to_stderr_and_survives_nested_stages(capsys: pytest.CaptureFixture[str]) -> None:
    reporter = BarReporter()
    with reporter.track("train", 2) as outer, reporter.track("evaluate", None) as inner:
        reporter.say("half [way]")
        inner(3)
        outer(2)
    captured = capsys.readouterr()
    assert "half [way]" in captured.err
    assert captured.out == ""
