"""`distill bench --full`: the whole report of a bundle, against another bundle and against PyTorch."""

import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from distill.progress import SilentReporter
from distill.speed import write_speed_report
from distill.speed_process import SpeedPlan
from export.speed_report import render_speed
from tests.conftest import corpus_rows
from tests.e2e.conftest import Outcome, Project

QUICK = SpeedPlan(restarts=2, answers=70, seconds=0.2, rates=(0.2, 0.5))
TEXTS = [text for text, _ in corpus_rows()][:35]


@pytest.fixture(scope="module")
def measured(finished: tuple[Project, Outcome], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the folder of a quick report on a bundle against its PyTorch teacher."""
    copy = finished[0].copy(tmp_path_factory.mktemp("speed"), "teacher", "bundle")
    return write_speed_report(copy.run / "bundle", copy.run / "teacher", TEXTS, QUICK, SilentReporter()).parent


@pytest.fixture(scope="module")
def report(measured: Path) -> dict[str, Any]:
    """Return what speed.json says."""
    content: dict[str, Any] = json.loads((measured / "speed.json").read_text(encoding="utf-8"))
    return content


def test_both_contenders_have_every_scenario(report: dict[str, Any]) -> None:
    assert {name: one["kind"] for name, one in report["contenders"].items()} == {
        "bundle": "bundle",
        "other": "checkpoint",
    }
    for name in ("bundle", "other"):
        assert report["single_stream"][name]["queries"] == 70
        assert set(report["single_stream"][name]["bounds_ms"]) == {"p90"}
        assert len(report["single_stream"][name]["p50_of_restarts_ms"]) == 2
        assert len(report["offline"][name]["of_restarts"]) == 2
        points = report["server"][name]["points"]
        assert sorted(point["share"] for point in points) == [0.2, 0.5]
        assert points == sorted(points, key=lambda point: point["rate"])  # a process may be half as fast as the next
    assert report["speedup"]["low"] <= report["speedup"]["estimate"] <= report["speedup"]["high"]


def test_the_report_says_what_was_measured_on_what(report: dict[str, Any]) -> None:
    assert len(report["contenders"]["bundle"]["sha256"]) == 64
    assert report["cold_start"]["bundle"]["restarts"] == 2
    assert report["machine"]["versions"]["onnxruntime"]
    assert set(report["stages"]) == {"tokenize", "model"}
    assert report["control"]["low"] <= report["control"]["high"]
    assert report["texts"]["count"] == 35


def test_the_raw_samples_are_kept(measured: Path) -> None:
    with np.load(measured / "samples.npz") as samples:
        assert {name: samples[name].shape for name in ("bundle", "other", "control")} == {
            "bundle": (2, 35),
            "other": (2, 35),
            "control": (2, 35),
        }


def test_the_page_holds_both_charts_and_no_address(measured: Path) -> None:
    page = (measured / "speed.html").read_text(encoding="utf-8")
    assert page.count("<svg") == 2
    assert re.findall(r"(?:src|href)=\"(?!#)", page) == []
    assert "://" not in page
    assert "the other (checkpoint)" in page


def test_a_control_that_does_not_hold_one_is_said_first(report: dict[str, Any]) -> None:
    page = render_speed(report | {"control": {"estimate": 1.3, "low": 1.2, "high": 1.4}})
    assert "does not hold 1" in page
    assert ">doubtful<" in page


def test_figures_that_are_absent_are_dashes() -> None:
    page = render_speed({"contenders": {"bundle": {"kind": "bundle"}}})
    assert "nan" not in page.lower()
    assert "None" not in page


def test_the_command_measures_one_bundle_against_another(
    finished: tuple[Project, Outcome], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("distill.speed_process.SpeedPlan", lambda **given: replace(QUICK, restarts=1))
    copy = finished[0].copy(tmp_path, "bundle")
    bundle = str(copy.run / "bundle")
    test = str(finished[0].folder / "test.csv")
    done = Project.call("bench", bundle, "--full", "--against", bundle, "--input", test, "--log-format", "plain")
    assert done.code == 0, done.err
    page = Path(done.out.splitlines()[-1])
    assert page == copy.run / "speed" / "speed.html"
    found = json.loads(page.with_name("speed.json").read_text(encoding="utf-8"))
    assert found["contenders"]["other"]["sha256"] == found["contenders"]["bundle"]["sha256"]


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (["--against", "BUNDLE"], "without --full"),
        (["--full", "--against", "EMPTY"], "found no bundle, teacher or classifier"),
    ],
)
def test_what_cannot_be_compared_is_refused(
    arguments: list[str], reason: str, finished: tuple[Project, Outcome], tmp_path: Path
) -> None:
    bundle = finished[0].run / "bundle"
    places = {"BUNDLE": str(bundle), "EMPTY": str(tmp_path)}
    done = Project.call("bench", str(bundle), *(places.get(one, one) for one in arguments))
    assert done.code == 2
    assert reason in done.last_line
