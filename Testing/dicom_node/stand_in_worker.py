"""The real worker with a stand-in for the networks: labels are ranges of HU, so that a test knows every voxel.

DICOM SEG and report are those of the real worker. The argument is a folder: a run waits while it holds a file `hold`,
and the process ends in a run if it holds a file `crash`, which is deleted.
"""

from __future__ import annotations

import os
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "DiffusionSegment"))

from DiffusionSegmentBackend.imaging.volume import Volume
from DiffusionSegmentBackend.models.manifest import find_model, read_description
from DiffusionSegmentBackend.pipeline.progress import Progress
from DiffusionSegmentBackend.protocol.buffers import geometry_of, open_buffer
from DiffusionSegmentBackend.protocol.messages import Result, Segment, Task
from DiffusionSegmentBackend.schema.report import OrganResult, Report
from DiffusionSegmentBackend.worker import server as worker
from DiffusionSegmentBackend.worker.answer import EngineAnswer, SendEarly
from DiffusionSegmentBackend.worker.engine import PipelineEngine

HOLD, CRASH, RUNS = "hold", "crash", "runs"
RANGES_HU = ((30, 60), (60, 120), (120, 3000))
_PIPELINE = PipelineEngine()


def stand_in_labels(array: np.ndarray) -> np.ndarray:
    """Label n + 1 for values in `RANGES_HU[n]`."""
    labels = np.zeros(array.shape, np.uint8)
    for value, (low, high) in enumerate(RANGES_HU, start=1):
        labels[(array >= low) & (array < high)] = value
    return labels


def engine(request: Task, progress: Progress, early: SendEarly) -> EngineAnswer:
    if not isinstance(request, Segment):
        return _PIPELINE(request, progress, early)
    folder = Path(sys.argv[1])
    with open(folder / RUNS, "a", encoding="utf-8") as file:
        file.write(f"{request.id}\n")
    progress("refine", 0, 1)
    while (folder / HOLD).exists():
        time.sleep(0.02)
    if (folder / CRASH).exists():
        (folder / CRASH).unlink()
        os.kill(os.getpid(), 9)
    geometry = geometry_of(request.volume)
    labels = stand_in_labels(open_buffer(request.volume))
    zeros = np.zeros(labels.shape, np.float32)
    maps: dict[str, Any] = {"labels": labels, "uncertainty": zeros, "mutual_information": zeros}
    volumes = {name: Volume(array, geometry) for name, array in maps.items()}
    return EngineAnswer(Result, volumes, {"report": _report(request, volumes["labels"])})


def _report(request: Segment, labels: Volume) -> Report:
    model = read_description(find_model(request.model))
    made_by = {"software": "DiffusionSegment", "model": model.name, "version": "stand-in", "seed": request.seed}
    report = Report.from_partial_json({"provenance": made_by})
    organs = []
    for label in model.labels:
        volume = round(float((labels.array == label.value).sum()) * labels.voxel_ml, 2)
        organs.append(
            OrganResult(
                name=label.name,
                title=label.title,
                value=label.value,
                volume_ml=volume,
                volume_interval_ml=(volume, volume),
                confidence=1.0,
            )
        )
    return replace(report, organs=tuple(organs))


if __name__ == "__main__":
    worker.main(engine)
