"""Rows R13 to R15 of the faults: hostile requests, a flood, and stops under load, on a real `distill serve`."""

import http.client
import json
import random
import signal
import threading
import time
from collections import Counter
from pathlib import Path

from fuzz import Sampler
from lines import Line
from memory import synthetic_texts, write_encoder
from serving import RunningLoad, percentile, random_bundle, resident_megabytes, run_load

from tests.server_process import ServerProcess, running_server

_LABELS = ("delivery", "payment", "size")
_REQUESTS, _RAW_BODIES, _FLOOD_SECONDS, _STOPS = 5_000, 20_000, 120, 50
_RAW_PATHS = ("/predict", "/v2/models/fuzz/infer")
_SLOWER, _TIMES = 3.0, 10


def hostile_requests(scratch: Path, share: float) -> Line:
    """Send each endpoint what its description allows and what it does not, and bodies that are no JSON."""
    bundle = _bundle(scratch, layers=1, width=32)
    statuses: Counter[int] = Counter()
    crashes = 0
    with running_server(f"fuzz={bundle}", workers=1, watch_seconds=0, max_wait_ms=10_000) as server:
        workers = server.workers()
        sampler = Sampler(document := server.ask("GET", "/openapi.json").json, seed=0)
        client = _Client(server.port)
        operations = [
            (path, *operation) for path, methods in document["paths"].items() for operation in methods.items()
        ]
        for path, method, operation in operations:
            for _ in range(round(_REQUESTS * share)):
                real_path, headers, body = sampler.request(path, operation)
                statuses[client.ask(method.upper(), real_path, body, headers)] += 1
        for number in range(round(_RAW_BODIES * share)):
            body = sampler.raw(b'{"inputs": ["my card is lost", "hello"], "truncate": true, "details": false}')
            statuses[client.ask("POST", _RAW_PATHS[number % 2], body, {})] += 1
        crashes = statuses.pop(0, 0) + (server.workers() != workers)
    sent = statuses.total() + crashes
    return Line(
        "R13",
        f"injected {sent:,} / survived {sent - crashes - statuses[500]:,}: {len(operations)} endpoints, "
        f"{crashes} crashes, {statuses[500]} of status 500, statuses {dict(sorted(statuses.items()))}",
        "0 crashes, 0 status 500",
        crashes == 0 and statuses[500] == 0,
    )


def flood(scratch: Path, share: float) -> Line:
    """Offer one worker ten times what it can do; latencies run from the moment a request was written."""
    bundle, texts = _bundle(scratch, layers=6, width=384), _texts(scratch)
    with running_server(bundle, workers=1, watch_seconds=0, max_wait_ms=10) as server:
        run_load(server.port, 50, 3, 8, texts)
        capacity = run_load(server.port, 0, 5, 4, texts).rate
        quiet = run_load(server.port, 0.7 * capacity, max(20, _FLOOD_SECONDS * share / 2), 64, texts)
        watch = _MemoryWatch(server)
        loud = run_load(server.port, _TIMES * capacity, _FLOOD_SECONDS * share, 64, texts)
        start, peak = watch.stop()
    slower = percentile(loud.from_send, 99) / percentile(quiet.from_send, 99)
    refused = loud.outcomes.get("429", 0) + loud.outcomes.get("503", 0)
    # What the generator's connections had no room for was never offered.
    wrong = loud.failed - refused - loud.outcomes.get("unanswered", 0)
    return Line(
        "R14",
        f"{refused + len(loud.latencies):,} requests at {(refused + len(loud.latencies)) / loud.seconds:,.0f}/s on a "
        f"worker of {capacity:,.0f}/s: {len(loud.latencies):,} answered, {refused:,} told when to come back, {wrong} "
        f"else; p99 {percentile(loud.from_send, 99):.1f} ms, {slower:.1f} times the quiet "
        f"{percentile(quiet.from_send, 99):.1f} ms; memory {start:.0f} to {peak:.0f} MB",
        "429 or 503 with Retry-After, p99 <= 3 times the quiet one, memory bounded (+ 20 %)",
        wrong == 0 and slower <= _SLOWER and peak <= 1.2 * start,
    )


def stops(scratch: Path, share: float) -> Line:
    """Send SIGTERM to servers under load and count requests that were sent whole and never answered."""
    bundle, texts = _bundle(scratch, layers=2, width=128), _texts(scratch)
    draw, outcomes, clean = random.Random(0), Counter[str](), 0
    number = max(1, round(_STOPS * share))
    for _ in range(number):
        with running_server(bundle, workers=2, watch_seconds=0, max_wait_ms=1000, drain_delay_seconds=0.2) as server:
            generator = RunningLoad(server.port, 300, 3, 16, texts)
            time.sleep(1 + draw.random())
            server.process.send_signal(signal.SIGTERM)
            clean += server.process.wait(60) == 0
            outcomes.update(generator.finish().outcomes)
    lost = outcomes["dropped"] + outcomes["unanswered"]
    return Line(
        "R15",
        f"injected {number} / survived {clean if lost == 0 else 0}: {outcomes['200']:,} answered, {lost} accepted and "
        f"dropped, {outcomes['refused']:,} found the server gone",
        "0 accepted requests dropped",
        lost == 0 and clean == number,
    )


class _Client:
    """Sends requests one after the other on a connection that it opens anew when it has to; status 0 is a crash."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)

    def ask(self, method: str, path: str, body: bytes | None, headers: dict[str, str]) -> int:
        for _ in range(2):  # a server may close a connection after it refused a body
            try:
                self._connection.request(method, path, body, headers)
                answer = self._connection.getresponse()
                answer.read()
                return answer.status
            except (OSError, http.client.HTTPException):
                self._connection.close()
        return 0


class _MemoryWatch:
    """The resident memory of a server's workers while something goes on."""

    def __init__(self, server: ServerProcess) -> None:
        self._workers = server.workers()
        self._sizes = [resident_megabytes(self._workers)]
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._look)
        self._thread.start()

    def _look(self) -> None:
        while not self._ended.wait(0.5):
            self._sizes.append(resident_megabytes(self._workers))

    def stop(self) -> tuple[float, float]:
        """Return megabytes at the start and at the peak."""
        self._ended.set()
        self._thread.join()
        return self._sizes[0], max(self._sizes)


def _bundle(scratch: Path, layers: int, width: int) -> Path:
    write_encoder(scratch / "encoder")
    return random_bundle(scratch / "bundle", scratch / "encoder", _LABELS, layers, width)


def _texts(scratch: Path) -> Path:
    path = scratch / "texts.json"
    path.write_text(json.dumps(list(synthetic_texts(2000, 0))), encoding="utf-8")
    return path
