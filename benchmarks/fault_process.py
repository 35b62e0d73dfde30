"""The fault-injecting server of the tests, in a process of its own."""

import json
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from checkout import ROOT


class FaultProcess:
    """A running server."""

    def __init__(self, port: int) -> None:
        """Know where it listens."""
        self.address = f"http://127.0.0.1:{port}"

    @property
    def url(self) -> str:
        """The base address of the API."""
        return f"{self.address}/v1"

    def counts(self) -> dict[str, Any]:
        """Return what the server has counted: calls, paid calls, USD, faults."""
        with urllib.request.urlopen(f"{self.address}/counts", timeout=60) as answer:
            counts: dict[str, Any] = json.load(answer)
        return counts


@contextmanager
def fault_process(**settings: float) -> Iterator[FaultProcess]:
    """Run the server with `settings` until the block ends."""
    words = [word for name, value in settings.items() for word in (f"--{name.replace('_', '-')}", str(value))]
    command = [sys.executable, str(ROOT / "tests" / "fault_server.py"), *words]
    server = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    try:
        assert server.stdout is not None
        yield FaultProcess(int(server.stdout.readline()))
    finally:
        server.kill()
        server.wait()
