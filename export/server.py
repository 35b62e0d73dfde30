"""The application: which path is answered by what. `create_app(settings)` runs under any ASGI server.

Knows nothing of processes and sockets; those are in worker.py and supervisor.py.
"""

import hmac
import logging
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

from fastapi import FastAPI

from export.exchange import Receive, Request, Response, Scope, Send, read_request, write_response
from export.info_api import add_info
from export.predict_api import predict
from export.serve_errors import RequestError
from export.serve_settings import ServeSettings
from export.service import Service
from export.v2_api import add_v2, infer

logger = logging.getLogger("potstill.serve")
_OPEN_PATHS = {"/v2/health/live", "/v2/health/ready"}  # probes carry no token
Handler = Callable[[Service, Request], Awaitable[Response]]


class Application:
    """ASGI: checks the token, answers texts itself, and leaves everything else to FastAPI."""

    def __init__(self, settings: ServeSettings) -> None:
        """Load the bundles; raise BundleError when one cannot be used."""
        self.settings = settings
        self.service = Service(settings)
        self.api = make_api(self.service)
        self._token = settings.token.get_secret_value().encode() if settings.token else None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request, or start and stop with the server."""
        if scope["type"] != "http":
            await self.api(scope, receive, send)
            return
        try:
            self._authorise(scope)
        except RequestError as error:
            await write_response(send, Response.of(error))
            return
        path = scope["path"]
        if scope["method"] == "POST" and path == "/predict":
            await self._answer("predict", predict, scope, receive, send)
        elif scope["method"] == "POST" and path.startswith("/v2/models/") and path.endswith("/infer"):
            await self._answer("infer", infer(path), scope, receive, send)
        else:
            await self.api(scope, receive, send)

    def _authorise(self, scope: Scope) -> None:
        if self._token is None or scope["path"] in _OPEN_PATHS:
            return
        given = next((value for name, value in scope["headers"] if name == b"authorization"), b"")
        if not hmac.compare_digest(given, b"Bearer " + self._token):
            raise RequestError("unauthorized", "wanted the header: authorization: Bearer TOKEN")

    async def _answer(self, endpoint: str, handler: Handler, scope: Scope, receive: Receive, send: Send) -> None:
        started = time.perf_counter()
        try:
            request = await read_request(scope, receive, self.settings.max_body_bytes)
            response = await handler(self.service, request)
        except RequestError as error:
            response = Response.of(error)
        except ConnectionResetError:
            return
        metrics = self.service.metrics
        metrics.requests.labels(endpoint, str(response.status)).inc()
        metrics.seconds.labels(endpoint).observe(time.perf_counter() - started)
        await write_response(send, response)


def create_app(settings: ServeSettings) -> Application:
    """Return the ASGI application of one worker; raise BundleError when a bundle cannot be used."""
    return Application(settings)


def make_api(service: Service) -> FastAPI:
    """Return everything that is not answering texts, and the description of all of it."""

    @asynccontextmanager
    async def lifespan(api: FastAPI) -> AsyncIterator[None]:
        await service.start()
        yield
        await service.stop()

    api = FastAPI(title="Potstill", docs_url=None, redoc_url=None, lifespan=lifespan)
    add_info(api, service)
    add_v2(api, service)
    return api
