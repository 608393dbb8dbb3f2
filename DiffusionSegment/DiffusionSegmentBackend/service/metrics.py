"""Metrics for Prometheus: counts and times, no label of a patient, a user or an address."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

from .sessions import Sessions

_PREFIX = "diffusion_segment_"
_SECONDS = (0.5, 1, 2, 5, 10, 20, 40, 60, 120, 300, 600)


class Metrics:
    """The metrics of one server."""

    def __init__(self, sessions: Sessions) -> None:
        self._registry = CollectorRegistry()
        self.refused_tokens = self._counter("refused_tokens", "Requests with a missing or wrong token")
        self.failures = self._counter("failures", "Refused requests and failed runs by error code", "code")
        self.runs = self._counter("runs", "Finished runs by outcome", "outcome")
        self.bytes_in = self._counter("received_bytes", "Bytes of slabs received, as sent")
        self.bytes_out = self._counter("sent_bytes", "Bytes of slabs sent, as sent")
        self._responses = self._counter("responses", "Answers by HTTP status", "status")
        self.run_seconds = Histogram(
            f"{_PREFIX}run_seconds", "Seconds of a run, without the queue", buckets=_SECONDS, registry=self._registry
        )
        self._gauge("sessions", "Open sessions").set_function(lambda: len(sessions.opened))
        self._gauge("runs_waiting", "Runs in the queue").set_function(lambda: sessions.queue.waiting)
        self._gauge("runs_active", "Runs in progress").set_function(lambda: sessions.queue.running)
        self._gauge("sessions_dropped", "Sessions dropped because they were idle").set_function(
            lambda: sessions.dropped
        )

    def answered(self, status: int) -> None:
        """Count an answer."""
        self._responses.labels(status=str(status)).inc()

    def run_ended(self, outcome: str, seconds: float) -> None:
        """Count a finished run."""
        self.runs.labels(outcome=outcome).inc()
        self.run_seconds.observe(seconds)

    def text(self) -> bytes:
        """All metrics in Prometheus' text format."""
        return generate_latest(self._registry)

    def _counter(self, name: str, help: str, *labels: str) -> Counter:
        return Counter(f"{_PREFIX}{name}", help, labels, registry=self._registry)

    def _gauge(self, name: str, help: str) -> Gauge:
        return Gauge(f"{_PREFIX}{name}", help, registry=self._registry)
