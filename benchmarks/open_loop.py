"""An open-loop load generator in one light process: Poisson arrivals over keep-alive connections.

    python benchmarks/open_loop.py PORT RATE SECONDS CONNECTIONS TEXTS.json

Latency runs from the scheduled arrival, so a server that falls behind cannot hide it. A request that finds every
connection busy waits for one, and that wait counts. RATE 0 keeps every connection busy instead. A JSON object comes
out: seconds, outcomes by status, `latencies` of status 200 in ms, `from_send` the same from the moment the request was
written, CPU seconds of this process. `dropped` are requests sent whole whose connection ended without a whole answer,
`refused` found nobody listening, `rude` are 429 and 503 without Retry-After.
"""

import contextlib
import json
import random
import re
import select
import socket
import sys
import time
from collections import Counter, deque
from pathlib import Path

_GRACE_SECONDS = 10.0
_MOST_BYTES = 16_384  # of one look at a socket; a larger buffer is made anew, and cut, for every answer
_LENGTH = re.compile(rb"\r\ncontent-length: (\d+)")
_BEGIN = b"POST /predict HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\ncontent-length: "


class Connection:
    """One keep-alive connection; `scheduled` is when the request under way should have been sent."""

    def __init__(self, port: int) -> None:
        """Connect; raise OSError when nobody listens."""
        self.socket = socket.create_connection(("127.0.0.1", port), timeout=5)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.scheduled: float | None = None
        self.sent = 0.0
        self._received = b""

    def send(self, request: bytes, scheduled: float) -> None:
        """Send one whole request."""
        self.scheduled, self.sent = scheduled, time.perf_counter()
        self.socket.sendall(request)

    def read(self) -> tuple[str, bool] | None:
        """Return the outcome and whether the connection stays open, None while more is to come; raise OSError."""
        received = self.socket.recv(_MOST_BYTES)
        if not received:
            raise ConnectionResetError
        if self._received:
            received = self._received + received
        end = received.find(b"\r\n\r\n")
        head = received[:end].lower()
        length = _LENGTH.search(head)
        if end < 0 or length is None or len(received) < end + 4 + int(length[1]):
            self._received = received
            return None
        self._received = b""
        status = head[9:12].decode()
        is_rude = status in ("429", "503") and b"\r\nretry-after: " not in head
        return "rude" if is_rude else status, b"\r\nconnection: close" not in head


class Generator:
    """Sends requests on a schedule and counts what becomes of them."""

    def __init__(self, port: int, connections: int, requests: list[bytes], seed: int = 0) -> None:
        """Open the connections."""
        self._port = port
        self._wanted = connections
        self._requests = requests
        self._random = random.Random(seed)
        self._poll = select.epoll()
        self._open: dict[int, Connection] = {}
        self._idle: deque[Connection] = deque()  # the one that rested longest comes next, as behind a load balancer
        self._waiting: deque[float] = deque()
        self._sent = 0
        self.outcomes: Counter[str] = Counter()
        self.latencies: list[float] = []
        self.from_send: list[float] = []

    def run(self, rate: float, seconds: float) -> float:
        """Send `rate` requests a second (0: as fast as they are answered) and return the seconds it took."""
        while len(self._open) < self._wanted:
            self._connect()
        started = time.perf_counter()
        arrival, end = started, started + seconds
        while (now := time.perf_counter()) < end:
            if rate:
                while arrival <= now:
                    self._waiting.append(arrival)
                    arrival += self._random.expovariate(rate)
            else:
                self._waiting.extend([now] * len(self._idle))
            self._send_waiting()
            self._receive(min(arrival if rate else end, end) - time.perf_counter())
        while self._busy() and time.perf_counter() < end + _GRACE_SECONDS:
            self._send_waiting()
            self._receive(0.05)
        self.outcomes["unanswered"] += self._busy()
        return time.perf_counter() - started

    def _busy(self) -> int:
        return len(self._waiting) + sum(connection.scheduled is not None for connection in self._open.values())

    def _connect(self) -> bool:
        try:
            connection = Connection(self._port)
        except OSError:
            return False
        self._open[connection.socket.fileno()] = connection
        self._poll.register(connection.socket.fileno(), select.EPOLLIN)
        self._idle.append(connection)
        return True

    def _close(self, connection: Connection) -> None:
        with contextlib.suppress(ValueError):
            self._idle.remove(connection)
        del self._open[connection.socket.fileno()]
        self._poll.unregister(connection.socket.fileno())
        connection.socket.close()

    def _send_waiting(self) -> None:
        while self._waiting:
            if not self._idle:
                if len(self._open) >= self._wanted:
                    return
                if not self._connect():
                    self._waiting.popleft()
                    self.outcomes["refused"] += 1
                    continue
            connection = self._idle.popleft()
            self._sent += 1
            request = self._requests[self._sent % len(self._requests)]
            scheduled = self._waiting.popleft()
            try:
                connection.send(request, scheduled)
            except OSError:  # it was closed while it was idle: nothing was accepted
                self._close(connection)
                self._waiting.appendleft(scheduled)

    def _receive(self, seconds: float) -> None:
        # epoll itself only counts whole milliseconds.
        if select.select([self._poll], [], [], max(seconds, 0))[0]:
            for descriptor, _ in self._poll.poll(0):
                self._answer(self._open[descriptor])

    def _answer(self, connection: Connection) -> None:
        try:
            answer = connection.read()
        except OSError:
            if connection.scheduled is not None:
                self.outcomes["dropped"] += 1
            self._close(connection)
            return
        if answer is None or connection.scheduled is None:
            return
        outcome, stays_open = answer
        self.outcomes[outcome] += 1
        if outcome == "200":
            now = time.perf_counter()
            self.latencies.append(1000 * (now - connection.scheduled))
            self.from_send.append(1000 * (now - connection.sent))
        connection.scheduled = None
        if stays_open:
            self._idle.append(connection)
        else:
            self._close(connection)


def build_request(text: str) -> bytes:
    """Return the bytes of one POST /predict."""
    body = json.dumps({"inputs": text}).encode()
    return _BEGIN + str(len(body)).encode() + b"\r\n\r\n" + body


def main() -> None:
    """Run once and print what was counted."""
    port, rate, seconds, connections, texts = sys.argv[1:]
    requests = [build_request(text) for text in json.loads(Path(texts).read_text(encoding="utf-8"))]
    generator = Generator(int(port), int(connections), requests)
    took = generator.run(float(rate), float(seconds))
    found = {"latencies": generator.latencies, "from_send": generator.from_send, "outcomes": generator.outcomes}
    print(json.dumps({**found, "seconds": took, "cpu_seconds": time.process_time()}))


if __name__ == "__main__":
    main()
