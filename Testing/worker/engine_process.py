"""The real worker process around a small engine, so that its life can be tested in milliseconds.

The engine thresholds the volume in `steps` slow steps; `organs` names a mishap on the way. An argument is the idle
time in seconds.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "DiffusionSegment"))

from DiffusionSegmentBackend import worker
from DiffusionSegmentBackend.buffers import open_buffer
from DiffusionSegmentBackend.errors import DiffusionSegmentError, ErrorCode
from DiffusionSegmentBackend.protocol import Segment

STEP_SECONDS = 0.02


class TooLittleMemoryAtTheEnd:
    """A result of which the first maps can be written, the last not."""

    def __init__(self, labels: np.ndarray, zeros: np.ndarray, report: dict[str, Any]) -> None:
        self.labels, self.uncertainty, self.report = labels, zeros, report

    @property
    def mutual_information(self) -> np.ndarray:
        raise MemoryError


def engine(request: Segment, progress: Callable[[str, int, int], None]) -> Any:
    array = open_buffer(request.volume)
    steps = request.steps or 1
    mishap = request.organs[0] if request.organs else ""
    print("a stray print that must not reach the protocol")
    for step in range(steps):
        progress("refine", step, steps)
        time.sleep(STEP_SECONDS)
        if mishap == "crash":
            os.kill(os.getpid(), 9)
        if mishap == "bug":
            raise ZeroDivisionError("a bug")
        if mishap == "memory":
            raise MemoryError
        if mishap == "exit":
            raise SystemExit(3)
        if mishap == "refuse":
            raise DiffusionSegmentError(ErrorCode.MODALITY, "This is MR.", hint="Use a CT.")
    labels = (array > 0).astype(np.uint8)
    zeros = np.zeros(array.shape, np.float32)
    report: dict[str, Any] = {"organs": [], "review": [], "seed": request.seed}
    if mishap == "unspeakable":
        report["confidence"] = float("nan")
    if mishap == "numpy":
        report["confidence"] = np.float32(0.5)
    if mishap == "late memory":
        return TooLittleMemoryAtTheEnd(labels, zeros, report)
    return SimpleNamespace(
        labels=labels,
        uncertainty=zeros + 0.5,
        mutual_information=zeros,
        bodypart=None,
        report=report,
    )


if __name__ == "__main__":
    worker.main(engine, idle_seconds=float(sys.argv[1]) if len(sys.argv) > 1 else None)
