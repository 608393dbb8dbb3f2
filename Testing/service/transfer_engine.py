"""The real worker process with a stand-in for the networks: an answer of real size at once, so that transfer is timed.

The maps are made of the first scan that comes and kept, so that a second run takes no time for them.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "DiffusionSegment"))

from DiffusionSegmentBackend.imaging.volume import Volume, model_grid
from DiffusionSegmentBackend.pipeline.restore import map_on_grid
from DiffusionSegmentBackend.protocol.buffers import geometry_of, open_buffer
from DiffusionSegmentBackend.protocol.messages import Result, Segment
from DiffusionSegmentBackend.schema.report import Report
from DiffusionSegmentBackend.worker import server as worker
from DiffusionSegmentBackend.worker.answer import EngineAnswer, SendEarly

SPACING_MM = (3.0, 3.0, 3.0)


class StandIn:
    """Labels and regions of the scan, and two maps of float32 on a grid of 3 mm, as of a real run."""

    def __init__(self) -> None:
        self._maps: dict[str, Volume] = {}

    def __call__(self, request: Segment, progress: Callable[[str, int, int], None], early: SendEarly) -> EngineAnswer:
        scan, geometry = open_buffer(request.volume), geometry_of(request.volume)
        if not self._maps:
            volume = Volume(np.asarray(scan), geometry)
            grid = model_grid(volume, spacing=SPACING_MM)
            uncertainty = np.clip(grid.to_grid(volume.array) / 1000, 0, 1)
            self._maps = {
                "labels": Volume((volume.array > 60).astype(np.uint8), geometry),
                "regions": Volume((volume.array > 300).astype(np.uint8), geometry),
                "uncertainty": map_on_grid(uncertainty, (0, 0, 0), grid),
                "mutual_information": map_on_grid(uncertainty / 2, (0, 0, 0), grid),
            }
        return EngineAnswer(Result, dict(self._maps), {"report": Report.from_partial_json({})})


if __name__ == "__main__":
    worker.main(StandIn())
