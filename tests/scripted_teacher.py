"""A teacher over HTTP that says what a test wants it to say, and keeps what it was asked."""

import contextlib
import json
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


class ScriptedTeacher(ThreadingHTTPServer):
    """Answers each request with (status, JSON) of `script(path, content)`; keeps what it was sent."""

    def __init__(self, script: Callable[[str, Any], tuple[int, Any]]) -> None:
        """Listen on a free port."""
        self.script = script
        self.seen: list[tuple[str, dict[str, str], Any]] = []
        super().__init__(("127.0.0.1", 0), _Handler)
        self.url = f"http://127.0.0.1:{self.server_address[1]}"
        threading.Thread(target=self.serve_forever, daemon=True).start()


class _Handler(BaseHTTPRequestHandler):
    server: ScriptedTeacher

    def do_POST(self) -> None:
        content = json.loads(self.rfile.read(int(self.headers["content-length"])))
        self.server.seen.append((self.path, dict(self.headers), content))
        status, answer = self.server.script(self.path, content)
        body = answer if isinstance(answer, bytes) else json.dumps(answer).encode()
        with contextlib.suppress(OSError):  # the client may have gone
            self.send_response(status)
            self.send_header("content-length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

    def log_message(self, *given: Any) -> None:
        """Say nothing."""


@contextlib.contextmanager
def scripted(script: Callable[[str, Any], tuple[int, Any]]) -> Iterator[ScriptedTeacher]:
    """Run a scripted teacher until the block ends."""
    teacher = ScriptedTeacher(script)
    try:
        yield teacher
    finally:
        teacher.shutdown()
        teacher.server_close()
