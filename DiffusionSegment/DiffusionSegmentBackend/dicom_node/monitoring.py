"""Metrics in Prometheus' format and health over HTTP, without any value of a DICOM header."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric

from ..errors import DiffusionSegmentError, ErrorCode
from .ledger import JobState

_TEXT = "text/plain; version=0.0.4; charset=utf-8"
_SLOW_CLIENT_S = 5.0


@dataclass(frozen=True, kw_only=True)
class NodeStatus:
    """The state of a node at one moment.

    Attributes:
        jobs: number of recorded series in each state.
        images: number of images since the start by what became of them.
        oldest_s: age of the unfinished series that waits longest, in s; 0 without any.
        free_bytes: free space on the disk.
        runs: runs that succeeded since the start.
        run_s: their total duration, in s.
        worker_starts: starts of the worker process.
        faults: reasons why the node cannot take or finish work now; empty if it can.
    """

    jobs: dict[JobState, int]
    images: Counter[str]
    oldest_s: float
    free_bytes: int
    runs: int
    run_s: float
    worker_starts: int
    faults: tuple[str, ...]


class StatusCollector:
    """The metrics of a status, read anew at each request."""

    def __init__(self, status: Callable[[], NodeStatus]) -> None:
        self._status = status

    def collect(self) -> Iterator[Metric]:
        """The metrics, as `prometheus_client` asks for them."""
        status = self._status()
        jobs = GaugeMetricFamily("diffusion_segment_jobs", "Recorded series by state.", labels=["state"])
        for state, count in status.jobs.items():
            jobs.add_metric([state.value], count)
        yield jobs
        images = CounterMetricFamily("diffusion_segment_images", "Images by what became of them.", labels=["outcome"])
        for outcome, count in sorted(status.images.items()):
            images.add_metric([outcome], count)
        yield images
        prefix = "diffusion_segment_"
        yield GaugeMetricFamily(f"{prefix}oldest_job_seconds", "Age of the oldest unfinished series.", status.oldest_s)
        yield GaugeMetricFamily(f"{prefix}disk_free_bytes", "Free space for images and results.", status.free_bytes)
        yield CounterMetricFamily(f"{prefix}runs", "Successful runs.", status.runs)
        yield CounterMetricFamily(f"{prefix}run_seconds", "Duration of successful runs.", status.run_s)
        yield CounterMetricFamily(f"{prefix}worker_starts", "Starts of the worker process.", status.worker_starts)


class MonitoringServer:
    """Serves /metrics, /healthz (the process answers) and /readyz (it can take and finish work).

    Raises:
        DiffusionSegmentError: OPTION for a port that is taken.
    """

    def __init__(self, address: tuple[str, int], status: Callable[[], NodeStatus]) -> None:
        registry = CollectorRegistry()
        registry.register(StatusCollector(status))

        class Handler(BaseHTTPRequestHandler):
            timeout = _SLOW_CLIENT_S

            def do_GET(self) -> None:
                code, kind, body = _answer(self.path, registry, status)
                self.send_response(code)
                self.send_header("Content-Type", kind)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, format: str, *arguments: object) -> None:
                """Nothing: a request to a health endpoint every few seconds is no news."""

        try:
            self._server = ThreadingHTTPServer(address, Handler)
        except OSError as error:
            raise DiffusionSegmentError(
                ErrorCode.OPTION,
                f"Port {address[1]} cannot be listened on ({error.strerror or error}).",
                hint="Choose another --health-port.",
            ) from error
        threading.Thread(target=self._server.serve_forever, name="monitoring", daemon=True).start()

    @property
    def port(self) -> int:
        """The port that is listened on."""
        return int(self._server.server_address[1])

    def stop(self) -> None:
        """Close the port."""
        self._server.shutdown()
        self._server.server_close()


def _answer(path: str, registry: CollectorRegistry, status: Callable[[], NodeStatus]) -> tuple[int, str, bytes]:
    """Status code, content type and body of the answer to a GET request."""
    if path == "/metrics":
        return 200, _TEXT, generate_latest(registry)
    if path == "/healthz":
        return 200, _TEXT, b"ok\n"
    if path == "/readyz":
        faults = status().faults
        return (503, _TEXT, ("\n".join(faults) + "\n").encode()) if faults else (200, _TEXT, b"ready\n")
    return 404, _TEXT, b"There are /metrics, /healthz and /readyz.\n"
