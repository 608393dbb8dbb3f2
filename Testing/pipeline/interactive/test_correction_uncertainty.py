"""Uncertainty after a correction: none in scribbled voxels, and not more in voxels that keep their label."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from DiffusionSegmentBackend.imaging.volume import Volume, model_grid
from DiffusionSegmentBackend.models.model import Model, load_model
from DiffusionSegmentBackend.pipeline.interactive.correction import Correction, Corrections, correct, scribbles_on_grid
from DiffusionSegmentBackend.pipeline.options import SegmentOptions
from DiffusionSegmentBackend.pipeline.segment import Segmentation, build_segmentation, open_session
from DiffusionSegmentBackend.pipeline.session import Session
from DiffusionSegmentBackend.pipeline.uncertainty_maps import uncertainty_in_box, uncertainty_on_grid
from fixtures.correction_cases import GENERATIONS, RIGHT_KIDNEY
from fixtures.tiny_model import coarse_phantom
from numpy.typing import NDArray
from scipy import ndimage

OPTIONS = SegmentOptions(seed=5, samples=2, force=True)


@pytest.fixture(scope="module")
def scan() -> Volume:
    return coarse_phantom()


@pytest.fixture(scope="module", params=GENERATIONS)
def model(request: pytest.FixtureRequest, models: Path) -> Model:
    return load_model(str(models / request.param), "cpu", precision="float32")


@pytest.fixture(scope="module")
def session(model: Model, scan: Volume) -> Session:
    return open_session(scan, model, OPTIONS)


@pytest.fixture(scope="module")
def before(session: Session, model: Model) -> Segmentation:
    return build_segmentation(session, model, bodypart=False)


@pytest.fixture(scope="module")
def scribbles(before: Segmentation) -> NDArray[np.uint8]:
    """Both sides of the right kidney's surface in one slice: background inside, right kidney outside."""
    inside = before.labels == RIGHT_KIDNEY
    rim = ndimage.binary_dilation(inside) ^ ndimage.binary_erosion(inside)
    slices = np.zeros_like(inside)
    slices[np.argmax(inside.sum(axis=(1, 2)))] = True
    scribbles = np.zeros_like(before.labels)
    scribbles[rim & slices & inside] = 1
    scribbles[rim & slices & ~inside] = RIGHT_KIDNEY + 1
    return scribbles


@pytest.fixture(scope="module")
def corrected(
    session: Session, model: Model, before: Segmentation, scribbles: NDArray[np.uint8]
) -> tuple[Correction, Session]:
    return correct(session, model, Corrections(labels=before.labels, scribbles=scribbles))


def test_scribbled_voxels_are_certain(
    corrected: tuple[Correction, Session], session: Session, scribbles: NDArray[np.uint8]
) -> None:
    correction, after = corrected
    on_grid = scribbles_on_grid(scribbles, session.grid)
    offset, box = session.prediction.offset, session.prediction.pre.shape[1:]
    here = on_grid[tuple(slice(o, o + n) for o, n in zip(offset, box, strict=True))]
    given = (here.long() - 1).clamp(min=0)[None]
    assert (after.maps.ensemble.gather(0, given)[0][here > 0] == 1).all()
    scribbled = scribbles[correction.box] > 0
    on_scan = uncertainty_in_box(after, correction.canonical_box, scribbles)
    maps = uncertainty_on_grid(after)
    for in_box, on_its_grid in zip(on_scan, (maps.uncertainty, maps.mutual_information), strict=True):
        assert in_box.shape == correction.labels.shape
        assert in_box[scribbled].max() == 0
        # The map has a rim of one voxel where the grid continues.
        inner = tuple(slice(min(1, o), min(1, o) + n) for o, n in zip(offset, box, strict=True))
        assert on_its_grid.array[inner][here > 0].max() == 0
    assert maps.uncertainty.array.max() > 0.1
    assert correction.regions[scribbles > 0].max() == 0


def test_marked_voxels_of_the_grid_are_certain_even_where_the_samples_disagreed(
    corrected: tuple[Correction, Session],
) -> None:
    """As of a review, whose samples are not drawn again."""
    after = corrected[1]
    assert after.scribbles is not None
    disagreeing = torch.full_like(after.maps.mutual_information, 0.5)
    mapped = uncertainty_on_grid(replace(after, corrected=replace(after.maps, mutual_information=disagreeing)))
    assert np.count_nonzero(mapped.mutual_information.array) == int((after.scribbles == 0).sum())


def test_no_voxel_that_keeps_its_label_gets_less_certain(
    corrected: tuple[Correction, Session], session: Session
) -> None:
    was, now = (one.maps.ensemble.float().max(dim=0) for one in (session, corrected[1]))
    same = was.indices == now.indices
    assert not bool(same.all())
    assert (now.values - was.values)[same].min() > -1e-6


def test_the_report_is_that_of_the_corrected_probabilities_of_the_whole_scan(
    corrected: tuple[Correction, Session], before: Segmentation, model: Model
) -> None:
    correction, after = corrected
    anew = build_segmentation(after, model, bodypart=False)
    for ours, whole in zip(correction.report.organs, anew.report.organs, strict=True):
        assert ours.confidence == whole.confidence
    assert correction.report.review == anew.report.review
    assert correction.report.confidence == anew.report.confidence
    assert correction.report.review != before.report.review


def test_a_region_to_review_disappears_under_scribbles(session: Session, model: Model, before: Segmentation) -> None:
    """The scribbles have the labels of the result, so that only the uncertainty changes."""
    region = before.report.review[-1]
    scribbles = np.where(before.regions == len(before.report.review), before.labels + 1, 0).astype(np.uint8)
    after = correct(session, model, Corrections(labels=before.labels, scribbles=scribbles))[0].report.review
    assert region not in after
    near = [
        other
        for other in after
        if {other.value, other.competing_value} == {region.value, region.competing_value}
        and np.linalg.norm(np.subtract(other.centroid_lps_mm, region.centroid_lps_mm)) < 1
    ]
    assert not near or near[0].score < region.score


def test_scribbles_on_thick_slices_leave_no_gaps_on_the_grid(scan: Volume, model: Model) -> None:
    thick = replace(scan, index_to_lps=scan.index_to_lps @ np.diag([1.0, 1.0, 3.0, 1.0]))
    grid = model_grid(thick, spacing=(12.0, 12.0, 12.0))
    scribbles = np.zeros(thick.array.shape, dtype=np.uint8)
    scribbles[4:8] = 3
    slices = (scribbles_on_grid(scribbles, grid) == 3).all(dim=2).all(dim=1)
    assert int(slices.sum()) == 3 * 4
    assert torch.equal(slices.nonzero().flatten().diff(), torch.ones(11, dtype=torch.long))
