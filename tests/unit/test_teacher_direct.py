import socket
import threading
from contextlib import suppress
from pathlib import Path

import pytest

from teacher.completion import Completion, CompletionRequest, Failure
from teacher.endpoint import Endpoint
from teacher.errors import BudgetError, EndpointError
from teacher.paid import PaidAnswers
from tests.fault_server import CODES, FAULTS, FaultServer, Serve
from tests.labeller import mock_spec, open_endpoint, requests


def test_equal_requests_are_paid_once(serve: Serve, paid: PaidAnswers) -> None:
    server = serve()
    outcomes = open_endpoint(server, paid).complete(requests(3) * 4)
    assert len(outcomes) == 12
    assert server.counts()["paid"] == 3


@pytest.mark.parametrize(("most", "is_refused", "calls"), [(100, False, 1), (2, False, 3), (1, False, 5), (9, True, 5)])
def test_samples_are_complete_also_where_a_call_gives_fewer(
    serve: Serve, paid: PaidAnswers, most: int, is_refused: bool, calls: int
) -> None:
    server = serve(most_samples=most, refuses_samples=is_refused)
    request = CompletionRequest(({"role": "user", "content": "x"},), 1, temperature=0.7, samples=5)
    (answer,) = open_endpoint(server, paid).complete([request])
    assert isinstance(answer, Completion)
    assert len(answer.texts) == 5
    assert server.counts()["paid"] == calls
    assert paid.spent_usd == pytest.approx(answer.cost_usd)


def test_an_endpoint_that_wants_the_other_name_of_the_token_limit_gets_it(serve: Serve, paid: PaidAnswers) -> None:
    outcomes = open_endpoint(serve(limit_name="max_completion_tokens"), paid).complete(requests(3))
    assert all(isinstance(each, Completion) for each in outcomes)


@pytest.mark.parametrize("kind", [kind for kind in FAULTS if kind != "outside the label set"])
def test_a_fault_that_passes_ends_in_an_answer(serve: Serve, paid: PaidAnswers, kind: str) -> None:
    server = serve(faults=0.5, kinds=[kind], hang=1.0)
    outcomes = open_endpoint(server, paid, timeout_seconds=0.3, attempts=20).complete(requests(12))
    assert server.counts()["injected"][kind] > 0
    assert all(isinstance(each, Completion) and each.texts[0] in CODES for each in outcomes)


@pytest.mark.parametrize(("kind", "reason"), [("cut JSON", "cut or malformed answer"), ("empty", "empty answer")])
def test_answers_that_stay_unusable_are_rejected_with_what_came_and_are_paid(
    serve: Serve, paid: PaidAnswers, kind: str, reason: str
) -> None:
    server = serve(faults=1.0, kinds=[kind])
    outcomes = open_endpoint(server, paid, attempts=3).complete(requests(2))
    assert [each.reason for each in outcomes if isinstance(each, Failure)] == [reason] * 2
    assert all(each.raw.startswith('{"id"') for each in outcomes if isinstance(each, Failure))
    assert server.counts()["paid"] == 6
    assert paid.spent_usd >= server.usd * 0.999
    assert paid.reserved_usd == pytest.approx(0)


def test_thirty_percent_of_ten_faults_leave_every_row_with_an_outcome_and_no_wrong_one(
    serve: Serve, paid: PaidAnswers
) -> None:
    server = serve(faults=0.3, hang=1.0)
    asked = requests(200)
    outcomes = open_endpoint(server, paid, timeout_seconds=0.3).complete(asked)
    truth = FaultServer()
    for request, outcome in zip(asked, outcomes, strict=True):
        body = {"messages": list(request.messages), "model": "tiny"}
        right = truth._reply(body)["choices"][0]["message"]["content"]
        assert isinstance(outcome, Completion)
        assert outcome.texts[0] in (right, "I would rather not say.")
    counts = server.counts()
    assert set(counts["injected"]) == set(FAULTS)
    assert counts["usd"] <= 1.35 * counts["usd"] / counts["paid"] * len(asked)


def test_calls_slow_down_to_what_the_endpoint_takes(serve: Serve, paid: PaidAnswers) -> None:
    server = serve(at_once=3, latency=0.005)
    outcomes = open_endpoint(server, paid, attempts=50).complete(requests(100))
    assert all(isinstance(each, Completion) for each in outcomes)
    assert sum(server.injected.values()) < 100


@pytest.mark.parametrize("share", [0.05, 0.6, 0.999])
def test_a_budget_is_never_passed_and_more_of_it_goes_on_where_it_stopped(
    serve: Serve, tmp_path: Path, share: float
) -> None:
    server, rows = serve(latency=0.001), requests(60)
    with PaidAnswers(tmp_path / "whole.sqlite") as paid:
        open_endpoint(server, paid).complete(rows)
    whole, server.usd = server.usd, 0.0
    with PaidAnswers(tmp_path / "paid.sqlite", share * whole) as paid:
        with pytest.raises(BudgetError, match="--budget-usd"):
            open_endpoint(server, paid).complete(rows)
        assert paid.spent_usd == pytest.approx(server.usd)
        assert server.usd <= share * whole
    with PaidAnswers(tmp_path / "paid.sqlite", 2 * whole) as paid:
        assert len(open_endpoint(server, paid).complete(rows)) == 60
    assert server.usd == pytest.approx(whole)


def test_no_call_is_made_with_a_budget_of_nothing(serve: Serve, tmp_path: Path) -> None:
    server = serve()
    with PaidAnswers(tmp_path / "paid.sqlite", 0.0) as paid, pytest.raises(BudgetError):
        open_endpoint(server, paid).complete(requests(5))
    assert server.counts()["asked"] == 0


def test_an_endpoint_that_goes_away_stops_the_run_and_keeps_what_is_paid(serve: Serve, paid: PaidAnswers) -> None:
    server = serve()
    endpoint = open_endpoint(server, paid, attempts=2)
    endpoint.complete(requests(5))
    server.settings.faults, server.settings.kinds = 1.0, ["503"]
    with pytest.raises(EndpointError, match=r"row after row.*what is paid is kept.*run the same command again"):
        endpoint.complete(requests(200))
    assert server.counts()["asked"] < 5 + 2 * 60
    server.settings.faults = 0.0
    assert all(isinstance(each, Completion) for each in endpoint.complete(requests(20)))
    assert server.counts()["most_paid"] == 1


@pytest.mark.parametrize(
    ("refuses", "reason", "is_billed"), [(True, "no connection", False), (False, "connection lost", True)]
)
def test_a_call_counts_as_paid_only_when_it_may_have_reached_the_endpoint(
    paid: PaidAnswers, refuses: bool, reason: str, is_billed: bool
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listening:
        port = listening.getsockname()[1]
        if refuses:
            listening.close()
        else:
            threading.Thread(target=_hang_up, args=(listening,), daemon=True).start()
        spec = mock_spec(f"http://127.0.0.1:{port}/v1", paid.path.parent, attempts=1)
        with pytest.raises(EndpointError, match=reason):
            Endpoint(spec, paid, patience_seconds=0.001).complete(requests(1))
    assert (paid.spent_usd > 0) == is_billed
    assert paid.reserved_usd == pytest.approx(0)


def _hang_up(listening: socket.socket) -> None:
    with suppress(OSError):
        while True:
            connection, _ = listening.accept()
            connection.recv(1 << 16)
            connection.close()
