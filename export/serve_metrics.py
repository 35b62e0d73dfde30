"""What a server counts, for Prometheus; the sum over all worker processes where there are several.

prometheus_client adds worker processes up through the folder in PROMETHEUS_MULTIPROC_DIR; it must be set before
this module is imported.
"""

import os

from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.multiprocess import MultiProcessCollector

FOLDER_VARIABLE = "PROMETHEUS_MULTIPROC_DIR"
CONTENT_TYPE = CONTENT_TYPE_LATEST
_SECONDS = (0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10)


class Metrics:
    """The counters of one worker."""

    def __init__(self) -> None:
        """Register every metric anew."""
        registry = CollectorRegistry()
        self.requests = Counter(
            "potstill_requests", "Requests by endpoint and status.", ["endpoint", "status"], registry=registry
        )
        self.seconds = Histogram(
            "potstill_request_seconds", "Time from the last byte of a request to its answer.", ["endpoint"],
            buckets=_SECONDS, registry=registry,
        )  # fmt: skip
        self.stages = Counter(
            "potstill_stage_seconds", "Time spent by stage: tokenize, queue, run, decide.", ["stage"], registry=registry
        )
        self.texts = Counter(
            "potstill_texts", "Texts answered, by model and source.", ["model", "source"], registry=registry
        )
        self.tokens = Counter("potstill_tokens", "Tokens read by a model.", ["model"], registry=registry)
        self.truncated = Counter("potstill_truncated_texts", "Texts that were cut.", ["model"], registry=registry)
        self.waiting = Gauge(
            "potstill_waiting_texts", "Texts that wait for a session.", registry=registry, multiprocess_mode="livesum"
        )
        self.versions = Counter(
            "potstill_versions", "New versions of a bundle, by outcome.", ["model", "outcome"], registry=registry
        )
        self._registry = registry

    def render(self) -> bytes:
        """Return everything in the Prometheus text format."""
        if FOLDER_VARIABLE not in os.environ:
            return generate_latest(self._registry)
        together = CollectorRegistry()
        MultiProcessCollector(together)  # type: ignore[no-untyped-call]
        return generate_latest(together)
