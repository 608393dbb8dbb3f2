"""The real worker process around an engine that labels by threshold, for tests of the panel.

The seed chooses a mishap: 13 is refused, 44 gives a report without volumes, 66 kills the worker, 99 is slow.
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

REFUSED, UNREADABLE, KILLED, SLOW = 13, 44, 66, 99


def engine(request: Segment, progress: Callable[[str, int, int], None]) -> Any:
    array = np.asarray(open_buffer(request.volume))
    steps = 500 if request.seed == SLOW else 4
    for step in range(steps):
        progress("refine", step, steps)
        time.sleep(0.02)
        if request.seed == REFUSED:
            raise DiffusionSegmentError(ErrorCode.MODALITY, "This is MR.", hint="Choose a CT.")
        if request.seed == KILLED:
            os.kill(os.getpid(), 9)
    labels = np.where(array > 900, 1, np.where(array > 300, 6, 0)).astype(np.uint8)
    doubt = np.linspace(0, 1, array.size, dtype=np.float32).reshape(array.shape)
    coordinates = np.stack(np.indices(array.shape)[::-1], axis=-1).astype(np.float32)
    return SimpleNamespace(
        labels=labels,
        uncertainty=doubt,
        mutual_information=doubt / 10,
        bodypart=coordinates if request.bodypart else None,
        report={"organs": [{"name": "spleen"}]} if request.seed == UNREADABLE else report(request),
    )


def organ(
    name: str, title: str, value: int, volume: float, low: float, high: float, confidence: float
) -> dict[str, Any]:
    return {
        "name": name,
        "title": title,
        "value": value,
        "volume_ml": volume,
        "volume_interval_ml": [low, high],
        "confidence": confidence,
    }


def report(request: Segment) -> dict[str, Any]:
    return {
        "organs": [
            organ("spleen", "Spleen", 1, 212.4, 180.0, 240.0, 0.93),
            organ("liver", "Liver", 6, 1512.0, 1400.0, 1600.0, 0.97),
            organ("pancreas", "Pancreas", 11, 0.0, 0.0, 2.0, 0.0),
        ],
        "review": [{"organ": "spleen", "sentence": "Spleen or stomach? 4.1 mL, 38 % likely wrong."}],
        "warnings": [],
        "timings_s": {"total": 1.0},
        "provenance": {"model": request.model, "seed": request.seed, "samples": request.samples},
    }


if __name__ == "__main__":
    worker.main(engine)
