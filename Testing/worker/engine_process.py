"""The real worker process around a small engine, so that its life can be tested in milliseconds.

The engine thresholds the volume in `steps` slow steps; `organs` names a mishap on the way.
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
        if mishap == "refuse":
            raise DiffusionSegmentError(ErrorCode.MODALITY, "This is MR.", hint="Use a CT.")
    labels = (array > 0).astype(np.uint8)
    zeros = np.zeros(array.shape, np.float32)
    return SimpleNamespace(
        labels=labels,
        uncertainty=zeros + 0.5,
        mutual_information=zeros,
        bodypart=None,
        report={"organs": [], "review": [], "seed": request.seed},
    )


if __name__ == "__main__":
    worker.main(engine)
