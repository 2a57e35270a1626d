"""What Framegate counts (Prometheus).

Requests are tallied in plain numbers, and added to Prometheus' own in batches: its locks and checks, four times
for each request, cost more than a picture's way through the service.
"""

import asyncio
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


FLUSH_EVERY_S = 0.1


@dataclass(slots=True)
class _Tally:
    """Answers of one route, method and status since the last flush, and the counters that they are added to."""

    requests: Counter
    histogram: Histogram
    sent: Counter
    seconds: list[float] = field(default_factory=list)
    sent_bytes: int = 0

    def flush(self) -> None:
        seconds, self.seconds = self.seconds, []
        if seconds:
            self.requests.inc(len(seconds))
            self.sent.inc(self.sent_bytes)
            self.sent_bytes = 0
            for value in seconds:
                self.histogram.observe(value)


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
    _reads: dict[str, int] = field(init=False)
    _tallies: dict[tuple[str, str, int], _Tally] = field(init=False, default_factory=dict)
    _running: int = field(init=False, default=0)
    _timer: asyncio.TimerHandle | None = field(init=False, default=None)
    _retried: dict[str, Counter] = field(init=False)
    _resumed: dict[str, Counter] = field(init=False)
    _rendered: dict[str, Counter] = field(init=False)
    _rendition_seconds: Histogram = field(init=False)

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
        self._reads = dict.fromkeys(outcomes, 0)
        retries = Counter(
            "framegate_upstream_retries",
            "Requests to buckets made again before the first byte, by what went wrong.",
            ("reason",),
            registry=registry,
        )
        self._retried = {reason: retries.labels(reason) for reason in _REASONS}
        resumes = Counter(
            "framegate_upstream_resumes",
            "Bodies that broke off: gone on with at the same byte (resumed), or not (failed).",
            ("outcome",),
            registry=registry,
        )
        self._resumed = {outcome: resumes.labels(outcome) for outcome in ("resumed", "failed")}

    def cached(self, outcome: str) -> None:
        """Count what the memory of hot objects was good for."""
        self._reads[outcome] += 1

    def entered(self) -> None:
        """Count a request that begins."""
        self._running += 1
        if self._timer is None:
            self._flush_soon()

    def retried(self, reason: str) -> None:
        """Count a request to a bucket that is made again."""
        self._retried[reason].inc()

    def resumed(self, outcome: str) -> None:
        """Count how a body that broke off went on."""
        self._resumed[outcome].inc()

    def rendered(self, outcome: str, seconds: float) -> None:
        """Count what came of a rendition, and the time that a process took for it, if any."""
        self._rendered[outcome].inc()
        if seconds:
            self._rendition_seconds.observe(seconds)

    def answered(self, route: str, method: str, status: int, sent_bytes: int, seconds: float) -> None:
        """Count the end of a request that `entered`."""
        self._running -= 1
        shown = method if method in _METHODS else "other"  # else the caller's own words fill our memory
        tally = self._tallies.get((route, shown, status)) or self._new_tally(route, shown, status)
        tally.seconds.append(seconds)
        tally.sent_bytes += sent_bytes
        if self._timer is None:
            self._flush_soon()

    def _flush_soon(self) -> None:
        self._timer = asyncio.get_running_loop().call_later(FLUSH_EVERY_S, self.flush)

    def flush(self) -> None:
        """Add what was tallied to Prometheus' counters; runs by itself `FLUSH_EVERY_S` after a request."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self.running.set(self._running)
        for tally in self._tallies.values():
            tally.flush()
        for outcome, count in self._reads.items():
            if count:
                self._reads[outcome] = 0
                self._cached[outcome].inc(count)

    def refused(self, error: Exception) -> None:
        """Count what a bucket refused."""
        self.refusals.labels(type(error).__name__).inc()

    def exposition(self) -> bytes:
        """Give the text of all workers together (Prometheus text format)."""
        self.flush()
        if MULTIPROCESS_DIR not in os.environ:
            return generate_latest(self.registry)
        joined = CollectorRegistry()
        MultiProcessCollector(joined)  # type: ignore[no-untyped-call]  # the library's constructor is untyped
        return generate_latest(joined)

    def _new_tally(self, route: str, method: str, status: int) -> _Tally:
        tally = self._tallies[route, method, status] = _Tally(
            self.requests.labels(route, method, status),
            self.seconds.labels(route),
            self.sent_bytes.labels(route),
        )
        return tally


_REASONS = (
    "refused", "connect_timeout", "no_answer", "cut_off", "stalled", "server_error", "throttled", "clock",
)  # fmt: skip
_METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})
