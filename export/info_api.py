"""What a server says about itself: `/info`, `/metrics`, `/health`, and the order to look for new versions."""

from typing import Any

from fastapi import FastAPI
from fastapi.responses import Response as PlainResponse

from export.serve_metrics import CONTENT_TYPE
from export.service import Service


def add_info(api: FastAPI, service: Service) -> None:
    """Add the endpoints to `api`."""

    @api.get("/info")
    async def info() -> dict[str, Any]:
        """Return limits and the versions that answer."""
        settings = service.settings
        limits = {
            "max_client_batch_size": settings.max_texts,
            "max_characters": settings.max_characters,
            "max_body_bytes": settings.max_body_bytes,
        }
        return {**limits, "models": [_describe(slot) for slot in service.models.slots.values()]}

    @api.get("/metrics", response_class=PlainResponse)
    def metrics() -> PlainResponse:
        """Return the counters of all workers in the Prometheus text format."""
        return PlainResponse(service.metrics.render(), media_type=CONTENT_TYPE)


def _describe(slot: Any) -> dict[str, Any]:
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
