"""Facts about doubtful texts in a running server: real HTTP to it, and from it to a teacher."""

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from msgspec.structs import replace

from export.bundle import read_manifest
from export.doubt import check_doubt
from export.doubt_settings import CaptureSettings, DoubtSettings, TeacherSettings, read_doubt
from export.errors import BundleError, ExportError
from export.runtime import Predictor
from export.selective import Abstention
from tests.scripted_teacher import ScriptedTeacher, scripted
from tests.serving import local_server

TEXT = "my parcel is late again"
SURE, NEVER = 1.0, 0.0  # thresholds: all below, none below


@pytest.fixture
def teacher() -> Iterator[ScriptedTeacher]:
    """Return a teacher that calls everything a payment, in the shape of /predict."""
    scores = [{"label": "payment", "score": 0.9}, {"label": "size", "score": 0.1}]
    with scripted(lambda path, content: (200, scores)) as teacher:
        yield teacher


def write(folder: Path, **settings: Any) -> Path:
    path = folder / "doubt.yaml"
    path.write_text(yaml.safe_dump(settings), encoding="utf-8")
    return path


def asked(bundle: Path, folder: Path, inputs: Any = TEXT, **settings: Any) -> Any:
    with local_server({"shop": bundle}, doubt=write(folder, **{"threshold": SURE, **settings})) as client:
        return client.predict(inputs, details=True).json


def behind(teacher: ScriptedTeacher, **settings: Any) -> dict[str, Any]:
    return {"below": "teacher", "teacher": {"url": f"{teacher.url}/predict", **settings}}


def test_below_the_threshold_the_answer_has_no_label_and_keeps_its_probabilities(
    tiny_bundle: Path, tmp_path: Path
) -> None:
    found = asked(tiny_bundle, tmp_path)
    student = Predictor.load(tiny_bundle).predict(TEXT)[0]
    assert (found["label"], found["labels"], found["source"]) == (None, [], "abstain")
    assert found["scores"][0] == {"label": student.label, "score": pytest.approx(student.probability)}
    first, second = sorted(student.probabilities.values())[:-3:-1]
    assert found["certainty"] == pytest.approx(first / (first + second), abs=1e-6)


def test_a_client_that_knows_only_labels_reads_abstain(tiny_bundle: Path, tmp_path: Path) -> None:
    tensor = {"name": "text", "shape": [1], "datatype": "BYTES", "data": [TEXT]}
    with local_server({"shop": tiny_bundle}, doubt=write(tmp_path, threshold=SURE)) as client:
        first, *rest = client.predict(TEXT).json
        inferred = client.ask("POST", "/v2/models/shop/infer", {"inputs": [tensor]}).json["outputs"]
    assert first == {"score": 1.0, "label": "abstain"}
    assert {each["label"] for each in rest} == {"delivery", "payment", "size"}
    assert {output["name"]: output["data"] for output in inferred}["label"] == ["abstain"]


def test_above_the_threshold_the_student_answers(tiny_bundle: Path, tmp_path: Path) -> None:
    found = asked(tiny_bundle, tmp_path, threshold=NEVER)
    assert (found["label"], found["source"]) == (Predictor.load(tiny_bundle).predict(TEXT)[0].label, "student")


def test_only_the_doubtful_texts_of_a_batch_are_withheld(tiny_bundle: Path, tmp_path: Path) -> None:
    texts = [TEXT, "the bank", "hello these shoes does not fit", "well"]
    plain = asked(tiny_bundle, tmp_path, texts, below="answer")
    middle = sorted(answer["certainty"] for answer in plain)[2]
    found = asked(tiny_bundle, tmp_path, texts, threshold=middle)
    assert [one["source"] for one in found] == ["abstain" if one["certainty"] < middle else "student" for one in plain]
    assert {one["source"] for one in found} == {"abstain", "student"}


def test_a_doubtful_text_goes_to_the_teacher(tiny_bundle: Path, tmp_path: Path, teacher: ScriptedTeacher) -> None:
    found = asked(tiny_bundle, tmp_path, **behind(teacher))
    assert (found["label"], found["source"], found["probability"]) == ("payment", "teacher", 0.9)
    scores = {one["label"]: one["score"] for one in found["scores"]}
    assert scores == pytest.approx({"payment": 0.9, "size": 0.1, "delivery": 0.0})
    assert [content["inputs"] for _, _, content in teacher.seen] == [TEXT]


def test_another_server_of_ours_can_be_the_teacher(tiny_bundle: Path, tmp_path: Path) -> None:
    with local_server({"shop": tiny_bundle}) as upstream:
        settings = {"below": "teacher", "teacher": {"url": f"http://127.0.0.1:{upstream.port}/predict"}}
        found = asked(tiny_bundle, tmp_path, **settings)
    assert (found["source"], found["label"]) == ("teacher", Predictor.load(tiny_bundle).predict(TEXT)[0].label)


@pytest.mark.parametrize("said", ["Payment", '"payment".', "- payment"])
def test_a_chat_model_can_be_the_teacher(
    tiny_bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, said: str
) -> None:
    monkeypatch.setenv("CHAT_KEY", "secret")
    with scripted(lambda path, content: (200, {"choices": [{"message": {"content": said}}]})) as chat:
        settings = {"protocol": "openai", "model": "large", "url": f"{chat.url}/v1", "key_env": "CHAT_KEY"}
        found = asked(tiny_bundle, tmp_path, below="teacher", teacher=settings)
    assert (found["label"], found["source"], found["probability"]) == ("payment", "teacher", 1.0)
    path, headers, content = chat.seen[0]
    assert (path, headers["Authorization"], content["model"]) == ("/v1/chat/completions", "Bearer secret", "large")
    assert content["messages"][0]["content"].splitlines()[1:] == ["delivery", "payment", "size"]
    assert content["messages"][1] == {"role": "user", "content": TEXT}


@pytest.mark.parametrize(
    ("status", "answer"),
    [
        (500, {"error": "no"}),
        (200, b"<html>"),
        (200, []),
        (200, {"unexpected": 1}),
        (200, [{"label": "unheard of", "score": 1.0}]),
        (200, {"labels": [], "scores": [], "source": "abstain"}),
        (302, {}),
    ],
)
def test_whatever_a_teacher_does_wrong_the_students_answer_goes_out_marked(
    tiny_bundle: Path, tmp_path: Path, status: int, answer: Any
) -> None:
    with scripted(lambda path, content: (status, answer)) as broken:
        found = asked(tiny_bundle, tmp_path, **behind(broken))
    assert (found["source"], found["label"]) == ("fallback", Predictor.load(tiny_bundle).predict(TEXT)[0].label)


def test_a_teacher_that_is_late_or_gone_is_not_waited_for(tiny_bundle: Path, tmp_path: Path) -> None:
    def late(path: str, content: Any) -> tuple[int, Any]:
        time.sleep(0.5)
        return 200, []

    with scripted(late) as teacher:
        found = asked(tiny_bundle, tmp_path, **behind(teacher, timeout_ms=50))
    assert found["source"] == "fallback"
    assert asked(tiny_bundle, tmp_path, **behind(teacher))["source"] == "fallback"


def test_the_deadline_of_a_request_holds_for_the_teacher_too(tiny_bundle: Path, tmp_path: Path) -> None:
    def late(path: str, content: Any) -> tuple[int, Any]:
        time.sleep(1.0)
        return 200, []

    content = {"inputs": TEXT, "details": True}
    with scripted(late) as teacher:
        doubt = write(tmp_path, threshold=SURE, **behind(teacher, timeout_ms=60_000))
        with local_server({"shop": tiny_bundle}, doubt=doubt) as client:
            assert client.ask("POST", "/predict", content, x_timeout_ms="300").json["source"] == "fallback"


@pytest.mark.parametrize("budget", [{"budget_calls": 3}, {"budget_usd": 0.3, "usd_per_call": 0.1}])
def test_a_budget_ends_the_calls_and_not_the_answers(
    tiny_bundle: Path, tmp_path: Path, teacher: ScriptedTeacher, budget: dict[str, Any]
) -> None:
    found = asked(tiny_bundle, tmp_path, [TEXT] * 5, **behind(teacher, **budget))
    assert sorted(one["source"] for one in found) == ["fallback"] * 2 + ["teacher"] * 3
    assert len(teacher.seen) == 3


def test_no_more_calls_are_under_way_than_allowed(tiny_bundle: Path, tmp_path: Path) -> None:
    under_way: list[int] = []
    most: list[int] = []

    def slow(path: str, content: Any) -> tuple[int, Any]:
        under_way.append(1)
        most.append(len(under_way))
        time.sleep(0.05)
        under_way.pop()
        return 200, [{"label": "size", "score": 1.0}]

    with scripted(slow) as teacher:
        found = asked(tiny_bundle, tmp_path, [TEXT] * 8, **behind(teacher, concurrency=2, timeout_ms=10_000))
    assert [one["source"] for one in found] == ["teacher"] * 8
    assert max(most) == 2


def test_each_worker_has_its_share_of_the_budget() -> None:
    settings = TeacherSettings(url="http://there", budget_calls=100, budget_usd=1, usd_per_call=0.02)
    assert [settings.most_calls(workers) for workers in (1, 2, 4)] == [50, 25, 12]
    assert TeacherSettings(url="http://there").most_calls(4) is None


def test_the_sources_are_counted_and_named_in_a_header(
    tiny_bundle: Path, tmp_path: Path, teacher: ScriptedTeacher
) -> None:
    with local_server(
        {"shop": tiny_bundle}, doubt=write(tmp_path, threshold=SURE, **behind(teacher, budget_calls=1))
    ) as client:
        headers = client.predict([TEXT, TEXT]).headers
        metrics = client.ask("GET", "/metrics").body.decode()
    assert sorted(headers["x-source"].split(",")) == ["fallback", "teacher"]
    assert 'potstill_texts_total{model="shop",source="teacher"} 1.0' in metrics
    assert 'potstill_texts_total{model="shop",source="fallback"} 1.0' in metrics


def test_without_a_threshold_of_its_own_the_server_keeps_the_promise_of_the_bundle(tiny_bundle: Path) -> None:
    manifest = read_manifest(tiny_bundle)
    unproved = replace(manifest, abstain=None)
    with pytest.raises(BundleError, match="proved no threshold"):
        check_doubt(DoubtSettings(), [unproved])
    promise = Abstention(accuracy=0.9, level=0.9, threshold=0.7, coverage=0.5, rows=300)
    check_doubt(DoubtSettings(), [replace(manifest, abstain=promise)])
    check_doubt(DoubtSettings(threshold=0.5), [unproved])


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"below": "teacher"}, "want each other"),
        ({"teacher": {"url": "http://there"}}, "want each other"),
        ({"below": "teacher", "teacher": {"url": "file:///etc/passwd"}}, "teacher.url"),
        ({"below": "teacher", "teacher": {"url": "http://there", "protocol": "openai"}}, "wants a model"),
        ({"below": "teacher", "teacher": {"url": "http://there", "budget_usd": 1}}, "wants usd_per_call"),
        ({"treshold": 0.5}, "treshold"),
        ({"capture": {"folder": "there", "redact": "os"}}, "capture.redact"),
    ],
)
def test_wrong_settings_are_refused_in_one_line(tmp_path: Path, settings: dict[str, Any], said: str) -> None:
    with pytest.raises(ExportError, match=said) as caught:
        read_doubt(write(tmp_path, **settings))
    assert "\n" not in str(caught.value)


def test_the_example_in_the_repository_shows_every_setting_with_its_default() -> None:
    path = Path(__file__).parents[2] / "deploy" / "doubt.yaml"
    shown = yaml.safe_load(path.read_text(encoding="utf-8"))
    read_doubt(path)
    for found, model in (
        (shown, DoubtSettings),
        (shown["teacher"], TeacherSettings),
        (shown["capture"], CaptureSettings),
    ):
        assert list(found) == list(model.model_fields)
    for name in ("timeout_ms", "concurrency", "key_env", "instruction", "budget_calls"):
        assert shown["teacher"][name] == TeacherSettings.model_fields[name].default
    for name in ("share", "max_bytes", "redact"):
        assert shown["capture"][name] == CaptureSettings.model_fields[name].default


def test_what_a_server_would_miss_at_work_is_missed_at_its_start(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("NO_SUCH_KEY", raising=False)
    teacher = {"url": "http://there", "key_env": "NO_SUCH_KEY"}
    with pytest.raises(ExportError, match="NO_SUCH_KEY"):
        check_doubt(DoubtSettings.model_validate({"below": "teacher", "teacher": teacher}), [])
    for redact in ("no.such.module:name", "os:no_such_name", "os:name"):
        settings = DoubtSettings.model_validate({"capture": {"folder": "there", "redact": redact}})
        with pytest.raises(ExportError, match=redact):
            check_doubt(settings, [])


def test_a_detailed_answer_is_what_openapi_says(tiny_bundle: Path) -> None:
    with local_server({"shop": tiny_bundle}) as client:
        described = client.ask("GET", "/openapi.json").json["components"]["schemas"]["DetailedAnswer"]
        answer = client.predict(TEXT, details=True).json
    assert set(described["properties"]) == set(answer)
    assert answer["certainty"] is None
