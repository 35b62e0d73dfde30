import asyncio
import socket
from collections.abc import Awaitable, Callable
from pathlib import Path

from export.control import CONNECTION, READY
from export.serve_settings import ServeSettings
from export.server import create_app
from export.worker import FedServer

BODY = b'{"inputs": "my parcel"}'
REQUEST = b"POST /predict HTTP/1.1\r\nhost: a\r\nContent-Length: %d\r\n\r\n" % len(BODY) + BODY


def play(bundle: Path, script: Callable[[FedServer, socket.socket], Awaitable[bytes]]) -> bytes:
    """Run `script` with a started worker and the supervisor's end of the socket to it, then stop the worker."""

    async def run() -> bytes:
        ours, theirs = socket.socketpair()
        with ours, theirs:
            server = FedServer(create_app(ServeSettings(bundles={"shop": bundle})), theirs)
            server.config.load()
            server.lifespan = server.config.lifespan_class(server.config)
            await server.startup()
            assert ours.recv(1) == READY
            try:
                return await script(server, ours)
            finally:
                asyncio.get_running_loop().remove_reader(theirs)

    return asyncio.run(run())


def test_a_request_that_was_handed_over_just_before_a_stop_is_answered(tiny_bundle: Path) -> None:
    async def script(server: FedServer, control: socket.socket) -> bytes:
        client, accepted = socket.socketpair()
        client.settimeout(10)
        with client:
            client.sendall(REQUEST)
            with accepted:
                socket.send_fds(control, [CONNECTION], [accepted.fileno()])
            server._hear()
            await server.shutdown()
            return client.recv(65536)

    answer = play(tiny_bundle, script)
    assert answer.startswith(b"HTTP/1.1 200 OK\r\n")
    assert b"connection: close\r\n" in answer
