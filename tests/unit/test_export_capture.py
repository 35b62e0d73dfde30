"""Facts about the texts that a running server keeps for the next training."""

import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.scripted_teacher import scripted
from tests.serving import local_server

TEXTS = [f"my parcel number {number} is late" for number in range(40)]


def captured(folder: Path) -> list[dict[str, Any]]:
    return [
        json.loads(line) for path in sorted(folder.glob("*.captured.jsonl")) for line in path.open(encoding="utf-8")
    ]


def capture(
    bundle: Path, folder: Path, texts: list[str], doubt: dict[str, Any], **settings: Any
) -> list[dict[str, Any]]:
    """Serve with `doubt` and `settings` of the capture, ask for `texts`, and return what was kept."""
    path = folder / "doubt.yaml"
    path.write_text(yaml.safe_dump({"threshold": 1.0, **doubt, "capture": {"folder": "kept", **settings}}))
    with local_server({"shop": bundle}, doubt=path) as client:
        client.predict(texts)
    return captured(folder / "kept")


def test_doubtful_texts_are_kept_with_what_was_answered(tiny_bundle: Path, tmp_path: Path) -> None:
    rows = capture(tiny_bundle, tmp_path, TEXTS, {"below": "answer"})
    assert [row["text"] for row in rows] == TEXTS
    assert {row["answered_by"] for row in rows} == {"student"}
    assert {row["answer"] for row in rows} <= {"delivery", "payment", "size"}
    assert all(0.5 <= row["certainty"] < 1 and len(row["model"]) == 64 for row in rows)


def test_a_teachers_answer_is_kept_as_the_teachers(tiny_bundle: Path, tmp_path: Path) -> None:
    with scripted(lambda path, content: (200, [{"label": "size", "score": 1.0}])) as teacher:
        below = {"below": "teacher", "teacher": {"url": teacher.url, "budget_calls": 1}}
        rows = capture(tiny_bundle, tmp_path, TEXTS[:2], below)
    assert sorted(row["answered_by"] for row in rows) == ["student", "teacher"]
    assert next(row["answer"] for row in rows if row["answered_by"] == "teacher") == "size"


def test_a_text_that_is_certain_enough_is_not_kept(tiny_bundle: Path, tmp_path: Path) -> None:
    assert capture(tiny_bundle, tmp_path, TEXTS, {"below": "answer", "threshold": 0.0}) == []


def test_a_sample_holds_about_its_share_and_the_same_texts_every_time(tiny_bundle: Path, tmp_path: Path) -> None:
    (tmp_path / "one").mkdir()
    (tmp_path / "two").mkdir()
    first = capture(tiny_bundle, tmp_path / "one", TEXTS, {}, share=0.5)
    second = capture(tiny_bundle, tmp_path / "two", TEXTS[::-1], {}, share=0.5)
    assert 10 < len(first) < 30
    assert {row["text"] for row in first} == {row["text"] for row in second}


def test_no_more_bytes_are_kept_than_allowed_over_restarts_too(tiny_bundle: Path, tmp_path: Path) -> None:
    for _ in range(2):
        rows = capture(tiny_bundle, tmp_path, TEXTS, {}, max_bytes=2000)
        held = sum(path.stat().st_size for path in (tmp_path / "kept").iterdir())
        assert 1500 < held <= 2000
    assert 0 < len(rows) < len(TEXTS)


def test_a_redaction_sees_every_text_before_the_disk_does(tiny_bundle: Path, tmp_path: Path) -> None:
    texts = ["card 1234 was declined", "a secret", "the hat"]
    rows = capture(tiny_bundle, tmp_path, texts, {}, redact="tests.redactions:mask_digits")
    assert [row["text"] for row in rows] == ["card #### was declined", "the hat"]


def test_a_text_on_which_the_redaction_fails_is_not_kept(tiny_bundle: Path, tmp_path: Path) -> None:
    assert capture(tiny_bundle, tmp_path, TEXTS[:3], {}, redact="tests.redactions:fail") == []


@pytest.mark.parametrize("doubt", [{}, {"below": "answer"}])
def test_capturing_changes_no_answer(tiny_bundle: Path, tmp_path: Path, doubt: dict[str, Any]) -> None:
    found = []
    for extra in ({}, {"capture": {"folder": "kept"}}):
        path = tmp_path / "doubt.yaml"
        path.write_text(yaml.safe_dump({"threshold": 1.0, **doubt, **extra}))
        with local_server({"shop": tiny_bundle}, doubt=path) as client:
            found.append(client.predict(TEXTS[:3], details=True).json)
    assert found[0] == found[1]
