"""The process that listens: hands each connection to the next worker, restarts what dies, drains on SIGTERM.

Workers share nothing. The supervisor deals connections out in turn, because a socket that all workers accept from
gives a burst of connections to whoever wakes first. It loads no model and stays small. Needs Linux or macOS.
"""

import contextlib
import logging
import multiprocessing
import os
import selectors
import signal
import socket
import tempfile
import time
from dataclasses import dataclass
from multiprocessing.context import SpawnProcess
from pathlib import Path
from types import FrameType

from export.control import CONNECTION, DRAIN, QUIT, READY, RELOAD, RELOAD_ALL
from export.errors import ExportError
from export.serve_settings import ServeSettings

_BACKLOG = 2048
_MOST_AT_ONCE = 64
_RESTART_SECONDS = 1.0
_LAST_CALL_SECONDS = 5.0  # a worker that has not ended so long after drain_seconds is killed
logger = logging.getLogger("potstill.serve")


@dataclass(slots=True)
class Worker:
    """One worker process and the socket to it."""

    process: SpawnProcess
    control: socket.socket
    is_ready: bool = False


class Supervisor:
    """Runs the workers of one server until it is told to stop."""

    def __init__(self, settings: ServeSettings) -> None:
        """Bind the address; raise ExportError when that is not possible."""
        self.settings = settings
        self._listener = _bind(settings.host, settings.port)
        self._selector = selectors.DefaultSelector()
        self._workers: list[Worker] = []
        self._turn = 0
        self._signals: list[int] = []
        self._is_listening = False
        self._start_at: list[float] = []  # when to replace workers that died
        self._metrics = tempfile.TemporaryDirectory(prefix="potstill-metrics-")

    @property
    def address(self) -> str:
        """Where the server listens."""
        host, port = self._listener.getsockname()[:2]
        return f"http://{f'[{host}]' if ':' in host else host}:{port}"

    def run(self) -> int:
        """Serve until SIGTERM or SIGINT and return the exit code; SIGHUP looks for new versions of the bundles."""
        wakeup, waker = socket.socketpair()
        waker.setblocking(False)
        self._selector.register(wakeup, selectors.EVENT_READ, lambda: wakeup.recv(64))
        handlers = {number: signal.signal(number, self._note) for number in _SIGNALS}
        previous = signal.set_wakeup_fd(waker.fileno())
        try:
            for _ in range(self.settings.workers or 1):
                self._start_worker()
            return self._loop()
        finally:
            signal.set_wakeup_fd(previous)
            for number, handler in handlers.items():
                signal.signal(number, handler)
            for worker in self._workers:
                worker.process.kill()
            self._metrics.cleanup()

    def _loop(self) -> int:
        while True:
            while self._signals:
                if self._signals.pop(0) != signal.SIGHUP:
                    return self._drain()
                self._tell(RELOAD)
            self._replace_dead()
            if not self._workers and not self._is_listening:
                return 1  # no worker ever came up; each has said why
            self._poll(0.5)

    def _poll(self, seconds: float) -> None:
        for key, _ in self._selector.select(seconds):
            key.data()

    def _note(self, number: int, frame: FrameType | None) -> None:
        self._signals.append(number)

    def _start_worker(self) -> None:
        ours, theirs = socket.socketpair()
        arguments = (self.settings, theirs, self._metrics.name)
        process = multiprocessing.get_context("spawn").Process(target=_work, args=arguments, daemon=False)
        process.start()
        theirs.close()
        worker = Worker(process, ours)
        self._workers.append(worker)
        self._selector.register(ours, selectors.EVENT_READ, lambda: self._hear(worker))

    def _hear(self, worker: Worker) -> None:
        try:
            message = worker.control.recv(1)
        except ConnectionError:
            message = b""
        if message == READY:
            worker.is_ready = True
            self._listen_when_ready()
        elif message == RELOAD_ALL:
            self._tell(RELOAD)
        else:
            self._bury(worker)

    def _bury(self, worker: Worker) -> None:
        self._selector.unregister(worker.control)
        worker.control.close()
        self._workers.remove(worker)
        worker.process.join()
        for path in Path(self._metrics.name).glob(f"gauge_live*_{worker.process.pid}.db"):
            path.unlink()
        if worker.process.exitcode:
            logger.error("worker %s ended with %s", worker.process.pid, worker.process.exitcode)
        if self._is_listening:
            self._start_at.append(time.monotonic() + _RESTART_SECONDS)
        else:
            self._listen_when_ready()

    def _replace_dead(self) -> None:
        due = [moment for moment in self._start_at if moment <= time.monotonic()]
        for moment in due:
            self._start_at.remove(moment)
            self._start_worker()

    def _listen_when_ready(self) -> None:
        if self._is_listening or not self._workers or not all(worker.is_ready for worker in self._workers):
            return
        self._is_listening = True
        self._listener.listen(_BACKLOG)
        self._selector.register(self._listener, selectors.EVENT_READ, self._accept)
        logger.info("%d workers answer at %s", len(self._workers), self.address)

    def _accept(self) -> bool:
        """Deal out what waits, up to a number that keeps signals from waiting; say whether there may be more."""
        for _ in range(_MOST_AT_ONCE):
            try:
                connection, _ = self._listener.accept()
            except ConnectionAbortedError:  # this client is gone already
                continue
            except OSError:  # nothing more waits, or no descriptor is left
                return False
            with connection:
                self._hand_over(connection)
        return True

    def _hand_over(self, connection: socket.socket) -> None:
        """Give a connection to the next worker that takes it; with none it is closed."""
        for _ in self._workers:
            self._turn += 1
            worker = self._workers[self._turn % len(self._workers)]
            if worker.is_ready:
                with contextlib.suppress(OSError):
                    socket.send_fds(worker.control, [CONNECTION], [connection.fileno()])
                    return

    def _tell(self, message: bytes) -> None:
        for worker in self._workers:
            with contextlib.suppress(OSError):
                worker.control.send(message)

    def _drain(self) -> int:
        """Stop being ready, go on accepting for a while, then let every worker finish what it has."""
        logger.info("draining")
        self._tell(DRAIN)
        self._wait(self.settings.drain_delay_seconds)
        if self._is_listening:
            self._selector.unregister(self._listener)
            while self._accept():
                pass
        self._listener.close()
        self._tell(QUIT)
        self._wait(self.settings.drain_seconds + _LAST_CALL_SECONDS)
        return 1 if self._workers else 0

    def _wait(self, seconds: float) -> None:
        """Go on until `seconds` are over, the last worker has ended, or somebody insists."""
        end = time.monotonic() + seconds
        while self._workers and not self._signals and (left := end - time.monotonic()) > 0:
            self._poll(left)


_SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)


def _bind(host: str, port: int) -> socket.socket:
    try:
        family, _, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        listener = socket.socket(family, socket.SOCK_STREAM)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.setblocking(False)
        listener.bind(address)
    except OSError as error:
        raise ExportError(f"{host}:{port}: cannot listen there ({error}); choose another --host or --port") from error
    return listener


def _work(settings: ServeSettings, control: socket.socket, metrics_folder: str) -> None:
    """Become a worker; prometheus_client reads the variable when it is imported."""
    os.environ["PROMETHEUS_MULTIPROC_DIR"] = metrics_folder
    from export.worker import run_worker

    run_worker(settings, control)
