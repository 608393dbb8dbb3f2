"""The real worker process with a small engine, so that its states can be tested in milliseconds.

The engine thresholds the volume in `steps` slow steps; `organs` names a fault. An argument is the idle
time in seconds.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "DiffusionSegment"))

from DiffusionSegmentBackend.errors import DiffusionSegmentError, ErrorCode
from DiffusionSegmentBackend.imaging.volume import Volume
from DiffusionSegmentBackend.protocol.buffers import geometry_of, open_buffer
from DiffusionSegmentBackend.protocol.messages import Result, Segment
from DiffusionSegmentBackend.worker import server as worker
from DiffusionSegmentBackend.worker.answer import EngineAnswer, SendEarly

STEP_SECONDS = 0.02


class TooLittleMemory:
    """A map that does not fit into memory."""

    index_to_lps = np.eye(4)

    @property
    def array(self) -> np.ndarray:
        raise MemoryError


class AcceleratorError(RuntimeError):
    """Named like the exception of PyTorch for errors of a GPU."""


FAULTS: dict[str, BaseException] = {
    "bug": ZeroDivisionError("a bug"),
    "memory": MemoryError(),
    "exit": SystemExit(3),
    "device lost": AcceleratorError("CUDA error: the device went away"),
    "refuse": DiffusionSegmentError(ErrorCode.MODALITY, "This is MR.", hint="Use a CT."),
}


def engine(request: Segment, progress: Callable[[str, int, int], None], early: SendEarly) -> EngineAnswer:
    array = open_buffer(request.volume)
    steps = request.steps or 1
    fault = request.organs[0] if request.organs else ""
    print("a stray print that must not reach the protocol")
    for step in range(steps):
        progress("refine", step, steps)
        time.sleep(STEP_SECONDS)
        if fault == "crash":
            os.kill(os.getpid(), 9)
        if fault in FAULTS:
            raise FAULTS[fault]
    labels = (array > 0).astype(np.uint8)
    zeros = np.zeros(array.shape, np.float32)
    report: dict[str, Any] = {"organs": [], "review": [], "seed": request.seed}
    if fault == "nan":
        report["confidence"] = float("nan")
    if fault == "numpy":
        report["confidence"] = np.float32(0.5)
    geometry = geometry_of(request.volume)
    maps: dict[str, Any] = {
        "labels": Volume(labels, geometry),
        "uncertainty": Volume(zeros + 0.5, geometry),
        "mutual_information": Volume(zeros, geometry),
    }
    if fault == "late memory":
        maps["mutual_information"] = TooLittleMemory()
    return EngineAnswer(Result, maps, {"report": report})


if __name__ == "__main__":
    worker.main(engine, idle_seconds=float(sys.argv[1]) if len(sys.argv) > 1 else None)
