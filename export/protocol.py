"""uvicorn's HTTP protocol with one short cut: while the queue is full, a request for answers is refused unread.

Under a flood the refusals are most of the work. Parsing a request, making a task for it and decoding its JSON only
to say 429 would take the time of those that were accepted.
"""

import re
from typing import Any

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from export.exchange import Response, encode
from export.serve_errors import RequestError
from export.service import Service

_ASKS = re.compile(rb"POST /(predict|v2/models/[^ /]+(/versions/[^ /]+)?/infer)[ ?]")
_LENGTH = re.compile(rb"\r\ncontent-length: *(\d{1,9})\r\n", re.IGNORECASE)
_STATUS_LINE = b"HTTP/1.1 429 Too Many Requests\r\n"


class GuardedProtocol(HttpToolsProtocol):
    """One connection of a worker."""

    def __init__(self, service: Service, **of_uvicorn: Any) -> None:
        """Guard the queue of `service`."""
        super().__init__(**of_uvicorn)
        self._service = service
        self._is_inside_message = False

    def on_message_begin(self) -> None:
        """Note that what comes next belongs to a message."""
        self._is_inside_message = True
        super().on_message_begin()

    def on_message_complete(self) -> None:
        """Note that the next byte begins a message."""
        self._is_inside_message = False
        super().on_message_complete()

    def data_received(self, data: bytes) -> None:
        """Refuse a whole request for answers while the queue is full; give everything else to uvicorn."""
        scheduler = self._service.scheduler
        is_free = not self._is_inside_message and (self.cycle is None or self.cycle.response_complete)
        if is_free and self._service.is_ready and _is_whole_request(data):
            if scheduler.is_full():
                self.transport.write(_REFUSAL)
                self._service.metrics.requests["unread", "429"].inc()
                return
            scheduler.arriving += 1
        super().data_received(data)


def _is_whole_request(data: bytes) -> bool:
    """Say whether `data` is one request for answers and nothing else."""
    if not _ASKS.match(data):
        return False
    head, separator, body = data.partition(b"\r\n\r\n")
    length = _LENGTH.findall(head + b"\r\n")
    return bool(separator) and length == [str(len(body)).encode()] and b"transfer-encoding" not in head.lower()


def _encode(error: RequestError) -> bytes:
    headers, body = encode(Response.of(error))
    return _STATUS_LINE + b"".join(b"%b: %b\r\n" % header for header in headers) + b"\r\n" + body


_REFUSAL = _encode(RequestError("overloaded", "too many texts are waiting; come back in 1 s", 1))
