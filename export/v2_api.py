"""Open Inference Protocol v2 over HTTP: health, metadata, and inference on BYTES tensors."""

from collections.abc import Awaitable, Callable
from typing import Any

from fastapi import FastAPI

from export.exchange import Request, Response
from export.serve_errors import RequestError
from export.service import Service


def infer(path: str) -> Callable[[Service, Request], Awaitable[Response]]:
    """Return the handler of an inference request to `path`."""

    async def handle(service: Service, request: Request) -> Response:
        raise RequestError("not_found", path)

    return handle


def add_v2(api: FastAPI, service: Service) -> None:
    """Add health and metadata to `api`."""

    @api.get("/v2/health/live")
    async def live() -> dict[str, Any]:
        """Return whether the process runs."""
        return {"live": True}
