"""The real worker process with a stand-in for the networks: maps of the scan's size at once, so that transfer is timed.

The maps are made of the first scan that comes and kept, so that a second run takes no time for them.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "DiffusionSegment"))

from DiffusionSegmentBackend.imaging.volume import Volume
from DiffusionSegmentBackend.protocol.buffers import geometry_of, open_buffer
from DiffusionSegmentBackend.protocol.messages import Result, Segment
from DiffusionSegmentBackend.schema.report import Report
from DiffusionSegmentBackend.worker import server as worker
from DiffusionSegmentBackend.worker.answer import EngineAnswer, SendEarly


class StandIn:
    """Labels, regions and two maps of float32, as of a real run."""

    def __init__(self) -> None:
        self._maps: dict[str, np.ndarray] = {}

    def __call__(
        self, request: Segment, progress: Callable[[str, int, int], None], early: SendEarly
    ) -> EngineAnswer:
        scan, geometry = open_buffer(request.volume), geometry_of(request.volume)
        if not self._maps:
            body = np.asarray(scan) > -500
            uncertainty = np.where(body, np.clip(np.asarray(scan) / np.float32(1000), 0, 1), 0).astype(np.float32)
            self._maps = {
                "labels": (np.asarray(scan) > 60).astype(np.uint8),
                "uncertainty": uncertainty,
                "mutual_information": uncertainty / 2,
                "regions": (np.asarray(scan) > 300).astype(np.uint8),
            }
        maps = {name: Volume(values, geometry) for name, values in self._maps.items()}
        return EngineAnswer(Result, maps, {"report": Report.from_partial_json({})})


if __name__ == "__main__":
    worker.main(StandIn())
