"""`study corrections`: Dice over corrections by a simulated reader, of the largest errors or along the review list."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np
from DiffusionSegmentBackend.datasets.labelled_cases import CaseFiles, find_cases
from DiffusionSegmentBackend.imaging.balls import Ball, ball_around
from DiffusionSegmentBackend.imaging.label_maps import read_label_map
from DiffusionSegmentBackend.imaging.volume import Volume
from DiffusionSegmentBackend.imaging.volume_io import read_volume
from DiffusionSegmentBackend.metrics.looks import LOOK_RADIUS_MM
from DiffusionSegmentBackend.metrics.overlap import dice_by_label
from DiffusionSegmentBackend.models.model import Model, load_model
from DiffusionSegmentBackend.pipeline.interactive.correction import Correction, Corrections, correct
from DiffusionSegmentBackend.pipeline.interactive.scribbles import REACH_VOXELS
from DiffusionSegmentBackend.pipeline.options import SegmentOptions
from DiffusionSegmentBackend.pipeline.segment import Segmentation, build_segmentation, open_session
from DiffusionSegmentBackend.pipeline.session import Session
from DiffusionSegmentBackend.training.simulated_reader import STROKES, largest_errors, stroke_on
from numpy.typing import NDArray
from scipy import ndimage
from tqdm import tqdm

from .result_file import PlotAxes, StudyDescription, StudyResult, StudyRow, organ_table
from .study import StudyRequest
from .study_data import organ_names, training_budget

PAINTING, CLAMPING, FULL = "painting only", "clamping only", "full loop"
LISTED = "full loop along the list"
METHODS = (PAINTING, CLAMPING, FULL, LISTED)
COUNTS = (0, 1, 3, 5, 10)
_BRUSH_MM = 3.0
_REGIONS = 10
# An error inside a look is corrected if it has at least this volume.
_MIN_ERROR_ML = 0.1


def study(request: StudyRequest) -> StudyResult:
    """The first model on the validation cases of the first data folder."""
    model = request.description
    scans = find_cases(request.data[0], part="validation")
    rows = correction_rows(load_model(str(model.folder), "auto"), scans)
    description = StudyDescription(
        order=55,
        title="Corrections",
        question="How much does a stroke improve the result?",
        protocol=f"{len(scans)} validation cases in their own geometry. A simulated reader marks the largest "
        "connected error of the present label map, with click, scribble and painted slice in turn, knowing the "
        "truth. Each method begins with the same result. 'Along the list' the reader does not search: the n-th "
        "correction is on the largest error within 20 mm of the n-th region to review, and none where that is below "
        f"{_MIN_ERROR_ML:g} mL.",
        budget=training_budget(model, "refiner"),
        reference=rows[0].name,
        plot=PlotAxes(x_label="corrections"),
    )
    return StudyResult(rows, description)


@dataclass
class _Statistics:
    """Statistics over all corrections of the full loop.

    Attributes:
        seconds: time of each correction.
        violations: scribbled voxels whose label is not that of the scribble.
        beyond_reach: voxels that changed beyond the reach of the new scribbles.
    """

    seconds: list[float] = field(default_factory=list)
    violations: int = 0
    beyond_reach: int = 0


@dataclass(frozen=True)
class _Patient:
    """One scan with its true labels, uint8 (k, j, i), and its segmentation before any correction."""

    volume: Volume
    truth: NDArray[np.uint8]
    session: Session
    first: Segmentation

    def look(self, number: int) -> Ball | None:
        """What a reader sees of region `number` of the first segmentation; None beyond the end of the list."""
        regions = self.first.report.review
        if number >= len(regions):
            return None
        voxel = np.linalg.inv(self.volume.index_to_lps) @ [*regions[number].centroid_lps_mm, 1.0]
        i, j, k = (int(n) for n in np.clip(np.round(voxel[:3]), 0, np.array(self.truth.shape[::-1]) - 1))
        x, y, z = self.volume.spacing
        return ball_around((k, j, i), self.truth.shape, radius_mm=LOOK_RADIUS_MM, spacing=(z, y, x))


def within_look(labels: NDArray[np.uint8], truth: NDArray[np.uint8], ball: Ball | None) -> NDArray[np.uint8]:
    """The truth (k, j, i), but for the errors of `labels` inside a ball."""
    shown = truth.copy()
    if ball is not None:
        shown[ball.box][ball.inside] = labels[ball.box][ball.inside]
    return shown


def correction_rows(model: Model, scans: Sequence[CaseFiles]) -> list[StudyRow]:
    """A row for each method and number of corrections: Dice by case and organ.

    Painting only: the strokes are painted into the label map. Clamping only: the refiner runs again with the scribbled
    voxels clamped, without the scribbles as input channels. Full loop: as in the product. Each correction is on the
    largest connected error of the present label map, by click, scribble and painted slice in turn.
    """
    organs = organ_names(model.description)
    rows = {
        (arm, count): StudyRow(f"{arm}, {count}", dice={}, x=float(count), series=arm)
        for arm in METHODS
        for count in COUNTS
    }
    statistics, shares = _Statistics(), []
    for scan in tqdm(scans, desc="cases"):
        volume = read_volume(scan.image)
        truth = read_label_map(scan.label, volume)
        session = open_session(volume, model, SegmentOptions())
        patient = _Patient(volume, truth, session, build_segmentation(session, model, bodypart=False))
        shares.append(_share_in_regions(patient.first, truth))
        for arm in METHODS:
            for count, labels in enumerate(_corrected(arm, patient, model, statistics)):
                if (arm, count) in rows:
                    dice = dice_by_label(labels, truth, model.description.classes)
                    rows[arm, count].dice[scan.name] = organ_table(dice, organs)  # type: ignore[index]
    rows[FULL, 0].numbers["share of wrong voxels in the first 10 regions"] = float(np.mean(shares))
    rows[FULL, max(COUNTS)].numbers = {
        "seconds a correction, median": float(np.median(statistics.seconds)),
        "marked voxels disobeyed": float(statistics.violations),
        "voxels changed beyond reach": float(statistics.beyond_reach),
    }
    return list(rows.values())


def _corrected(arm: str, patient: _Patient, model: Model, statistics: _Statistics) -> Iterator[NDArray[np.uint8]]:
    """The label map after 0, 1, 2, ... corrections."""
    labels, scribbles, state = patient.first.labels, np.zeros_like(patient.first.labels), patient.session
    generator = np.random.default_rng(0)
    yield labels
    for count in range(max(COUNTS)):
        shown = within_look(labels, patient.truth, patient.look(count)) if arm == LISTED else labels
        new = _scribble_on_largest_error(shown, patient, STROKES[count % len(STROKES)], generator)
        labels = np.where(new > 0, new - 1, labels).astype(np.uint8)
        scribbles = np.where(new > 0, new, scribbles)
        if arm != PAINTING and new.any():
            corrections = Corrections(labels=labels, scribbles=scribbles, propagate=arm in (FULL, LISTED))
            correction, state = correct(state, model, corrections)
            painted, labels = labels, labels.copy()
            labels[correction.box] = correction.labels
            if arm == FULL:
                statistics.seconds.append(correction.report.timings_s["total"])
                statistics.violations += int(np.count_nonzero(labels[scribbles > 0] != scribbles[scribbles > 0] - 1))
                statistics.beyond_reach += _beyond_reach(painted != labels, new, correction, patient.volume, model)
        yield labels


def _scribble_on_largest_error(
    labels: NDArray[np.uint8], patient: _Patient, kind: str, generator: np.random.Generator
) -> NDArray[np.uint8]:
    """Scribbles (k, j, i) of one stroke on the largest error, label + 1; all 0 without an error of 0.1 mL."""
    errors = largest_errors(labels, patient.truth, count=1)
    if not errors or np.count_nonzero(errors[0]) * patient.volume.voxel_ml < _MIN_ERROR_ML:
        return np.zeros_like(labels)
    brush = _BRUSH_MM / float(np.median(patient.volume.spacing))
    stroke = stroke_on(errors[0], patient.truth, kind=kind, generator=generator, brush=brush)
    return np.where(stroke.voxels, stroke.label + 1, 0).astype(np.uint8)


def _share_in_regions(first: Segmentation, truth: NDArray[np.uint8]) -> float:
    """Share (0..1) of the wrong voxels in the first regions of the review."""
    wrong = first.labels != truth
    shown = (first.regions > 0) & (first.regions <= _REGIONS)
    return float(np.count_nonzero(wrong & shown)) / max(1, int(np.count_nonzero(wrong)))


def _beyond_reach(
    changed: NDArray[np.bool_], new: NDArray[np.uint8], correction: Correction, volume: Volume, model: Model
) -> int:
    """Number of changed voxels without a new scribble within reach, plus a grid voxel for rounding."""
    reach_mm = (REACH_VOXELS + 1) * np.array(model.description.trunk_spacing_mm).max()
    sides = [2 * int(np.ceil(reach_mm / spacing)) + 1 for spacing in volume.spacing[::-1]]
    near = ndimage.maximum_filter((new[correction.box] > 0).astype(np.uint8), size=sides, mode="constant") > 0
    return int(np.count_nonzero(changed[correction.box] & ~near))
