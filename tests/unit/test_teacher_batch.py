import threading
from pathlib import Path
from typing import Any

import pytest

from teacher.batch_book import BatchBook
from teacher.completion import Completion, CompletionRequest, Failure, completion_key
from teacher.endpoint import Endpoint
from teacher.errors import BudgetError, EndpointError
from teacher.paid import PaidAnswers
from tests.fault_server import FaultServer, Serve
from tests.labeller import mock_spec, requests


class StoppedError(Exception):
    """Stands for the end of a process."""


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Return where the file of answers is."""
    return tmp_path / "paid.sqlite"


def open_endpoint(server: FaultServer, paid: PaidAnswers, **changes: Any) -> Endpoint:
    """Return an endpoint that asks through the batch API and looks for its end all the time."""
    spec = mock_spec(server.url, paid.path.parent, transport="batch", **changes)
    return Endpoint(spec, paid, patience_seconds=0.0005)


def test_a_batch_gives_the_answers_that_calls_give_at_the_price_of_batches(serve: Serve, tmp_path: Path) -> None:
    server = serve(batch_polls=2)
    with PaidAnswers(tmp_path / "batch.sqlite") as batch, PaidAnswers(tmp_path / "direct.sqlite") as direct:
        found = open_endpoint(server, batch).complete(requests(20))
        server_usd = server.usd
        wanted = Endpoint(mock_spec(server.url, tmp_path), direct).complete(requests(20))
        assert [(each.texts, each.tokens) for each in found if isinstance(each, Completion)] == [
            (each.texts, each.tokens) for each in wanted if isinstance(each, Completion)
        ]
        assert batch.spent_usd == pytest.approx(server_usd)
        assert batch.spent_usd == pytest.approx(direct.spent_usd / 2)
        assert batch.reserved_usd == pytest.approx(0)


def test_what_one_transport_paid_the_other_finds(serve: Serve, path: Path) -> None:
    server = serve()
    with PaidAnswers(path) as paid:
        open_endpoint(server, paid).complete(requests(5))
        Endpoint(mock_spec(server.url, path.parent), paid).complete(requests(6))
    assert server.counts()["paid"] == 6


def test_rows_that_are_missing_or_failed_in_the_output_are_submitted_again(serve: Serve, path: Path) -> None:
    server, seen = serve(batch_loses=0.3, batch_fails=0.2), []
    with PaidAnswers(path) as paid:
        outcomes = open_endpoint(server, paid, attempts=20).complete(requests(40), seen.append)
    assert all(isinstance(each, Completion) for each in outcomes)
    assert server.counts()["batches"] > 1
    assert server.counts()["most_paid"] == 1
    assert sum(seen) == 40


def test_rows_that_fail_in_every_batch_are_rejected_with_a_reason(serve: Serve, path: Path) -> None:
    server = serve(batch_fails=1.0)
    with PaidAnswers(path) as paid:
        outcomes = open_endpoint(server, paid, attempts=3).complete(requests(4))
    assert [each.reason for each in outcomes if isinstance(each, Failure)] == ["status 500"] * 4
    assert server.counts()["batches"] == 3


def test_the_output_of_an_expired_batch_is_harvested_and_the_rest_submitted(serve: Serve, path: Path) -> None:
    server = serve(batch_ends=["expired"])
    with PaidAnswers(path) as paid:
        outcomes = open_endpoint(server, paid).complete(requests(10))
    assert all(isinstance(each, Completion) for each in outcomes)
    counts = server.counts()
    assert (counts["batches"], counts["paid"], counts["most_paid"]) == (2, 10, 1)


def test_samples_that_a_batch_does_not_give_are_asked_for_in_the_next(serve: Serve, path: Path) -> None:
    server = serve(most_samples=2)
    request = CompletionRequest(({"role": "user", "content": "x"},), 1, temperature=0.7, samples=5)
    with PaidAnswers(path) as paid:
        (answer,) = open_endpoint(server, paid).complete([request])
    assert isinstance(answer, Completion)
    assert len(answer.texts) == 5
    assert server.counts()["batches"] == 3


@pytest.mark.parametrize(
    ("owner", "name", "batches"),
    [
        ("teacher.batch._Desk", "_harvest", 1),  # while it waits for the batch
        ("teacher.batch_book.BatchBook", "begun", 1),  # after the provider has begun, before that is written down
        ("teacher.batch._Desk", "_begin", 1),  # before the provider is told to begin
        ("teacher.batch_book.BatchBook", "add", 1),  # after the upload
    ],
)
def test_a_process_that_comes_after_a_stopped_one_harvests_what_that_submitted(
    serve: Serve, path: Path, owner: str, name: str, batches: int
) -> None:
    server = serve()
    submit_and_stop(server, path, f"{owner}.{name}")
    with PaidAnswers(path) as paid:
        outcomes = open_endpoint(server, paid).complete(requests(12))
        assert all(isinstance(each, Completion) for each in outcomes)
        assert paid.spent_usd == pytest.approx(server.usd)
        assert paid.reserved_usd == pytest.approx(0)
    assert server.counts()["paid"] == 12
    assert server.counts()["most_paid"] == 1
    assert server.counts()["batches"] == batches + (name in ("_harvest", "begun"))


def submit_and_stop(server: FaultServer, path: Path, at: str = "teacher.batch._Desk._harvest") -> None:
    """Ask for ten answers like a process that ends when it comes to `at`."""

    def stop(*values: Any) -> None:
        raise StoppedError

    with PaidAnswers(path) as paid, pytest.MonkeyPatch.context() as patch:
        patch.setattr(at, stop)
        with pytest.raises(StoppedError):
            open_endpoint(server, paid).complete(requests(10))


def test_a_batch_submitted_before_endpoints_were_in_the_key_is_harvested_and_not_paid_again(
    serve: Serve, path: Path
) -> None:
    server = serve()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("teacher.batch.completion_key", lambda model, request, first, endpoint="": key(request, first))
        submit_and_stop(server, path)
    with PaidAnswers(path) as paid:
        outcomes = open_endpoint(server, paid).complete(requests(12))
        assert all(isinstance(each, Completion) and each.tokens for each in outcomes)
        assert all(paid.find(key(request, 0)) for request in requests(10))
        assert not any(paid.find(key(request, 0)) for request in requests(2, first=10))
        assert paid.spent_usd == pytest.approx(server.usd)
        assert paid.reserved_usd == pytest.approx(0)
    assert (server.counts()["paid"], server.counts()["most_paid"], server.counts()["batches"]) == (12, 1, 2)


def test_what_an_old_batch_did_not_answer_is_submitted_again_under_the_new_key(serve: Serve, path: Path) -> None:
    server = serve(batch_ends=["expired"])
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("teacher.batch.completion_key", lambda model, request, first, endpoint="": key(request, first))
        submit_and_stop(server, path)
    with PaidAnswers(path) as paid:
        outcomes = open_endpoint(server, paid).complete(requests(10))
        assert all(isinstance(each, Completion) for each in outcomes)
        assert sum(paid.find(key(request, 0)) is not None for request in requests(10)) == 5
    assert (server.counts()["paid"], server.counts()["most_paid"], server.counts()["batches"]) == (10, 1, 2)


def key(request: CompletionRequest, first: int) -> str:
    """Return the cache key that answers had before endpoints were part of it."""
    return completion_key("tiny", request, first)


def test_two_processes_that_harvest_one_batch_book_it_once(serve: Serve, path: Path) -> None:
    server = serve()
    submit_and_stop(server, path)
    with PaidAnswers(path) as one, PaidAnswers(path) as other:
        threads = [
            threading.Thread(target=open_endpoint(server, paid).complete, args=(requests(10),)) for paid in (one, other)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    with PaidAnswers(path) as paid:
        assert paid.spent_usd == pytest.approx(server.usd)
    assert server.counts()["paid"] == 10


def test_a_budget_bounds_what_is_submitted_and_counts_what_an_earlier_process_owes(serve: Serve, path: Path) -> None:
    server = serve()
    with PaidAnswers(path) as paid:
        endpoint = open_endpoint(server, paid)
        price = endpoint.worst_usd(requests(1)[0])
    with PaidAnswers(path, 10.5 * price) as paid:
        with pytest.raises(BudgetError, match="--budget-usd"):
            open_endpoint(server, paid).complete(requests(400))
        assert 0 < paid.spent_usd <= 10.5 * price
        book = BatchBook(paid, server.url, "tiny")
        book.add("file-of-another", ["key"], price)
    with PaidAnswers(path, 10.5 * price) as paid:
        BatchBook(paid, server.url, "tiny").open_batches()
        assert paid.reserved_usd == pytest.approx(price)


@pytest.mark.parametrize(("end", "said"), [("failed", "refused the batch"), ("cancelled", "was cancelled")])
def test_a_batch_that_the_provider_ends_is_told_and_not_submitted_again(
    serve: Serve, path: Path, end: str, said: str
) -> None:
    server = serve(batch_ends=[end])
    with PaidAnswers(path) as paid, pytest.raises(EndpointError, match=said):
        open_endpoint(server, paid).complete(requests(10))
    assert server.counts()["batches"] == 1


def test_a_provider_that_takes_fewer_tokens_at_once_gets_smaller_batches(
    serve: Serve, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("teacher.batch._MOST_ROWS", 8)
    server = serve(batch_ends=["failed:token_limit_exceeded"])
    with PaidAnswers(path) as paid:
        outcomes = open_endpoint(server, paid).complete(requests(8))
    assert all(isinstance(each, Completion) for each in outcomes)
    assert server.counts()["batches"] == 3


def test_an_endpoint_without_a_batch_api_is_told(serve: Serve, path: Path) -> None:
    with PaidAnswers(path) as paid, pytest.raises(EndpointError, match=r"no batch API here: .*refused the key"):
        open_endpoint(serve(key="another"), paid).complete(requests(3))
