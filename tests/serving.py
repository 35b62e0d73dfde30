"""A real server on loopback for tests, and a teacher over HTTP that says what a test wants it to say."""

import contextlib
import http.client
import json
import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import uvicorn

from export.serve_settings import ServeSettings
from export.server import create_app


class Client:
    """Speaks to one server."""

    def __init__(self, port: int) -> None:
        """Remember where it is."""
        self.port = port
        self.url = f"http://127.0.0.1:{port}"

    def send(self, method: str, path: str, content: Any = None, **headers: str) -> tuple[int, dict[str, str], bytes]:
        """Return status, headers (names in lower case) and body of one exchange."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=30)
        body = None if content is None else json.dumps(content)
        connection.request(method, path, body, {name.replace("_", "-"): value for name, value in headers.items()})
        response = connection.getresponse()
        found = response.status, {name.lower(): value for name, value in response.getheaders()}, response.read()
        connection.close()
        return found

    def predict(self, inputs: Any, **headers: str) -> Any:
        """Return the detailed answer to a text or a list of texts."""
        status, _, body = self.send("POST", "/predict", {"inputs": inputs, "details": True}, **headers)
        assert status == 200, body
        return json.loads(body)


@contextlib.contextmanager
def serving(bundle: Path, **settings: Any) -> Iterator[Client]:
    """Serve `bundle` from a thread of this process until the block ends."""
    app = create_app(ServeSettings(bundles={"shop": bundle}, workers=1, **settings))
    server = uvicorn.Server(uvicorn.Config(app, port=0, log_config=None, lifespan="on"))
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    while not server.started:
        assert thread.is_alive(), "the server did not start"
        time.sleep(0.01)
    try:
        yield Client(server.servers[0].sockets[0].getsockname()[1])
    finally:
        server.should_exit = True
        thread.join(30)


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
