import json
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from export.runtime import Predictor
from tests.serving import LocalServer, local_server

TEXT, OTHER = "my parcel has not arrived", "the invoice shows two amounts"
LONG = "my parcel is late again " * 40
TENSOR = {"name": "text", "shape": [2], "datatype": "BYTES", "data": [TEXT, OTHER]}


@pytest.fixture(scope="module")
def server(tiny_bundle: Path) -> Iterator[LocalServer]:
    limits = {"max_texts": 4, "max_characters": 2000, "max_body_bytes": 5000}
    with local_server({"shop": tiny_bundle, "other": tiny_bundle}, **limits) as server:
        yield server


@pytest.fixture(scope="module")
def predictor(tiny_bundle: Path) -> Predictor:
    return Predictor.load(tiny_bundle)


def test_one_text_gets_a_list_of_labels_with_the_scores_of_the_runtime_best_first(
    server: LocalServer, predictor: Predictor
) -> None:
    scores = server.predict(TEXT).json
    assert {each["label"]: each["score"] for each in scores} == predictor.predict(TEXT)[0].probabilities
    assert [each["score"] for each in scores] == sorted((each["score"] for each in scores), reverse=True)


@pytest.mark.parametrize("inputs", [[TEXT, OTHER], [[TEXT], [OTHER]], [TEXT, [OTHER]]])
def test_a_batch_gets_a_list_of_lists_and_each_text_the_answer_it_gets_alone(server: LocalServer, inputs: Any) -> None:
    assert server.predict(inputs).json == [server.predict(TEXT).json, server.predict(OTHER).json]


def test_raw_scores_are_the_logits(server: LocalServer, predictor: Predictor) -> None:
    logits = predictor.run(predictor.encode([TEXT])).logits[0]
    raw = {each["label"]: each["score"] for each in server.predict(TEXT, raw_scores=True).json}
    assert [raw[label] for label in predictor.manifest.labels] == pytest.approx(logits.tolist())


def test_details_say_label_probability_truncated_tokens_and_model(server: LocalServer, predictor: Predictor) -> None:
    found, wanted = server.predict(LONG, details=True).json, predictor.predict(LONG)[0]
    assert (found["label"], found["labels"], found["source"]) == (wanted.label, [wanted.label], "student")
    assert (found["truncated"], found["tokens"], found["model"]) == (True, 32, predictor.manifest.digest)
    assert found["probability"] == pytest.approx(wanted.probability)


def test_headers_carry_what_the_shape_has_no_place_for_and_stage_times_on_request(server: LocalServer) -> None:
    plain = server.predict([TEXT, LONG])
    assert (plain.headers["x-truncated"], len(plain.headers["x-model"])) == ("1", 64)
    assert "x-run-ms" not in plain.headers
    timed = server.ask("POST", "/predict", {"inputs": TEXT}, x_timings="1")
    assert float(timed.headers["x-run-ms"]) > 0
    assert {"x-tokenize-ms", "x-queue-ms", "x-decide-ms"} <= timed.headers.keys()


def test_a_long_text_is_refused_where_truncation_is_not_wanted(server: LocalServer) -> None:
    refused = server.predict([TEXT, LONG], truncate=False)
    assert (refused.status, refused.json["error_type"]) == (413, "too_large")
    assert "text 1 has more than the 32 tokens" in refused.json["error"]
    assert server.predict(LONG, truncate=True).status == 200


@pytest.mark.parametrize(
    ("content", "status", "words"),
    [
        (b"{", 400, "no JSON"),
        (b"\xff\xfe", 400, "no JSON"),
        (b'{"inputs": "\\ud800"}', 400, "no JSON"),
        ({"input": "a"}, 422, '"inputs"'),
        ([], 422, '"inputs"'),
        ({"inputs": []}, 422, "not empty"),
        ({"inputs": [["a", "b"]]}, 422, "list of strings"),
        ({"inputs": "a", "truncate": 1}, 422, "truncate: wanted true or false"),
        ({"inputs": "a", "modle": "shop"}, 422, "found 'modle'"),
        ({"inputs": "a", "truncation_direction": "Left"}, 422, "wanted Right"),
        ({"inputs": "a", "model": "none"}, 404, "wanted one of: shop, other"),
        ({"inputs": ["a"] * 5}, 413, "wanted at most 4"),
        ({"inputs": "a" * 2001}, 413, "wanted at most 2000"),
        ({"inputs": "a" * 5001}, 413, "wanted at most 5000"),
    ],
)
def test_what_is_wrong_with_a_request_is_said_in_one_shape(
    server: LocalServer, content: Any, status: int, words: str
) -> None:
    refused = server.ask("POST", "/predict", content)
    assert (refused.status, set(refused.json)) == (status, {"error", "error_type"})
    assert words in refused.json["error"]


def test_a_body_is_refused_while_it_arrives_when_it_grows_too_long(server: LocalServer) -> None:
    with socket.create_connection(("127.0.0.1", server.port), timeout=10) as connection:
        connection.sendall(b"POST /predict HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n")
        connection.sendall(b"1388\r\n" + b"a" * 5000 + b"\r\n")
        connection.sendall(b"5\r\n" + b"a" * 5 + b"\r\n")  # no last chunk: the server must not wait for it
        assert connection.recv(4096).startswith(b"HTTP/1.1 413 ")


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [("GET", "/predict", 405), ("GET", "/nothing", 404), ("DELETE", "/info", 405), ("GET", "/../etc/passwd", 404)],
)
def test_the_framework_refuses_in_the_same_shape(server: LocalServer, method: str, path: str, status: int) -> None:
    refused = server.ask(method, path)
    assert (refused.status, set(refused.json)) == (status, {"error", "error_type"})


@pytest.mark.parametrize(("given", "status"), [("0", 504), ("60000", 200), ("soon", 400), ("-1", 400)])
def test_the_deadline_of_a_request_is_honoured(server: LocalServer, given: str, status: int) -> None:
    assert server.ask("POST", "/predict", {"inputs": TEXT}, x_timeout_ms=given).status == status


def test_inference_v2_answers_with_tensors(server: LocalServer, predictor: Predictor) -> None:
    answer = server.ask("POST", "/v2/models/shop/infer", {"id": "7", "inputs": [TENSOR]}).json
    outputs = {each["name"]: each for each in answer["outputs"]}
    wanted = predictor.predict(TEXT)[0]
    assert (answer["id"], answer["model_name"], answer["model_version"]) == ("7", "shop", predictor.manifest.digest)
    assert (outputs["label"]["datatype"], outputs["label"]["shape"]) == ("BYTES", [2])
    assert outputs["label"]["data"][0] == wanted.label
    assert outputs["probability"]["data"][0] == pytest.approx(wanted.probability)


def test_inference_v2_returns_the_outputs_that_were_asked_for(server: LocalServer, predictor: Predictor) -> None:
    wanted = [{"name": "probabilities"}, {"name": "decided"}]
    path = f"/v2/models/other/versions/{predictor.manifest.digest}/infer"
    probabilities, decided = server.ask("POST", path, {"inputs": [TENSOR], "outputs": wanted}).json["outputs"]
    assert probabilities["shape"] == decided["shape"] == [2, 3]
    assert probabilities["data"][:3] == pytest.approx([*predictor.predict(TEXT)[0].probabilities.values()], abs=1e-6)
    assert sum(decided["data"]) == 2


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"shape": [3]}, "wanted [2]"),
        ({"shape": [True, 2]}, "wanted [2]"),
        ({"datatype": "FP32"}, "datatype BYTES"),
        ({"name": "ids"}, "name text"),
        ({"data": [1, 2]}, "list of strings"),
    ],
)
def test_a_tensor_that_is_no_list_of_texts_is_refused(server: LocalServer, changes: Any, words: str) -> None:
    refused = server.ask("POST", "/v2/models/shop/infer", {"inputs": [{**TENSOR, **changes}]})
    assert refused.status == 400
    assert words in refused.json["error"]


def test_binary_tensors_are_refused_and_unknown_outputs_named(server: LocalServer) -> None:
    path, content = "/v2/models/shop/infer", {"inputs": [TENSOR]}
    binary = server.ask("POST", path, content, inference_header_content_length="10")
    unknown = server.ask("POST", path, {**content, "outputs": [{"name": "scores"}]})
    assert "binary" in binary.json["error"]
    assert "probabilities" in unknown.json["error"]


def test_v2_tells_health_and_metadata(server: LocalServer, predictor: Predictor) -> None:
    assert server.ask("GET", "/v2/health/live").json == {"live": True}
    assert server.ask("GET", "/v2/health/ready").json == {"ready": True}
    assert server.ask("GET", "/v2").json["name"] == "potstill"
    assert server.ask("GET", "/v2/models/shop/ready").json == {"name": "shop", "ready": True}
    about = server.ask("GET", "/v2/models/shop").json
    assert (about["versions"], about["inputs"][0]["datatype"]) == ([predictor.manifest.digest], "BYTES")
    assert server.ask("GET", "/v2/models/none").status == 404
    assert server.ask("GET", "/v2/models/shop/versions/1").status == 404


def test_info_tells_limits_and_versions(server: LocalServer, predictor: Predictor) -> None:
    about = server.ask("GET", "/info").json
    assert about["max_client_batch_size"] == 4
    assert [each["name"] for each in about["models"]] == ["shop", "other"]
    assert about["models"][0]["model"] == predictor.manifest.digest


def test_metrics_count_requests_texts_and_cuts(server: LocalServer) -> None:
    def read(name: str) -> float:
        lines = server.ask("GET", "/metrics").body.decode().splitlines()
        return sum(float(line.split()[-1]) for line in lines if line.startswith(name))

    names = ('potstill_requests_total{endpoint="predict",status="200"}', "potstill_texts_total{", "potstill_truncated")
    before = [read(name) for name in names]
    server.predict([TEXT, OTHER, LONG])
    assert [read(name) - was for name, was in zip(names, before, strict=True)] == [1, 3, 1]
    assert read("potstill_request_seconds_bucket") > 0


def test_the_description_holds_every_endpoint(server: LocalServer) -> None:
    schema = server.ask("GET", "/openapi.json").json
    assert {"/predict", "/info", "/metrics", "/v2/models/{name}/infer", "/v2/health/ready"} <= schema["paths"].keys()
    assert "#/components/schemas/PredictRequest" in json.dumps(schema["paths"]["/predict"])
    assert {"PredictRequest", "InferRequest", "ErrorBody"} <= schema["components"]["schemas"].keys()


def test_a_server_with_a_token_answers_only_who_brings_it(tiny_bundle: Path) -> None:
    with local_server({"shop": tiny_bundle}, token="open sesame") as server:
        for wrong in ({}, {"authorization": "Bearer open"}, {"authorization": "open sesame"}):
            refused = server.ask("POST", "/predict", {"inputs": TEXT}, **wrong)
            assert (refused.status, refused.headers["www-authenticate"]) == (401, "Bearer")
            assert server.ask("GET", "/info", **wrong).status == 401
            assert server.ask("GET", "/v2/health/ready", **wrong).status == 200
        right = {"authorization": "Bearer open sesame"}
        assert server.ask("POST", "/predict", {"inputs": TEXT}, **right).status == 200
        assert server.ask("POST", "/admin/reload", **right).status == 202


def test_without_a_token_nobody_makes_the_server_reload(server: LocalServer) -> None:
    assert server.ask("POST", "/admin/reload").status == 403
