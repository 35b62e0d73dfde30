"""What a server says about itself: `/info`, `/metrics`, `/health`, and the order to look for new versions."""

import asyncio
from typing import Any

from fastapi import FastAPI
from fastapi.responses import Response as PlainResponse

from export.models import Slot
from export.serve_errors import RequestError
from export.serve_metrics import CONTENT_TYPE
from export.service import Service


def add_info(api: FastAPI, service: Service) -> None:
    """Add the endpoints to `api`."""

    @api.get("/info")
    async def info() -> dict[str, Any]:
        """Return limits, and for each model the version that answers and why a newer one does not."""
        settings = service.settings
        about = {
            "version": service.version,
            "max_client_batch_size": settings.max_texts,
            "max_characters": settings.max_characters,
            "max_body_bytes": settings.max_body_bytes,
        }
        return {**about, "models": [_describe(slot) for slot in service.models.slots.values()]}

    @api.post("/admin/reload", status_code=202)
    async def reload() -> dict[str, str]:
        """Make every worker look for new versions now; only with a token."""
        if service.settings.token is None:
            raise RequestError("forbidden", "this server has no token; set one, or send it SIGHUP")
        service.on_reload()
        return {"status": "looking for new versions"}

    @api.get("/metrics", response_class=PlainResponse)
    async def metrics() -> PlainResponse:
        """Return the counters of all workers in the Prometheus text format; those of the others up to 0.5 s ago."""
        service.write_metrics()
        return PlainResponse(await asyncio.to_thread(service.metrics.render), media_type=CONTENT_TYPE)


def _describe(slot: Slot) -> dict[str, Any]:
    manifest = slot.model.manifest
    return {
        "name": slot.name,
        "model": slot.model.digest,
        "kind": manifest.kind,
        "labels": manifest.labels,
        "max_tokens": manifest.max_tokens,
        "precision": manifest.precision,
        "too_long": manifest.too_long,
        "refused": slot.refused,
    }
