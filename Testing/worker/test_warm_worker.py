"""Time saved by a warm session: the same scan twice with the real worker. `pytest -s` prints the seconds."""

from __future__ import annotations

import time

import numpy as np
import pytest
from DiffusionSegmentBackend.imaging.volume import Volume
from DiffusionSegmentBackend.phantom.phantom import make_phantom
from DiffusionSegmentBackend.protocol.messages import Result
from DiffusionSegmentLib.worker.client import WorkerClient
from DiffusionSegmentLib.worker.subprocess_transport import SubprocessTransport

SIDE = 64


def scan() -> Volume:
    """A single tile, so that the start takes most of the first request also on a busy machine."""
    phantom = make_phantom(seed=0, spacing_mm=(3.0, 3.0, 3.0))
    middle = tuple(slice((n - SIDE) // 2, (n + SIDE) // 2) for n in phantom.image.shape)
    return Volume(np.ascontiguousarray(phantom.image[middle]), phantom.index_to_lps)


@pytest.mark.slow
def test_the_second_request_is_faster_and_gives_the_same_result() -> None:
    volume = scan()
    transport = SubprocessTransport()
    client = WorkerClient(lambda: transport)
    results: list[Result] = []
    seconds = []
    client.finished.connect(results.append)
    client.failed.connect(lambda _, error: pytest.fail(str(error)))
    for count in (1, 2):
        began = time.monotonic()
        client.segment(volume.array, volume.index_to_lps, samples=1, steps=1, device="cpu", force=True)
        while len(results) < count:
            assert time.monotonic() - began < 300
            transport.poll(0.05)
        seconds.append(time.monotonic() - began)
    client.close()
    print(f"first request {seconds[0]:.1f} s, second {seconds[1]:.1f} s, saved {seconds[0] - seconds[1]:.1f} s")
    assert seconds[1] < seconds[0]
    assert results[0].report["organs"] == results[1].report["organs"]
