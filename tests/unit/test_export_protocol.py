import re
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.serving import LocalServer, local_server

BODY = b'{"inputs": "my parcel"}'
REQUEST = b"POST /predict HTTP/1.1\r\nhost: a\r\nContent-Length: %d\r\n\r\n" % len(BODY) + BODY


@pytest.fixture(scope="module")
def server(tiny_bundle: Path) -> Iterator[LocalServer]:
    with local_server({"shop": tiny_bundle}, max_queue=1) as server:
        yield server


@contextmanager
def full(server: LocalServer) -> Iterator[None]:
    """Make the queue look as it does in a flood."""
    scheduler = server.application.service.scheduler
    scheduler.is_full = lambda: True  # type: ignore[method-assign]
    try:
        yield
    finally:
        del scheduler.is_full


def answers(server: LocalServer, *pieces: bytes) -> bytes:
    with socket.create_connection(("127.0.0.1", server.port), timeout=10) as connection:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        received = b""
        for piece in pieces:
            connection.sendall(piece)
            received += connection.recv(65536)
        return received


def unread(server: LocalServer) -> float:
    found = re.search(
        r'requests_total{endpoint="unread",status="429"} (\S+)', server.ask("GET", "/metrics").body.decode()
    )
    return float(found[1]) if found else 0.0


def test_a_full_queue_refuses_whole_requests_unread_and_keeps_the_connection(server: LocalServer) -> None:
    before = unread(server)
    with full(server):
        received = answers(server, REQUEST, REQUEST)
    assert received.count(b"HTTP/1.1 429 Too Many Requests\r\n") == received.count(b"retry-after: 1\r\n") == 2
    assert unread(server) - before == 2


def test_whatever_else_arrives_takes_the_ordinary_way(server: LocalServer) -> None:
    before = unread(server)
    with full(server):
        live = answers(server, b"GET /v2/health/live HTTP/1.1\r\nhost: a\r\n\r\n")
    assert live.startswith(b"HTTP/1.1 200 ")
    assert unread(server) == before


def test_what_is_sent_before_an_answer_came_is_answered_after_it(server: LocalServer) -> None:
    with socket.create_connection(("127.0.0.1", server.port), timeout=10) as connection:
        for _ in range(3):
            connection.sendall(REQUEST)
        received = b""
        while received.count(b"HTTP/1.1 200 OK\r\n") < 3 or not received.endswith(b"}]"):
            received += connection.recv(65536)
    assert received.count(b"HTTP/1.1 ") == 3


@pytest.mark.parametrize(
    "header", ["connection: close", "Expect: 100-continue", "Transfer-Encoding: chunked", "content-length: 0"]
)
def test_a_header_that_asks_for_something_is_left_to_uvicorn(server: LocalServer, header: str) -> None:
    before = unread(server)
    head, _, body = REQUEST.partition(b"\r\n\r\n")
    with full(server):
        answers(server, head + b"\r\n" + header.encode() + b"\r\n\r\n" + body)
    assert unread(server) == before


def test_whole_and_in_pieces_a_request_has_one_answer(server: LocalServer) -> None:
    head, _, body = REQUEST.partition(b"\r\n\r\n")
    whole = answers(server, REQUEST)
    with socket.create_connection(("127.0.0.1", server.port), timeout=10) as connection:
        connection.sendall(head + b"\r\n\r\n")
        time.sleep(0.05)
        connection.sendall(body)
        pieces = b""
        while not pieces.endswith(b"}]"):
            pieces += connection.recv(65536)
    stamp = re.compile(rb"date: [^\r]+\r\n")
    assert stamp.sub(b"", whole) == stamp.sub(b"", pieces)


def test_clients_that_go_away_leave_nothing_behind(server: LocalServer) -> None:
    scheduler = server.application.service.scheduler
    for _ in range(20):
        with socket.create_connection(("127.0.0.1", server.port), timeout=10) as connection:
            connection.sendall(REQUEST)
    assert server.predict("my parcel").status == 200
    assert (scheduler.arriving, scheduler.waiting_texts) == (0, 0)


def test_a_fault_of_the_program_is_an_answer_too(server: LocalServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server.application.service, "model", lambda name: 1 / 0)
    received = answers(server, REQUEST)
    assert received.startswith(b"HTTP/1.1 500 Internal Server Error\r\n")
    assert b'"error_type":"internal"' in received


def test_a_request_that_comes_in_pieces_is_never_answered_from_its_middle(server: LocalServer) -> None:
    smuggled = b"POST /predict HTTP/1.1\r\nhost: a\r\ncontent-length: %d\r\n\r\n" % len(REQUEST)
    before = unread(server)
    with full(server), socket.create_connection(("127.0.0.1", server.port), timeout=10) as connection:
        connection.sendall(smuggled)
        time.sleep(0.1)
        connection.sendall(REQUEST)  # the body of the first, though it looks like a request
        assert connection.recv(65536).startswith(b"HTTP/1.1 400 ")
    assert unread(server) == before
