"""One worker process: uvicorn on one event loop, fed with accepted connections by its supervisor.

Knows the supervisor as the other end of a socket.
"""

import asyncio
import contextlib
import fcntl
import gc
import logging
import signal
import socket
import sys
import termios
from collections.abc import Coroutine, Iterator

import uvicorn

from export.control import CONNECTION, DRAIN, READY, RELOAD, RELOAD_ALL
from export.protocol import GuardedProtocol
from export.serve_settings import ServeSettings
from export.server import Application, create_app

_QUIET_SECONDS = 0.25  # an idle connection that brought nothing for so long may be closed
_MOST_AT_ONCE = 32
logger = logging.getLogger("potstill.serve")


class FedServer(uvicorn.Server):
    """A uvicorn server that does not listen: its connections come over a socket."""

    def __init__(self, application: Application, control: socket.socket) -> None:
        """Serve `application` on what arrives over `control`."""
        config = uvicorn.Config(
            application,
            ws="none",
            lifespan="on",
            access_log=False,
            log_config=None,
            server_header=False,
            proxy_headers=False,  # nothing asks who the client is
            timeout_keep_alive=75,  # longer than a load balancer keeps its own end open
        )
        super().__init__(config)
        self._application = application
        self._control = control
        self._tasks: set[asyncio.Task[None]] = set()

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Start the application and listen to the supervisor."""
        await self.lifespan.startup()
        if self.lifespan.should_exit:
            sys.exit(1)
        self.servers = []
        self._control.setblocking(False)
        asyncio.get_running_loop().add_reader(self._control, self._hear)
        self._application.service.on_reload = self._ask_for_reload
        gc.collect()
        gc.freeze()  # what is loaded now stays: to walk through it again would hold up every request for tens of ms
        self._control.send(READY)
        self.started = True

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Leave signals to the supervisor: a terminal sends them to every process of the group."""
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            signal.signal(number, signal.SIG_IGN)
        yield

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Answer what was accepted, close what is idle, and stop."""
        self._drain()
        deadline = asyncio.get_running_loop().time() + self._application.settings.drain_seconds
        # A connection that was handed over just now is a task before it is a connection.
        while (self._tasks or self.server_state.connections) and asyncio.get_running_loop().time() < deadline:
            await asyncio.sleep(_QUIET_SECONDS)
            for connection in list(self.server_state.connections):
                if not _has_unread(connection.transport):
                    connection.shutdown()
        if self.server_state.connections:
            logger.error("%d connections were cut: drain_seconds are over", len(self.server_state.connections))
        await self.lifespan.shutdown()

    def _hear(self) -> None:
        for _ in range(_MOST_AT_ONCE):
            try:
                message, descriptors, _, _ = socket.recv_fds(self._control, 1, 1)
            except BlockingIOError:
                return
            except OSError:
                message, descriptors = b"", []
            if message == CONNECTION:
                self._start(self._serve_connection(socket.socket(fileno=descriptors[0])))
            elif message == RELOAD:
                self._application.service.reload()
            elif message == DRAIN:
                self._drain()
            else:  # QUIT, or the supervisor is gone
                asyncio.get_running_loop().remove_reader(self._control)
                self.should_exit = True
                return

    def _start(self, work: Coroutine[None, None, None]) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _serve_connection(self, connection: socket.socket) -> None:
        connection.setblocking(False)
        loop = asyncio.get_running_loop()

        def protocol() -> asyncio.Protocol:
            return GuardedProtocol(
                self._application,
                config=self.config,
                server_state=self.server_state,
                app_state=self.lifespan.state,
                _loop=loop,
            )

        with contextlib.suppress(OSError):  # the client is gone already
            await loop.connect_accepted_socket(protocol, connection)

    def _drain(self) -> None:
        """Stop being ready, and tell every client with its next answer to go elsewhere."""
        if not self._application.service.is_ready:
            return
        self._application.service.is_ready = False
        close = (b"connection", b"close")
        self.config.encoded_headers.append(close)
        self.server_state.default_headers.append(close)
        for connection in self.server_state.connections:
            if isinstance(connection, GuardedProtocol) and connection.cycle is not None:
                connection.cycle.keep_alive = False

    def _ask_for_reload(self) -> None:
        with contextlib.suppress(OSError):
            self._control.send(RELOAD_ALL)


def run_worker(settings: ServeSettings, control: socket.socket) -> None:
    """Serve until the supervisor says to stop."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(process)d %(message)s")
    logging.getLogger("uvicorn.error").setLevel(logging.WARNING)
    FedServer(create_app(settings), control).run()


def _has_unread(transport: asyncio.Transport) -> bool:
    """Say whether bytes have arrived that the event loop has not seen."""
    descriptor = transport.get_extra_info("socket").fileno()
    count = bytearray(4)
    try:
        fcntl.ioctl(descriptor, termios.FIONREAD, count)
    except OSError:  # it was closed meanwhile
        return False
    return any(count)
