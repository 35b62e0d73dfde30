"""The application on a real uvicorn and a real socket, in a thread of the test."""

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import uvicorn

from export.protocol import GuardedProtocol
from export.serve_settings import ServeSettings
from export.server import Application, create_app
from tests.server_process import Reply, ask


@dataclass(frozen=True, slots=True)
class LocalServer:
    """A running application and its port."""

    application: Application
    port: int

    def ask(self, method: str, path: str, content: Any = None, **headers: str) -> Reply:
        """Send one request; an underscore in a header's name is a dash."""
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        return ask(self.port, method, path, content, named)

    def predict(self, inputs: Any, **fields: Any) -> Reply:
        """Ask /predict."""
        return self.ask("POST", "/predict", {"inputs": inputs, **fields})


@contextmanager
def local_server(bundles: dict[str, Path], **fields: Any) -> Iterator[LocalServer]:
    """Serve `bundles` until the block ends."""
    application = create_app(ServeSettings(bundles=bundles, **{"watch_seconds": 0, "max_wait_ms": 10_000, **fields}))
    protocol = partial(GuardedProtocol, application)
    config = uvicorn.Config(application, port=0, http=protocol, ws="none", log_level="warning")  # type: ignore[arg-type]
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run)
    thread.start()
    try:
        while not server.started:
            assert thread.is_alive()
            time.sleep(0.01)
        yield LocalServer(application, server.servers[0].sockets[0].getsockname()[1])
    finally:
        server.should_exit = True
        thread.join()
