"""Labelling that is killed or interrupted pays for no acknowledged answer twice."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from teacher.completion import Completion
from teacher.endpoint import Endpoint
from teacher.paid import PaidAnswers
from tests.fault_server import FaultServer, Serve
from tests.labeller import mock_spec, requests

LIMIT_SECONDS = 120.0


@pytest.mark.parametrize("sent", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_process_commits_the_calls_under_way_and_prints_how_to_go_on(
    serve: Serve, tmp_path: Path, sent: signal.Signals
) -> None:
    server = serve(latency=0.1)
    child = start_labeller(server, tmp_path)
    wait_for(child, tmp_path, 20)
    child.send_signal(sent)
    said = child.communicate(timeout=LIMIT_SECONDS)[1]
    assert child.returncode == 130, said
    assert f"resume with: distill ask {server.url}" in said
    with PaidAnswers(tmp_path / "paid.sqlite") as paid:
        assert paid.spending()[0].answers == server.counts()["paid"]
        assert paid.spent_usd == pytest.approx(server.usd)


def test_a_killed_process_loses_no_acknowledged_answer_and_pays_at_most_its_calls_again(
    serve: Serve, tmp_path: Path
) -> None:
    server = serve(latency=0.02)
    child = start_labeller(server, tmp_path)
    wait_for(child, tmp_path, 100)
    child.kill()
    child.communicate()
    acknowledged = set((tmp_path / "acknowledged").read_text().split())
    with PaidAnswers(tmp_path / "paid.sqlite") as paid:
        paid.check()
        assert all(paid.find(key) is not None for key in acknowledged)
        outcomes = Endpoint(mock_spec(server.url, tmp_path), paid).complete(requests(200))
        assert all(isinstance(each, Completion) for each in outcomes)
        assert paid.spending()[0].answers == 200
    assert server.counts()["paid"] <= 200 + 16


def start_labeller(server: FaultServer, folder: Path) -> subprocess.Popen[str]:
    """Start a process that asks for a thousand answers."""
    root = Path(__file__).parents[2]
    return subprocess.Popen(
        [sys.executable, str(root / "tests" / "labeller.py"), "ask", server.url, str(folder), "1000"],
        env=os.environ | {"PYTHONPATH": str(root)},
        stderr=subprocess.PIPE,
        text=True,
        # A suite started in the background inherits a SIGINT that is ignored.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # noqa: PLW1509
    )


def wait_for(child: subprocess.Popen[str], folder: Path, answers: int) -> None:
    """Wait until the process was told of so many commits."""
    witness, give_up = folder / "acknowledged", time.monotonic() + LIMIT_SECONDS
    while not witness.exists() or witness.stat().st_size < 65 * answers:
        assert child.poll() is None, child.communicate()[1]
        assert time.monotonic() < give_up
        time.sleep(0.005)
