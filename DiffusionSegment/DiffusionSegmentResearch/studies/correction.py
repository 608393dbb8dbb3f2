"""What corrections are worth: a simulated reader mends the largest mistake again and again, in three ways."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np
from DiffusionSegmentBackend.datasets.labelled_cases import CaseFiles
from DiffusionSegmentBackend.imaging.label_maps import read_label_map
from DiffusionSegmentBackend.imaging.volume import Volume
from DiffusionSegmentBackend.imaging.volume_io import read_volume
from DiffusionSegmentBackend.metrics.metrics import dice_by_label
from DiffusionSegmentBackend.models.model import Model
from DiffusionSegmentBackend.pipeline.interactive.correction import Correction, Corrections, correct
from DiffusionSegmentBackend.pipeline.interactive.scribbles import REACH_VOXELS
from DiffusionSegmentBackend.pipeline.options import SegmentOptions
from DiffusionSegmentBackend.pipeline.segment import Segmentation, delivered, open_session
from DiffusionSegmentBackend.pipeline.session import Session
from DiffusionSegmentBackend.training.simulated_reader import STROKES, largest_errors, stroke_on
from numpy.typing import NDArray
from scipy import ndimage
from tqdm import tqdm

from .result_file import StudyRow, organ_table

PAINTING, CLAMPING, FULL = "painting only", "clamping only", "full loop"
COUNTS = (0, 1, 3, 5, 10)
_BRUSH_MM = 3.0
_REGIONS = 10


@dataclass
class _Tally:
    """What is counted over all corrections of the full loop."""

    seconds: list[float] = field(default_factory=list)
    disobeyed: int = 0
    beyond_reach: int = 0


@dataclass(frozen=True)
class _Patient:
    """One scan: the present answer and the truth, uint8 (k, j, i)."""

    volume: Volume
    truth: NDArray[np.uint8]
    session: Session
    first: Segmentation


def correction_rows(model: Model, scans: Sequence[CaseFiles]) -> list[StudyRow]:
    """A row for each way and number of corrections, Dice by case and organ; x is the number.

    Painting only: the strokes are painted into the label map and nothing else happens. Clamping only: the refiner runs
    again with the marked voxels held, but is not told. Full loop: what the product does. The reader takes the largest
    connected mistake of the present label map each time, with click, scribble and painted slice in turn.
    """
    organs = [label.name for label in model.description.labels]
    rows = {
        (arm, count): StudyRow(f"{arm}, {count}", dice={}, x=float(count), series=arm)
        for arm in (PAINTING, CLAMPING, FULL)
        for count in COUNTS
    }
    tally, shares = _Tally(), []
    for scan in tqdm(scans, desc="cases"):
        volume = read_volume(scan.image)
        truth = read_label_map(scan.label, volume)
        session = open_session(volume, model, SegmentOptions())
        patient = _Patient(volume, truth, session, delivered(session, model, bodypart=False))
        shares.append(_share_in_regions(patient.first, truth))
        for arm in (PAINTING, CLAMPING, FULL):
            for count, labels in enumerate(_corrected(arm, patient, model, tally)):
                if (arm, count) in rows:
                    dice = dice_by_label(labels, truth, model.description.classes)
                    rows[arm, count].dice[scan.name] = organ_table(dice, organs)  # type: ignore[index]
    rows[FULL, 0].numbers["share of wrong voxels in the first 10 regions"] = float(np.mean(shares))
    rows[FULL, max(COUNTS)].numbers = {
        "seconds a correction, median": float(np.median(tally.seconds)),
        "marked voxels disobeyed": float(tally.disobeyed),
        "voxels changed beyond reach": float(tally.beyond_reach),
    }
    return list(rows.values())


def _corrected(arm: str, patient: _Patient, model: Model, tally: _Tally) -> Iterator[NDArray[np.uint8]]:
    """The label map after 0, 1, 2, ... corrections."""
    labels, marks, state = patient.first.labels, np.zeros_like(patient.first.labels), patient.session
    generator = np.random.default_rng(0)
    yield labels
    for count in range(max(COUNTS)):
        fresh = _mark_largest(labels, patient, STROKES[count % len(STROKES)], generator)
        labels, marks = np.where(fresh > 0, fresh - 1, labels).astype(np.uint8), np.where(fresh > 0, fresh, marks)
        if arm != PAINTING and fresh.any():
            asked = Corrections(labels=labels, marks=marks, heard=arm == FULL)
            answer, state = correct(state, model, asked)
            painted, labels = labels, labels.copy()
            labels[answer.box] = answer.labels
            if arm == FULL:
                tally.seconds.append(answer.report["timings_s"]["total"])
                tally.disobeyed += int(np.count_nonzero(labels[marks > 0] != marks[marks > 0] - 1))
                tally.beyond_reach += _beyond_reach(painted != labels, fresh, answer, patient.volume, model)
        yield labels


def _mark_largest(
    labels: NDArray[np.uint8], patient: _Patient, kind: str, generator: np.random.Generator
) -> NDArray[np.uint8]:
    """Marks (k, j, i) of one stroke on the largest mistake; none where nothing is wrong."""
    mistakes = largest_errors(labels, patient.truth, count=1)
    if not mistakes:
        return np.zeros_like(labels)
    brush = _BRUSH_MM / float(np.median(patient.volume.spacing))
    stroke = stroke_on(mistakes[0], patient.truth, kind=kind, generator=generator, brush=brush)
    return np.where(stroke.voxels, stroke.label + 1, 0).astype(np.uint8)


def _share_in_regions(first: Segmentation, truth: NDArray[np.uint8]) -> float:
    wrong = first.labels != truth
    shown = (first.regions > 0) & (first.regions <= _REGIONS)
    return float(np.count_nonzero(wrong & shown)) / max(1, int(np.count_nonzero(wrong)))


def _beyond_reach(
    changed: NDArray[np.bool_], fresh: NDArray[np.uint8], answer: Correction, volume: Volume, model: Model
) -> int:
    """Voxels that changed although no fresh mark is within reach, a grid voxel allowed for rounding."""
    reach_mm = (REACH_VOXELS + 1) * np.array(model.description.trunk_spacing_mm).max()
    sides = [2 * int(np.ceil(reach_mm / spacing)) + 1 for spacing in volume.spacing[::-1]]
    near = ndimage.maximum_filter((fresh[answer.box] > 0).astype(np.uint8), size=sides, mode="constant") > 0
    return int(np.count_nonzero(changed[answer.box] & ~near))
