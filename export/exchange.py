"""One HTTP exchange without a framework: the request with its body counted as it arrives, and the response.

The two endpoints that answer texts skip the framework: routing and validation of a framework cost a large part of
what the model itself does.
"""

import time
from collections.abc import Awaitable, Callable, Mapping, MutableMapping
from dataclasses import dataclass, field
from typing import Any

import orjson

from export.serve_errors import RequestError

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
Headers = Mapping[bytes, bytes]  # by lower-case name
Read = Callable[[int], Awaitable[bytes]]  # a body of at most so many bytes; else RequestError


@dataclass(frozen=True, slots=True)
class Request:
    """A request that has arrived whole; `arrived` is on time.perf_counter."""

    headers: Headers
    content: Any
    arrived: float

    def deadline(self, default_ms: float | None) -> float | None:
        """Return the moment by which the client wants its answer, on time.perf_counter."""
        given = self.headers.get(b"x-timeout-ms")
        if given is None:
            return None if default_ms is None else self.arrived + default_ms / 1000
        if not given.isdigit() or len(given) > 9:
            raise RequestError(
                "malformed", f"x-timeout-ms: found {given[:20].decode('latin-1')!r}, wanted milliseconds such as 50"
            )
        return self.arrived + int(given) / 1000


@dataclass(frozen=True, slots=True)
class Response:
    """A response with a JSON body."""

    content: Any
    status: int = 200
    headers: Mapping[str, str] = field(default_factory=dict)

    @classmethod
    def of(cls, error: RequestError) -> "Response":
        """Return what tells the client of `error`."""
        return cls(error.content, error.status, error.headers)


def whole(body: bytes) -> Read:
    """Return what reads a body that is here already."""

    async def read(most_bytes: int) -> bytes:
        if len(body) > most_bytes:
            raise _too_long(len(body), most_bytes)
        return body

    return read


def arriving(receive: Receive) -> Read:
    """Return what reads a body in the pieces that an ASGI server hands over, and no further than it may go."""

    async def read(most_bytes: int) -> bytes:
        body = b""
        while True:
            message = await receive()
            if message["type"] == "http.disconnect":
                raise RequestError("malformed", "the client went away before its body was whole")
            body += bytes(message.get("body", b""))
            if len(body) > most_bytes:
                raise _too_long(len(body), most_bytes)
            if not message.get("more_body", False):
                return body

    return read


async def read_request(headers: Headers, read: Read, max_body_bytes: int) -> Request:
    """Return the request; raise RequestError as soon as its body is known to be too long, or is no JSON."""
    announced = headers.get(b"content-length", b"0")
    if announced.isdigit() and int(announced[:20]) > max_body_bytes:
        raise _too_long(int(announced[:20]), max_body_bytes)
    body = await read(max_body_bytes)
    arrived = time.perf_counter()
    try:
        return Request(headers, orjson.loads(body), arrived)
    except ValueError as error:
        raise RequestError("malformed", f"the body is no JSON: {error}") from error


async def write_response(send: Send, response: Response) -> None:
    """Send the whole response."""
    headers, body = encode(response)
    await send({"type": "http.response.start", "status": response.status, "headers": headers})
    await send({"type": "http.response.body", "body": body})


def encode(response: Response) -> tuple[list[tuple[bytes, bytes]], bytes]:
    """Return headers and body as bytes."""
    body = orjson.dumps(response.content)
    headers = [(b"content-type", b"application/json"), (b"content-length", b"%d" % len(body))]
    headers += [(name.encode("ascii"), value.encode("ascii")) for name, value in response.headers.items()]
    return headers, body


def _too_long(found: int, wanted: int) -> RequestError:
    return RequestError("too_large", f"the body has {found} bytes or more, wanted at most {wanted}")
