"""R13 and R14 of the fault list in small; `benchmarks/faults.py` runs them in full."""

import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.conftest import corpus_rows
from tests.serving import LocalServer, local_server

sys.path.append(str(Path(__file__).resolve().parents[2] / "benchmarks"))

from fuzz import Sampler
from open_loop import Generator, build_request

SOUND = b'{"inputs": ["my parcel is late", "hello"], "truncate": true, "details": false}'


@pytest.fixture(scope="module")
def server(tiny_bundle: Path) -> Iterator[LocalServer]:
    with local_server({"fuzz": tiny_bundle}) as server:
        yield server


def test_no_request_that_the_description_suggests_is_a_fault_of_the_server(
    server: LocalServer,
) -> None:
    document = server.ask("GET", "/openapi.json").json
    sampler, statuses = Sampler(document, seed=1), Counter[int]()
    for path, operations in document["paths"].items():
        for method, operation in operations.items():
            for _ in range(40 if "requestBody" in operation else 4):
                real_path, headers, body = sampler.request(path, operation)
                statuses[server.ask(method.upper(), real_path, body, **headers).status] += 1
    assert statuses.keys() <= {200, 400, 403, 404, 413, 422, 504}
    assert statuses[200] > 20


def test_no_body_is_a_fault_of_the_server(server: LocalServer) -> None:
    sampler = Sampler({}, seed=1)
    paths = ("/predict", "/v2/models/fuzz/infer")
    statuses = Counter(server.ask("POST", paths[number % 2], sampler.raw(SOUND)).status for number in range(150))
    assert statuses.keys() <= {200, 400, 413, 422}


def test_a_flood_is_answered_or_told_when_to_come_back(tiny_bundle: Path) -> None:
    requests = [build_request(text) for text, _ in corpus_rows()]
    with local_server({"shop": tiny_bundle}, max_wait_ms=0.2) as server:
        generator = Generator(server.port, 32, requests)
        generator.run(rate=0, seconds=1)
    outcomes = {outcome: count for outcome, count in generator.outcomes.items() if count}
    assert outcomes.keys() == {"200", "429"}
