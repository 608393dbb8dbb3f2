"""The real worker process around an engine that labels by threshold, for tests of the panel.

The seed chooses the behaviour: 13 is refused, 44 gives a report without a total of its times, 66 kills the worker, 99
is slow, 22 gives two regions to review with their voxels, and two alternatives of the first: no organ, and liver in
two of its rows; with 23 these come only on request. A review returns the given labels. For other requests, similarity
falls with the distance to the point, and a fine-tuned model lists the names it was sent.
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "DiffusionSegment"))

from DiffusionSegmentBackend.errors import DiffusionSegmentError, ErrorCode
from DiffusionSegmentBackend.imaging.volume import Volume
from DiffusionSegmentBackend.models.folders import bundled_models_folder, user_models_folder
from DiffusionSegmentBackend.protocol.buffers import geometry_of, open_buffer
from DiffusionSegmentBackend.protocol.messages import (
    Alternatives,
    FineTune,
    FineTuned,
    Preview,
    RegionAlternatives,
    Request,
    Result,
    Review,
    Segment,
    Similar,
    Similarity,
)
from DiffusionSegmentBackend.schema.fine_tuning_report import AnnotatedOrgan, FineTuningReport
from DiffusionSegmentBackend.schema.region_alternative import AlternativesOfRegion, RegionAlternative
from DiffusionSegmentBackend.schema.report import Report
from DiffusionSegmentBackend.worker import server as worker
from DiffusionSegmentBackend.worker.answer import EngineAnswer, SendEarly
from DiffusionSegmentBackend.worker.engine import PipelineEngine

REFUSED, UNCERTAIN, ON_REQUEST, UNREADABLE, KILLED, SLOW = 13, 22, 23, 44, 66, 99
MARGIN = {"mm": 4.2, "contained": 0.99, "coverage": 0.9, "scans": 22, "missed": 1}
# Values from this one on are other structures than organs.
OTHER = 14
UNCERTAIN_BOXES = ((slice(8, 9), slice(2, 6), slice(3, 8)), (slice(5, 6), slice(2, 6), slice(3, 8)))


def engine(request: Request, progress: Callable[[str, int, int], None], early: SendEarly) -> EngineAnswer:
    if isinstance(request, Similar):
        return similarity(request, progress)
    if isinstance(request, FineTune):
        return fineTuned(request, progress)
    if not isinstance(request, Segment):
        return PipelineEngine()(request, progress, early)
    array = np.asarray(open_buffer(request.volume))
    if request.preview:
        bright = (array > 900).astype(np.uint8)
        early(EngineAnswer(Preview, {"labels": Volume(bright, geometry_of(request.volume))}))
    refine(request.seed, progress)
    bright = np.where(array > 900, 1, np.where(array > 300, 6, 0)).astype(np.uint8)
    labels = reviewed(request) if isinstance(request, Review) else bright
    if isinstance(request, Alternatives) and request.seed in (UNCERTAIN, ON_REQUEST):
        return EngineAnswer(RegionAlternatives, *alternatives(request))
    uncertainty = np.linspace(0, 1, array.size, dtype=np.float32).reshape(array.shape)[::2, ::2, ::2]
    coordinates = np.stack(np.indices(array.shape)[::-1], axis=-1).astype(np.float32)
    on_grid = {"uncertainty": uncertainty, "mutual_information": uncertainty / 10}
    maps = {"labels": labels}
    if request.bodypart:
        maps["bodypart"] = coordinates
    if request.seed in (UNCERTAIN, ON_REQUEST):
        maps["regions"] = np.zeros(array.shape, np.uint8)
        for number, box in enumerate(UNCERTAIN_BOXES, start=1):
            maps["regions"][box] = number
    geometry = geometry_of(request.volume)
    reported = report(request)
    if request.seed == UNREADABLE:
        reported = replace(reported, timings_s={})
    volumes = {name: Volume(array, geometry) for name, array in maps.items()}
    volumes |= {name: Volume(array, geometry @ np.diag([2.0, 2.0, 2.0, 1.0])) for name, array in on_grid.items()}
    marks, values = alternatives(request) if request.seed == UNCERTAIN else ({}, {})
    return EngineAnswer(Result, {**volumes, **marks}, {"report": reported, **values})


def reviewed(request: Review) -> np.ndarray:
    """The given labels without other structures."""
    given = np.asarray(open_buffer(request.labels))
    return np.where(given < OTHER, given, 0).astype(np.uint8)


def refine(seed: int, progress: Callable[[str, int, int], None]) -> None:
    """Some steps, with the failure of the seed."""
    steps = 500 if seed == SLOW else 4
    for step in range(steps):
        progress("refine", step, steps)
        time.sleep(0.02)
        if seed == REFUSED:
            raise DiffusionSegmentError(ErrorCode.MODALITY, "This is MR.", hint="Choose a CT.")
        if seed == KILLED:
            os.kill(os.getpid(), 9)


def alternatives(request: Segment) -> tuple[dict[str, Volume], dict[str, Any]]:
    """Marks and list of the alternatives of the regions to review."""
    start = (3, 2, 8)
    marks = np.zeros((2, 1, 4, 5), np.uint8)
    marks[0] = 1
    marks[1, :, :2] = 6 + 1
    entries = tuple(
        RegionAlternative(probability=probability, volume_ml=0.1, sentence=sentence, start_ijk=start)
        for probability, sentence in ((0.3, "Background, not spleen: 0.1 mL."), (0.1, "Liver, not spleen: 0.1 mL."))
    )
    first, second = (tuple(region["centroid_lps_mm"]) for region in uncertainRegions(request.seed))
    listed = (
        AlternativesOfRegion(centroid_lps_mm=first, alternatives=entries),
        AlternativesOfRegion(centroid_lps_mm=second),
    )
    return {"alternative_marks": Volume(marks, geometry_of(request.volume))}, {"alternatives": listed}


def similarity(request: Similar, progress: Callable[[str, int, int], None]) -> EngineAnswer:
    """1 at the point, 0.1 less every 2 mm, on every second voxel."""
    for step in range(4):
        progress("features", step, 4)
        time.sleep(0.02)
    geometry = geometry_of(request.volume) @ np.diag([2.0, 2.0, 2.0, 1.0])
    shape = tuple(-(-n // 2) for n in request.volume.shape)
    positions = np.indices(shape)[::-1].reshape(3, -1)
    lps = (geometry @ np.vstack([positions, np.ones(positions.shape[1])]))[:3]
    distance = np.linalg.norm(lps - np.array(request.point_lps)[:, None], axis=0).reshape(shape)
    return EngineAnswer(Similarity, {"similarity": Volume((1 - 0.05 * distance).astype(np.float32), geometry)})


def fineTuned(request: FineTune, progress: Callable[[str, int, int], None]) -> EngineAnswer:
    """A folder with the bundled description and the names that were sent, of those labels that are drawn."""
    steps = 500 if request.name == "slow" else 4
    for step in range(steps):
        progress("fine_tune", step, steps)
        time.sleep(0.02)
    drawn = {int(value) for value in np.unique(open_buffer(request.labels)) if value}
    raw = json.loads((bundled_models_folder() / "abdomen-ct" / "model.json").read_text(encoding="utf-8"))
    entries = [
        {**raw["labels"][0], "value": n, "name": name, "title": name.capitalize()}
        for n, name in enumerate(request.names, start=1)
        if n in drawn
    ]
    folder = user_models_folder() / request.name
    folder.mkdir(parents=True)
    text = json.dumps({**raw, "name": request.name, "labels": entries, "minutes": request.minutes})
    (folder / "model.json").write_text(text, encoding="utf-8")
    organs = tuple(AnnotatedOrgan(name=entry["name"], title=entry["title"], drawn_ml=1.0) for entry in entries)
    made = FineTuningReport(folder=str(folder), base=request.model, seconds=1.0, organs=organs)
    return EngineAnswer(FineTuned, {}, {"name": request.name, "report": made})


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


def uncertainRegion(organ: str, competingOrgan: str, centroid: list[float], volume: float) -> dict[str, Any]:
    sentence = f"{organ.capitalize()} or {competingOrgan}? {volume} mL, about 38 % expected to be wrong."
    return {
        "organ": organ,
        "competing_organ": competingOrgan,
        "centroid_lps_mm": centroid,
        "volume_ml": volume,
        "score": 1.6,
        "sentence": sentence,
    }


def uncertainRegions(seed: int) -> list[dict[str, Any]]:
    """The regions to review of a scan whose voxels are (-1, 1.5, 2) mm apart from the origin of LPS on."""
    if seed not in (UNCERTAIN, ON_REQUEST):
        return [uncertainRegion("spleen", "stomach", [4.0, 8.0, 5.0], 4.1)]
    return [
        uncertainRegion("spleen", "background", [-5.0, 5.25, 16.0], 0.1),
        uncertainRegion("liver", "stomach", [-5.0, 5.25, 10.0], 0.1),
    ]


def report(request: Segment) -> Report:
    """A report that contains the request as received in the path of its input."""
    received = json.dumps({"type": request.type, **asdict(request)})
    provenance = {
        name: getattr(request, name) for name in ("model", "seed", "samples", "steps", "sampler", "organs", "region")
    }
    values = {
        "organs": [
            {**organ("spleen", "Spleen", 1, 212.4, 180.0, 240.0, 0.93), "margin": MARGIN},
            organ("liver", "Liver", 6, 1512.0, 1400.0, 1600.0, 0.97),
            organ("pancreas", "Pancreas", 11, 0.0, 0.0, 2.0, 0.0),
        ],
        "review": uncertainRegions(request.seed),
        "warnings": [],
        "timings_s": {"total": 1.0},
        "provenance": {**provenance, "input": received},
    }
    reported = Report.from_partial_json(values)
    return replace(reported, reviewed=request.segments) if isinstance(request, Review) else reported


if __name__ == "__main__":
    worker.main(engine)
