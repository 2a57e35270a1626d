"""What Framegate counts (Prometheus), its children bound once: a look-up by labels costs more than the count."""

import os
from dataclasses import dataclass, field

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    disable_created_metrics,
    generate_latest,
)
from prometheus_client.multiprocess import MultiProcessCollector

MULTIPROCESS_DIR = "PROMETHEUS_MULTIPROC_DIR"
_BUCKETS_S = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30)


@dataclass(frozen=True, slots=True)
class _Bound:
    requests: Counter
    seconds: Histogram
    sent_bytes: Counter


@dataclass(slots=True)
class Metrics:
    """Counters of one process; `exposition` joins those of all workers."""

    registry: CollectorRegistry = field(default_factory=CollectorRegistry)
    requests: Counter = field(init=False)
    seconds: Histogram = field(init=False)
    sent_bytes: Counter = field(init=False)
    running: Gauge = field(init=False)
    refusals: Counter = field(init=False)
    _cached: dict[str, Counter] = field(init=False)
    _rendered: dict[str, Counter] = field(init=False)
    _rendition_seconds: Histogram = field(init=False)
    _bound: dict[tuple[str, str, int], _Bound] = field(init=False, default_factory=dict)

    def __post_init__(self) -> None:
        disable_created_metrics()  # type: ignore[no-untyped-call]  # a second series for each, of no use
        registry = self.registry
        labels = ("route", "method", "status")
        self.requests = Counter("framegate_requests", "Requests answered.", labels, registry=registry)
        self.seconds = Histogram(
            "framegate_request_seconds",
            "From a request's head to its last byte.",
            ("route",),
            buckets=_BUCKETS_S,
            registry=registry,
        )
        self.sent_bytes = Counter(
            "framegate_sent_bytes", "Bytes of bodies sent.", ("route",), registry=registry
        )
        self.running = Gauge(
            "framegate_requests_running",
            "Requests being answered.",
            registry=registry,
            multiprocess_mode="livesum",
        )
        self.refusals = Counter(
            "framegate_storage_refusals",
            "What buckets refused or failed at, by kind of error.",
            ("error",),
            registry=registry,
        )
        reads = Counter(
            "framegate_object_reads",
            "Reads of objects: from memory (hit), fetched (miss), found current (revalidated), passed on.",
            ("outcome",),
            registry=registry,
        )
        renditions = Counter(
            "framegate_renditions",
            "Smaller pictures: made, refused (no picture, too large), turned away (busy); processes killed.",
            ("outcome",),
            registry=registry,
        )
        self._rendered = {
            outcome: renditions.labels(outcome) for outcome in ("made", "refused", "busy", "killed")
        }
        self._rendition_seconds = Histogram(
            "framegate_rendition_seconds",
            "How long a process took for one smaller picture.",
            buckets=_BUCKETS_S,
            registry=registry,
        )
        outcomes = ("hit", "miss", "revalidated", "passed")
        self._cached = {outcome: reads.labels(outcome) for outcome in outcomes}

    def cached(self, outcome: str) -> None:
        """Count what the memory of hot objects was good for."""
        self._cached[outcome].inc()

    def rendered(self, outcome: str, seconds: float) -> None:
        """Count what came of a rendition, and the time that a process took for it, if any."""
        self._rendered[outcome].inc()
        if seconds:
            self._rendition_seconds.observe(seconds)

    def answered(self, route: str, method: str, status: int, sent_bytes: int, seconds: float) -> None:
        """Count one answered request."""
        bound = self._bound.get((route, method, status)) or self._bind(route, method, status)
        bound.requests.inc()
        bound.seconds.observe(seconds)
        bound.sent_bytes.inc(sent_bytes)

    def refused(self, error: Exception) -> None:
        """Count what a bucket refused."""
        self.refusals.labels(type(error).__name__).inc()

    def exposition(self) -> bytes:
        """Give the text of all workers together (Prometheus text format)."""
        if MULTIPROCESS_DIR not in os.environ:
            return generate_latest(self.registry)
        joined = CollectorRegistry()
        MultiProcessCollector(joined)  # type: ignore[no-untyped-call]  # the library's constructor is untyped
        return generate_latest(joined)

    def _bind(self, route: str, method: str, status: int) -> _Bound:
        shown = method if method in _METHODS else "other"
        bound = _Bound(
            self.requests.labels(route, shown, status),
            self.seconds.labels(route),
            self.sent_bytes.labels(route),
        )
        self._bound[route, method, status] = bound
        return bound


_METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})
