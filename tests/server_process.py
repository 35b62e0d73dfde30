"""`distill serve` in a process of its own, and a plain client for it; for tests and benchmarks."""

import http.client
import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

_START_SECONDS = 120


@dataclass(frozen=True, slots=True)
class Reply:
    """Status, headers by lower-case name, and the body."""

    status: int
    headers: Mapping[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        """The body as JSON values."""
        return json.loads(self.body)


def ask(port: int, method: str, path: str, content: Any = None, headers: Mapping[str, str] | None = None) -> Reply:
    """Send one request on a connection of its own; `content` is bytes, or JSON values."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    try:
        body = content if isinstance(content, bytes | None) else json.dumps(content).encode()
        connection.request(method, path, body, dict(headers or {}))
        answer = connection.getresponse()
        return Reply(answer.status, {name.lower(): value for name, value in answer.getheaders()}, answer.read())
    finally:
        connection.close()


@dataclass(slots=True)
class ServerProcess:
    """A running server: its port, its supervisor's process and what it has logged."""

    process: subprocess.Popen[str]
    port: int = 0
    log: list[str] = field(default_factory=list)

    def ask(self, method: str, path: str, content: Any = None, headers: Mapping[str, str] | None = None) -> Reply:
        """Send one request."""
        return ask(self.port, method, path, content, headers)

    def wait_for(self, words: str, seconds: float = 30) -> str:
        """Return the first log line that holds `words`."""
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            for line in list(self.log):
                if words in line:
                    return line
            time.sleep(0.02)
        raise AssertionError(f"no {words!r} within {seconds} s in: {self.log}")

    def workers(self) -> list[int]:
        """Return the process ids of the workers."""
        children = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children").read_text(encoding="ascii")
        return [int(word) for word in children.split() if b"spawn_main" in Path(f"/proc/{word}/cmdline").read_bytes()]

    def stop(self) -> int:
        """Send SIGTERM and return the exit code."""
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(60)


@contextmanager
def running_server(
    *bundles: Path | str, environment: Mapping[str, str] | None = None, **options: Any
) -> Iterator[ServerProcess]:
    """Run `distill serve` on a free port until the block ends; `options` are those of the command."""
    words = [word for name, value in options.items() for word in (f"--{name.replace('_', '-')}", str(value))]
    command = [sys.executable, "-m", "distill", "serve", *map(str, bundles), "--port", "0", *words]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env={**os.environ, **(environment or {})})
    server = ServerProcess(process)
    reader = threading.Thread(target=_read, args=(process, server.log))
    reader.start()
    try:
        listening = re.search(r"http://\S+:(\d+)", server.wait_for("answer at", _START_SECONDS))
        assert listening is not None
        server.port = int(listening[1])
        yield server
    finally:
        if process.poll() is None:
            process.kill()
        process.wait()
        reader.join()


def _read(process: subprocess.Popen[str], log: list[str]) -> None:
    assert process.stderr is not None
    log.extend(line.rstrip() for line in process.stderr)
