"""Alternatives of the regions of a run as marks in the scan's own geometry, of both generations of models."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from DiffusionSegmentBackend.imaging.volume import Volume
from DiffusionSegmentBackend.models.model import Model, load_model
from DiffusionSegmentBackend.pipeline.interactive.alternative_marks import (
    AlternativeMarks,
    alternative_marks,
    alternatives_of_session,
)
from DiffusionSegmentBackend.pipeline.options import SegmentOptions
from DiffusionSegmentBackend.pipeline.segment import Segmentation, build_segmentation, open_session
from DiffusionSegmentBackend.pipeline.session import Session
from fixtures.correction_cases import GENERATIONS, RIGHT_KIDNEY, SPLEEN
from fixtures.tiny_model import coarse_phantom
from numpy.typing import NDArray

OTHER = 255


@pytest.fixture(scope="module", params=GENERATIONS)
def model(request: pytest.FixtureRequest, models: Path) -> Model:
    return load_model(str(models / request.param), "cpu")


def softened(session: Session) -> Session:
    """The session with probabilities that leave room for other labels; the arg max stays."""
    soft = session.prediction.ensemble.float() ** 0.4
    return replace(session, prediction=replace(session.prediction, ensemble=soft / soft.sum(dim=0)))


def run(scan: Volume, model: Model, given: NDArray[np.uint8] | None = None, *, organs: tuple[str, ...] | None = None):
    options = SegmentOptions(samples=1, steps=1, force=True, reviewed=given, organs=organs)
    session = open_session(scan, model, options)
    session = session if given is not None else softened(session)
    return session, build_segmentation(session, model, bodypart=False)


def check(result: Segmentation, marked: AlternativeMarks, voxel_ml: float, *, own: bool = True) -> int:
    """Compare the marks with the regions of a result; the number of alternatives. `own`: not of a review."""
    assert [entry.centroid_lps_mm for entry in marked.regions] == [r.centroid_lps_mm for r in result.report.review]
    count = 0
    for number, entry in enumerate(marked.regions, start=1):
        assert len(entry.alternatives) <= 4
        assert sum(alternative.probability for alternative in entry.alternatives) <= 1.001
        for alternative in entry.alternatives:
            assert marked.marks is not None
            marks = marked.marks[count]
            voxels = np.argwhere(marks > 0)
            inside = voxels + alternative.start_ijk[::-1]
            assert (result.regions[tuple(inside.T)] == number).all()
            assert alternative.volume_ml == pytest.approx(len(voxels) * voxel_ml, abs=0.01)
            assert (voxels.min(axis=0) == 0).all()
            if own:
                assert (result.labels[tuple(inside.T)] != marks[tuple(voxels.T)] - 1).all()
            count += 1
    assert (0 if marked.marks is None else len(marked.marks)) == count
    return count


def test_marks_lie_in_their_region_and_give_other_labels(model: Model) -> None:
    scan = coarse_phantom()
    session, result = run(scan, model)
    marked = alternative_marks(session, model.description, result.report.review, result.regions)
    assert check(result, marked, scan.voxel_ml) > 0
    names = {"background", *(label.title.lower() for label in model.description.labels)}
    for entry in marked.regions:
        for alternative in entry.alternatives:
            first, _, second = alternative.sentence.partition(":")[0].lower().partition(", not ")
            assert {first, second} <= names


def test_the_regions_of_a_session_are_those_of_its_result(model: Model) -> None:
    session, result = run(coarse_phantom(), model)
    marked = alternative_marks(session, model.description, result.report.review, result.regions)
    again = alternatives_of_session(session, model.description)
    assert again.regions == marked.regions
    np.testing.assert_array_equal(again.marks, marked.marks)


def test_a_scan_stored_in_another_order_has_its_marks_in_that_order(model: Model) -> None:
    scan = coarse_phantom()
    turned = np.ascontiguousarray(scan.array.transpose(2, 0, 1)[:, ::-1])
    matrix = scan.index_to_lps[:, [1, 2, 0, 3]].copy()
    matrix[:3, 3] += matrix[:3, 1] * (turned.shape[1] - 1)
    matrix[:3, 1] *= -1
    stored = Volume(turned, matrix)
    session, result = run(stored, model)
    marked = alternative_marks(session, model.description, result.report.review, result.regions)
    assert check(result, marked, stored.voxel_ml) > 0


def test_alternatives_have_requested_organs_only(model: Model) -> None:
    session, result = run(coarse_phantom(), model, organs=("spleen",))
    marked = alternative_marks(session, model.description, result.report.review, result.regions)
    assert marked.marks is not None
    assert set(np.unique(marked.marks)) <= {0, 1, SPLEEN + 1}


def test_alternatives_of_a_reviewed_segmentation_spare_other_structures(model: Model) -> None:
    scan = coarse_phantom()
    own = build_segmentation(
        open_session(scan, model, SegmentOptions(samples=1, steps=1, force=True)), model, bodypart=False
    ).labels
    given = np.where(own == SPLEEN, RIGHT_KIDNEY, own).astype(np.uint8)
    given[:, :: given.shape[1] // 8] = OTHER
    session, result = run(scan, model, given)
    marked = alternative_marks(session, model.description, result.report.review, result.regions)
    assert check(result, marked, scan.voxel_ml, own=False) > 0
    count = 0
    proposed = set()
    for entry in marked.regions:
        for alternative in entry.alternatives:
            assert marked.marks is not None
            voxels = np.argwhere(marked.marks[count] > 0)
            assert (given[tuple((voxels + alternative.start_ijk[::-1]).T)] != OTHER).all()
            proposed |= set(np.unique(marked.marks[count])) - {0}
            count += 1
    assert SPLEEN + 1 in proposed


def test_a_certain_segmentation_has_no_regions_and_no_marks(model: Model) -> None:
    session, _ = run(coarse_phantom(), model)
    certain = torch.nn.functional.one_hot(session.prediction.ensemble.argmax(dim=0), model.description.classes)
    sure = replace(
        session, prediction=replace(session.prediction, ensemble=certain.movedim(-1, 0).float()), corrected=None
    )
    marked = alternatives_of_session(sure, model.description)
    assert marked.regions == ()
    assert marked.marks is None
