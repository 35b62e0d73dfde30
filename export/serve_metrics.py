"""What a server counts, for Prometheus; the sum over all worker processes where there are several.

prometheus_client adds worker processes up through the folder in PROMETHEUS_MULTIPROC_DIR; it must be set before
this module is imported.
"""

import os
from collections import defaultdict

from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.multiprocess import MultiProcessCollector

FOLDER_VARIABLE = "PROMETHEUS_MULTIPROC_DIR"
CONTENT_TYPE = CONTENT_TYPE_LATEST
_SECONDS = (0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10)


class Tally:
    """What a metric has counted since it was last written down, by label values.

    To write down every count at once would cost more than to decode a request: several files are touched for each.
    """

    def __init__(self, metric: Counter) -> None:
        """Start at nothing."""
        self._metric = metric
        self._amounts: dict[tuple[str, ...], float] = defaultdict(float)

    def add(self, *labels: str, amount: float = 1.0) -> None:
        """Count `amount` more."""
        self._amounts[labels] += amount

    def flush(self) -> None:
        """Write down what was counted."""
        for labels, amount in self._amounts.items():
            self._metric.labels(*labels).inc(amount)
        self._amounts.clear()


class Samples:
    """The same for a histogram, which is told every amount."""

    def __init__(self, metric: Histogram) -> None:
        """Start with none."""
        self._metric = metric
        self._amounts: dict[tuple[str, ...], list[float]] = defaultdict(list)

    def add(self, *labels: str, amount: float) -> None:
        """Note one amount."""
        self._amounts[labels].append(amount)

    def flush(self) -> None:
        """Write down what was noted."""
        for labels, amounts in self._amounts.items():
            child = self._metric.labels(*labels)
            for amount in amounts:
                child.observe(amount)
        self._amounts.clear()


class Metrics:
    """The counters of one worker, written down for all to see by `flush`."""

    def __init__(self) -> None:
        """Register every metric anew."""
        self._registry = registry = CollectorRegistry()

        def count(name: str, text: str, *labels: str) -> Tally:
            return Tally(Counter(f"potstill_{name}", text, labels, registry=registry))

        self.requests = count("requests", "Requests by endpoint and status.", "endpoint", "status")
        self.stages = count("stage_seconds", "Time spent by stage: tokenize, queue, run, decide.", "stage")
        self.texts = count("texts", "Texts answered, by model and by who answered.", "model", "source")
        self.tokens = count("tokens", "Tokens read, by model.", "model")
        self.truncated = count("truncated_texts", "Texts that were cut, by model.", "model")
        self.versions = count("versions", "New versions of a bundle by outcome.", "model", "outcome")
        about = "Time from the first byte of a body to its answer."
        self.seconds = Samples(
            Histogram("potstill_request_seconds", about, ["endpoint"], buckets=_SECONDS, registry=registry)
        )
        self._waiting = Gauge(
            "potstill_waiting_texts", "Texts that wait for a session.", registry=registry, multiprocess_mode="livesum"
        )
        self._all = (self.requests, self.stages, self.texts, self.tokens, self.truncated, self.versions, self.seconds)

    def flush(self, waiting_texts: int) -> None:
        """Write down what was counted, and how many texts wait now."""
        for each in self._all:
            each.flush()
        self._waiting.set(waiting_texts)

    def render(self) -> bytes:
        """Return everything that was written down, in the Prometheus text format."""
        if FOLDER_VARIABLE not in os.environ:
            return generate_latest(self._registry)
        together = CollectorRegistry()
        MultiProcessCollector(together)  # type: ignore[no-untyped-call]
        return generate_latest(together)
