"""What a server counts, for Prometheus; the sum over all worker processes where there are several.

prometheus_client adds worker processes up through the folder in PROMETHEUS_MULTIPROC_DIR; it must be set before
this module is imported.
"""

import os
from typing import Any

from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.metrics import MetricWrapperBase
from prometheus_client.multiprocess import MultiProcessCollector

FOLDER_VARIABLE = "PROMETHEUS_MULTIPROC_DIR"
CONTENT_TYPE = CONTENT_TYPE_LATEST
_SECONDS = (0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10)


class ByLabels(dict[tuple[str, ...], Any]):
    """The children of a metric by their label values; looking one up in the metric itself takes a lock each time."""

    def __init__(self, metric: MetricWrapperBase) -> None:
        """Start without any child."""
        super().__init__()
        self._metric = metric

    def __missing__(self, labels: tuple[str, ...]) -> Any:
        """Make the child of `labels`."""
        child = self[labels] = self._metric.labels(*labels)
        return child


class Metrics:
    """The counters of one worker; all but `waiting` by their label values."""

    def __init__(self) -> None:
        """Register every metric anew."""
        self._registry = registry = CollectorRegistry()

        def count(name: str, text: str, *labels: str) -> ByLabels:
            return ByLabels(Counter(f"potstill_{name}", text, labels, registry=registry))

        self.requests = count("requests", "Requests by endpoint and status.", "endpoint", "status")
        self.stages = count("stage_seconds", "Time spent by stage: tokenize, queue, run, decide.", "stage")
        self.texts = count("texts", "Texts answered, by model and by who answered.", "model", "source")
        self.tokens = count("tokens", "Tokens read, by model.", "model")
        self.truncated = count("truncated_texts", "Texts that were cut, by model.", "model")
        self.versions = count("versions", "New versions of a bundle by outcome.", "model", "outcome")
        about = "Time from the first byte of a body to its answer."
        self.seconds = ByLabels(
            Histogram("potstill_request_seconds", about, ["endpoint"], buckets=_SECONDS, registry=registry)
        )
        self.waiting = Gauge(
            "potstill_waiting_texts", "Texts that wait for a session.", registry=registry, multiprocess_mode="livesum"
        )

    def render(self) -> bytes:
        """Return everything in the Prometheus text format."""
        if FOLDER_VARIABLE not in os.environ:
            return generate_latest(self._registry)
        together = CollectorRegistry()
        MultiProcessCollector(together)  # type: ignore[no-untyped-call]
        return generate_latest(together)
