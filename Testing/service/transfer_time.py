"""How much longer a run takes on a server over loopback than with a local worker, networks left out.

`PYTHONPATH=DiffusionSegment:Testing python Testing/service/transfer_time.py [--shape K J I] [--runs N]` prints the
seconds of a run, with TLS: one of a new scan (all voxels are sent), and a later one (the scan is on the server).
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import trustme
from DiffusionSegmentLib.worker.client import WorkerClient
from fixtures.running_service import RemoteTransport, RunningService
from fixtures.subprocess_transport import SubprocessTransport

INDEX_TO_LPS = np.diag([0.8, 0.8, 1.5, 1.0])
ENGINE = [sys.executable, "-u", str(Path(__file__).with_name("transfer_engine.py"))]


def ct_like(shape: tuple[int, int, int]) -> np.ndarray:
    """A body of soft tissue and bone with noise in air, int16 HU."""
    random = np.random.default_rng(0)
    j, i = np.ogrid[-1 : 1 : shape[1] * 1j, -1 : 1 : shape[2] * 1j]
    plane = np.where((j / 0.6) ** 2 + (i / 0.8) ** 2 < 1, 40.0, -1000.0) + 600 * ((j - 0.3) ** 2 + i**2 < 0.01)
    noise = random.normal(0, 12, (8, *shape[1:]))
    slices = np.rint(plane + noise).astype(np.int16)
    return np.ascontiguousarray(slices[np.arange(shape[0]) % 8])


class TimedClient:
    """A client whose runs are timed."""

    def __init__(self, create) -> None:  # type: ignore[no-untyped-def]
        self._transports: list[SubprocessTransport] = []

        def made() -> SubprocessTransport:
            self._transports.append(create())
            return self._transports[-1]

        self.client = WorkerClient(made)
        self._answers: list[object] = []
        self.client.finished.connect(self._answers.append)
        self.client.failed.connect(lambda _, error: self._answers.append(error))

    def seconds(self, scan: np.ndarray, version: int) -> float:
        """The seconds of a run, from the request to its answer in local files."""
        self._answers.clear()
        started = time.perf_counter()
        self.client.segment(scan, INDEX_TO_LPS, version=version)
        while not self._answers:
            self._transports[-1].poll(0.01)
        seconds = time.perf_counter() - started
        answer = self._answers[0]
        if isinstance(answer, Exception):
            raise answer
        self.client.release(answer)  # type: ignore[arg-type]
        return seconds


def measure(client: TimedClient, scan: np.ndarray, runs: int) -> dict[str, float]:
    """The fastest of some runs with a scan that is new, and with one that was sent before."""
    client.seconds(scan, 1)
    new = min(client.seconds(scan, 2 + number) for number in range(runs))
    same = min(client.seconds(scan, 1 + runs) for number in range(runs))
    return {"new scan": round(new, 2), "same scan": round(same, 2)}


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--shape", type=int, nargs=3, default=(300, 512, 512))
    parser.add_argument("--runs", type=int, default=3)
    options = parser.parse_args()
    scan = ct_like(tuple(options.shape))
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        authority = trustme.CA()
        authority.cert_pem.write_to_path(folder / "ca.pem")
        certificate = authority.issue_cert("127.0.0.1")
        certificate.private_key_and_cert_chain_pem.write_to_path(folder / "server.pem")
        tls = {"tls_cert": str(folder / "server.pem"), "tls_key": str(folder / "server.pem")}
        service = RunningService(folder, worker_command=ENGINE, **tls)
        remote = TimedClient(lambda: RemoteTransport(service.connection(certificate=str(folder / "ca.pem"))))
        local = TimedClient(lambda: SubprocessTransport(ENGINE))
        try:
            results = {"local": measure(local, scan, options.runs), "server": measure(remote, scan, options.runs)}
            beyond = {kind: round(results["server"][kind] - results["local"][kind], 2) for kind in results["local"]}
            print(json.dumps({**results, "beyond": beyond}, indent=2))
        finally:
            local.client.close()
            remote.client.close()
            service.close()


if __name__ == "__main__":
    main()
