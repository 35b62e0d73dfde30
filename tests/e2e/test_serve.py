"""`distill serve` as operations know it: processes, signals, new versions, load."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import MakeBundle, corpus_rows
from tests.server_process import ServerProcess, running_server

ROOT = Path(__file__).resolve().parents[2]
TEXT = {"inputs": "my parcel has not arrived"}


@pytest.fixture(scope="module")
def deployed(make_tiny_bundle: MakeBundle, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a link to a bundle, as a deployment switches it from version to version."""
    folder = tmp_path_factory.mktemp("deployed")
    make_tiny_bundle(folder / "v1", temperature=1.0)
    (folder / "current").symlink_to("v1")
    return folder / "current"


@pytest.fixture(scope="module")
def server(deployed: Path) -> Iterator[ServerProcess]:
    token = {"POTSTILL_TOKEN": "sesame"}
    with running_server(deployed, environment=token, workers=2, watch_seconds=0, max_wait_ms=1000) as server:
        yield server


def switch(link: Path, version: str) -> None:
    """Point the link to another version in one step."""
    other = link.with_name("other")
    other.symlink_to(version)
    other.replace(link)


def ask(server: ServerProcess, method: str, path: str, content: Any = None) -> Any:
    answer = server.ask(method, path, content, {"authorization": "Bearer sesame"})
    assert answer.status in (200, 202), answer
    return answer


def wait_until(claim: Any, seconds: float = 20) -> None:
    end = time.monotonic() + seconds
    while not claim():
        assert time.monotonic() < end
        time.sleep(0.05)


def load(port: int, folder: Path, rate: float, seconds: float) -> "subprocess.Popen[str]":
    texts = folder / "texts.json"
    texts.write_text(json.dumps([text for text, _ in corpus_rows()]), encoding="utf-8")
    words = [str(ROOT / "benchmarks" / "open_loop.py"), str(port), str(rate), str(seconds), "8", str(texts)]
    return subprocess.Popen([sys.executable, *words], stdout=subprocess.PIPE, text=True)


def outcomes(generator: "subprocess.Popen[str]") -> dict[str, int]:
    found: dict[str, int] = json.loads(generator.communicate(timeout=60)[0])["outcomes"]
    return {outcome: count for outcome, count in found.items() if count}


def test_both_workers_answer_and_their_counters_are_added_up(server: ServerProcess) -> None:
    for _ in range(6):
        ask(server, "POST", "/predict", TEXT)
    time.sleep(1)  # each writes down what it counted twice a second
    lines = ask(server, "GET", "/metrics").body.decode().splitlines()
    counted = [line for line in lines if line.startswith('potstill_requests_total{endpoint="predict",status="200"}')]
    assert len(server.workers()) == 2
    assert [float(line.split()[-1]) >= 6 for line in counted] == [True]


def test_a_new_version_takes_over_in_every_worker_and_a_broken_one_in_none(
    server: ServerProcess, deployed: Path, make_tiny_bundle: MakeBundle
) -> None:
    def versions() -> set[str]:
        return {ask(server, "POST", "/predict", TEXT).headers["x-model"] for _ in range(4)}

    (old,) = versions()
    make_tiny_bundle(deployed.with_name("v2"), temperature=2.0)
    switch(deployed, "v2")
    ask(server, "POST", "/admin/reload")
    wait_until(lambda: len(found := versions()) == 1 and old not in found)
    (new,) = versions()
    make_tiny_bundle(deployed.with_name("v3"), temperature=3.0)
    (deployed.with_name("v3") / "onnx" / "model_quantized.onnx").write_bytes(b"broken")
    switch(deployed, "v3")
    server.process.send_signal(signal.SIGHUP)
    server.wait_for("is refused, the old one stays")
    wait_until(lambda: "broken" not in str(ask(server, "GET", "/info").json["models"][0]["refused"] or "broken"))
    assert versions() == {new}


def test_a_worker_that_dies_is_replaced(server: ServerProcess) -> None:
    before = server.workers()
    os.kill(before[0], signal.SIGKILL)
    wait_until(lambda: len(found := server.workers()) == 2 and found != before)  # one look: it dies between two
    assert ask(server, "POST", "/predict", TEXT).json
    assert server.wait_for(f"worker {before[0]} ended with -9")


def test_under_load_new_versions_and_a_stop_cost_no_request(make_tiny_bundle: MakeBundle, tmp_path: Path) -> None:
    for version in (1, 2):
        make_tiny_bundle(tmp_path / f"v{version}", temperature=float(version))
    (tmp_path / "current").symlink_to("v1")
    options = {"workers": 1, "watch_seconds": 0.1, "max_wait_ms": 60_000, "drain_delay_seconds": 0.2}
    with running_server(tmp_path / "current", **options) as server:
        generator = load(server.port, tmp_path, rate=100, seconds=3)
        time.sleep(0.7)
        switch(tmp_path / "current", "v2")
        server.wait_for("takes over")
        assert server.stop() == 0
        found = outcomes(generator)
    assert found.keys() <= {"200", "refused"}
    assert found["200"] > 50


def test_a_server_that_is_told_to_stop_says_so_before_it_stops_accepting(tiny_bundle: Path) -> None:
    with running_server(tiny_bundle, workers=1, drain_delay_seconds=2) as server:
        assert server.ask("GET", "/v2/health/ready").status == 200
        server.process.send_signal(signal.SIGTERM)
        wait_until(lambda: server.ask("GET", "/v2/health/ready").status == 503)
        answer = server.ask("POST", "/predict", TEXT)
        assert (answer.status, answer.headers["connection"]) == (200, "close")
        assert server.process.wait(30) == 0


def test_a_port_that_is_taken_is_said_in_one_line(server: ServerProcess, tiny_bundle: Path) -> None:
    command = [sys.executable, "-m", "distill", "serve", str(tiny_bundle), "--port", str(server.port)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    assert (done.returncode, "cannot listen there" in done.stderr) == (1, True)
