"""The application: which path is answered by what. `create_app(settings)` runs under any ASGI server.

Knows nothing of processes and sockets; those are in worker.py and supervisor.py.
"""

import asyncio
import hmac
import logging
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from http import HTTPStatus
from typing import Any

from fastapi import FastAPI
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException

from export.exchange import (
    Headers,
    Read,
    Receive,
    Request,
    Response,
    Scope,
    Send,
    arriving,
    read_request,
    write_response,
)
from export.explain import explain
from export.info_api import add_info
from export.page_api import PAGE_PATHS, add_page
from export.predict_api import predict
from export.serve_errors import RequestError
from export.serve_schema import describe
from export.serve_settings import ServeSettings
from export.service import Service
from export.v2_api import add_v2, find_model, infer

logger = logging.getLogger("potstill.serve")
_OPEN_PATHS = {"/v2/health/live", "/v2/health/ready", *PAGE_PATHS}  # probes and a browser carry no token
Endpoint = tuple[str, Callable[[Service, Request], Awaitable[Response]]]  # its name in the metrics, its handler


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
        path, headers = scope["path"], dict(scope["headers"])
        if endpoint := find_endpoint(path):
            await write_response(send, await self.answer(endpoint, scope["method"], headers, arriving(receive)))
            return
        try:
            if path not in _OPEN_PATHS:
                self._authorise(headers)
        except RequestError as error:
            await write_response(send, Response.of(error))
            return
        await self.api(scope, receive, send)

    async def answer(self, endpoint: Endpoint, method: str, headers: Headers, read: Read) -> Response:
        """Answer a request to an endpoint that answers texts."""
        started = time.perf_counter()
        metrics, (name, handler) = self.service.metrics, endpoint
        try:
            self._authorise(headers)
            if method != "POST":
                raise RequestError("method", f"found {method}, wanted POST")
            response = await handler(self.service, await read_request(headers, read, self.settings.max_body_bytes))
        except RequestError as error:
            response = Response.of(error)
        except asyncio.CancelledError:  # the client is gone
            metrics.requests.add(name, "gone")
            raise
        except Exception:  # a fault of this program must not end the connection of one who asked rightly
            logger.exception("%s failed", name)
            response = Response.of(RequestError("internal", "this server failed; its log says how"))
        metrics.requests.add(name, str(response.status))
        metrics.seconds.add(name, amount=time.perf_counter() - started)
        return response

    def _authorise(self, headers: Headers) -> None:
        if self._token is not None and not hmac.compare_digest(
            headers.get(b"authorization", b""), b"Bearer " + self._token
        ):
            raise RequestError("unauthorized", "wanted the header: authorization: Bearer TOKEN")


def find_endpoint(path: str) -> Endpoint | None:
    """Return what answers texts at `path`, None where nothing does."""
    if path == "/predict":
        return "predict", predict
    if path == "/explain":
        return "explain", explain
    found = find_model(path)
    return ("infer", infer(*found)) if found else None


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

    api = FastAPI(title="Potstill", version=service.version, docs_url=None, redoc_url=None, lifespan=lifespan)
    add_info(api, service)
    add_v2(api, service)
    add_page(api)
    plain = api.openapi
    api.openapi = lambda: api.openapi_schema or describe(plain())  # type: ignore[method-assign]
    api.add_exception_handler(RequestError, _refuse)
    api.add_exception_handler(HTTPException, _refuse)
    return api


async def _refuse(request: Any, error: Exception) -> JSONResponse:
    """Give the framework's own refusals the one shape."""
    if isinstance(error, HTTPException):
        kind = {404: "not_found", 405: "method"}.get(error.status_code, "malformed")
        phrase = HTTPStatus(error.status_code).phrase
        content = RequestError(kind, f"{request.method} {request.url.path:.100}: {phrase.lower()}").content
        return JSONResponse(content, error.status_code, headers=error.headers)
    assert isinstance(error, RequestError)
    return JSONResponse(error.content, error.status, headers=error.headers)
