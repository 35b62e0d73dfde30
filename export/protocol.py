"""uvicorn's HTTP protocol with two short cuts for a request for answers that arrives whole and in the plainest form.

While the queue is full it is refused unread: under a flood the refusals are most of the work, and parsing and decoding
them only to say 429 would take the time of those that were accepted. Else the application is asked directly, without
the scope, the cycle and the messages of ASGI, which cost about as much as everything else that is not the model.
Whatever looks different in any way (a body in pieces, a header that asks for something) goes to uvicorn as it came.
"""

import asyncio
import re
from typing import Any

from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol

from export.exchange import Headers, Response, encode, whole
from export.serve_errors import RequestError
from export.server import Application, Endpoint, find_endpoint

_HEAD = re.compile(
    rb"POST (/predict|/v2/models/[\w.~-]++(?:/versions/[\w.~-]++)?/infer)(?:\?[!-~]*+)? HTTP/1\.1\r\n"
    rb"((?:[\w!#$%&'*+.^`|~-]++:[\t -~\x80-\xff]*+\r\n)*+)\r\n"
)
_LENGTH = b"content-length"
_ELSEWHERE = (b"transfer-encoding", b"expect", b"upgrade")  # what uvicorn alone understands


class GuardedProtocol(HttpToolsProtocol):
    """One connection of a worker."""

    def __init__(self, application: Application, **of_uvicorn: Any) -> None:
        """Ask `application`, and guard its queue."""
        super().__init__(**of_uvicorn)
        self._application = application
        self._service = application.service
        self._is_inside_message = False
        self._answering: asyncio.Task[None] | None = None
        self._early = b""  # what came while an answer was on its way
        self._last_answer = 0.0
        self._is_told_to_close = False

    def on_message_begin(self) -> None:
        """Note that what comes next belongs to a message."""
        self._is_inside_message = True
        super().on_message_begin()

    def on_message_complete(self) -> None:
        """Note that the next byte begins a message."""
        self._is_inside_message = False
        super().on_message_complete()

    def data_received(self, data: bytes) -> None:
        """Answer, or while the queue is full refuse, a whole request for answers; give all else to uvicorn."""
        if self._answering is not None:
            self._early += data
            self.flow.pause_reading()
            return
        is_free = not self._is_inside_message and (self.cycle is None or self.cycle.response_complete)
        if is_free and self._service.is_ready and (request := _read_whole(data)):
            scheduler = self._service.scheduler
            if scheduler.is_full():
                self.transport.write(_REFUSAL)
                self._service.metrics.requests.add("unread", "429")
                return
            if not self.flow.write_paused:
                scheduler.arriving += 1
                self._answering = self.loop.create_task(self._answer(*request))
                return
        super().data_received(data)

    def connection_lost(self, exc: Exception | None) -> None:
        """Give up what nobody waits for."""
        if self._answering is not None:
            self._answering.cancel()
        self._unset_keepalive_if_required()
        super().connection_lost(exc)

    def shutdown(self) -> None:
        """Close the connection, after the answer that is on its way."""
        self._is_told_to_close = True
        if self._answering is None:
            super().shutdown()

    def timeout_keep_alive_handler(self) -> None:
        """Close the connection when it has rested for so long: a timer for every answer would cost more than one."""
        rest = self._last_answer + self.timeout_keep_alive - self.loop.time()
        if self._answering is None and rest <= 0:
            super().timeout_keep_alive_handler()
        else:
            self._watch(max(rest, 1.0))

    def _watch(self, seconds: float) -> None:
        self.timeout_keep_alive_task = self.loop.call_later(seconds, self.timeout_keep_alive_handler)

    async def _answer(self, endpoint: Endpoint, headers: Headers, body: bytes) -> None:
        self._service.scheduler.arriving -= 1
        response = await self._application.answer(endpoint, "POST", headers, whole(body))
        self._answering = None
        if self.transport.is_closing():
            return
        self.transport.write(_encode(response, self.server_state.default_headers))
        self._last_answer = self.loop.time()
        if self._is_told_to_close or not self._service.is_ready:  # the default headers have said so
            self.transport.close()
            return
        if self.timeout_keep_alive_task is None:
            self._watch(self.timeout_keep_alive)
        if self._early:
            data, self._early = self._early, b""
            self.flow.resume_reading()
            self.data_received(data)


def _read_whole(data: bytes) -> tuple[Endpoint, Headers, bytes] | None:
    """Return endpoint, headers and body where `data` is one plain request for answers and nothing else."""
    head = _HEAD.match(data)
    if head is None:
        return None
    lines = [line.partition(b":") for line in head[2].split(b"\r\n")[:-1]]
    headers = {name.lower(): value.strip(b"\t ") for name, _, value in lines}
    body = data[head.end() :]
    if len(headers) < len(lines) or headers.get(_LENGTH) != b"%d" % len(body):
        return None
    if any(name in headers for name in _ELSEWHERE) or headers.get(b"connection", b"keep-alive") != b"keep-alive":
        return None
    endpoint = find_endpoint(head[1].decode("ascii"))
    return (endpoint, headers, body) if endpoint else None


def _encode(response: Response, defaults: list[tuple[bytes, bytes]]) -> bytes:
    headers, body = encode(response)
    lines = [b"%b: %b\r\n" % header for header in (*defaults, *headers)]
    return b"".join((STATUS_LINE[response.status], *lines, b"\r\n", body))


_REFUSAL = _encode(Response.of(RequestError("overloaded", "too many texts are waiting; come back in 1 s", 1)), [])
