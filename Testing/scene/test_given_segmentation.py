"""A segmentation from another source: its segments as labels of the model, on the grid of the scan, and its review."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import slicer
from DiffusionSegmentBackend.errors import DiffusionSegmentError, ErrorCode
from DiffusionSegmentBackend.imaging.volume import Volume
from DiffusionSegmentBackend.protocol.buffers import write_buffer
from DiffusionSegmentBackend.protocol.messages import Result
from DiffusionSegmentLib.scene.correction_maps import reviewedMaps
from DiffusionSegmentLib.scene.given_segmentation import GivenSegmentation, matchGiven, readGiven
from DiffusionSegmentLib.scene.label_map import readLabels
from DiffusionSegmentLib.scene.result import putResult
from DiffusionSegmentLib.scene.segmented_scan import SegmentedScan, readReport
from DiffusionSegmentLib.scene.terminology import ModelDescription
from fixtures.segments import LIVER_ENTRY, addSegment, segmentationOf
from headless.slicer_picture import putVolume

LIVER, SPLEEN, CYST = 6, 1, 255
LIVER_BOX = (slice(5, 12), slice(6, 14), slice(4, 12))
SPLEEN_BOX = (slice(8, 16), slice(6, 14), slice(16, 24))
CYST_BOX = (slice(1, 4), slice(15, 18), slice(20, 24))
WHOLE = (slice(0, 20), slice(0, 24), slice(0, 27))


@pytest.fixture
def given(ct: slicer.vtkMRMLScalarVolumeNode) -> slicer.vtkMRMLSegmentationNode:
    node = segmentationOf(ct, "Theirs")
    addSegment(node, ct, "Leber", LIVER_BOX, entry=LIVER_ENTRY)
    addSegment(node, ct, "spleen", SPLEEN_BOX)
    addSegment(node, ct, "Cyst", CYST_BOX)
    return node


def read(
    ct: slicer.vtkMRMLScalarVolumeNode,
    node: slicer.vtkMRMLSegmentationNode,
    model: ModelDescription,
    matches: dict[str, str] | None = None,
) -> GivenSegmentation:
    return readGiven(SegmentedScan(ct, node, model.labels), matchGiven(node, model.labels, given=matches))


def expected(ct: slicer.vtkMRMLScalarVolumeNode) -> np.ndarray:
    labels = np.zeros(ct.GetImageData().GetDimensions()[::-1], np.uint8)
    labels[LIVER_BOX], labels[SPLEEN_BOX], labels[CYST_BOX] = LIVER, SPLEEN, CYST
    return labels


def test_segments_are_matched_by_code_then_by_name(given: Any, model: ModelDescription) -> None:
    matches = [segment.match for segment in matchGiven(given, model.labels)]
    assert [match and (match.organ, match.reason) for match in matches] == [
        ("liver", "code"),
        ("spleen", "name"),
        None,
    ]


def test_labels_are_those_of_the_model_on_the_grid_of_the_scan(ct: Any, given: Any, model: ModelDescription) -> None:
    result = read(ct, given, model)
    np.testing.assert_array_equal(result.labels, expected(ct))
    assert result.organs == ("spleen", "liver")
    assert [match.segment for match in result.record.matches] == ["Leber", "spleen"]
    assert [(other.name, other.value) for other in result.record.unmatched] == [("Cyst", CYST)]


def test_a_segment_that_is_left_as_it_is_and_one_that_is_given_an_organ(
    ct: Any, given: Any, model: ModelDescription
) -> None:
    result = read(ct, given, model, {"spleen": "", "Cyst": "Stomach"})
    assert result.organs == ("liver", "stomach")
    assert set(np.unique(result.labels[SPLEEN_BOX])) == {255}
    assert set(np.unique(result.labels[CYST_BOX])) == {
        model.labels[[x.name for x in model.labels].index("stomach")].value
    }


def test_a_segment_around_the_organs_is_no_other_structure(ct: Any, given: Any, model: ModelDescription) -> None:
    addSegment(given, ct, "body", WHOLE)
    np.testing.assert_array_equal(read(ct, given, model).labels, expected(ct))


def test_an_organ_without_voxels_is_covered(ct: Any, given: Any, model: ModelDescription) -> None:
    given.GetSegmentation().AddEmptySegment("p", "pancreas")
    assert read(ct, given, model).organs == ("spleen", "liver", "pancreas")


def test_overlapping_organs_are_refused_by_name(ct: Any, given: Any, model: ModelDescription) -> None:
    addSegment(given, ct, "Stomach", (slice(5, 6), slice(6, 8), slice(4, 6)))
    with pytest.raises(DiffusionSegmentError, match="Liver and Stomach of Theirs share 4 voxels") as caught:
        read(ct, given, model)
    assert caught.value.code is ErrorCode.INPUT_VALUES


def test_what_has_no_organ_is_refused(ct: Any, given: Any, model: ModelDescription) -> None:
    with pytest.raises(DiffusionSegmentError, match="No segment of Theirs") as caught:
        read(ct, given, model, {"spleen": "", "Leber": ""})
    assert caught.value.code is ErrorCode.INPUT_VALUES
    with pytest.raises(DiffusionSegmentError, match="Empty has no segments"):
        read(ct, segmentationOf(ct, "Empty"), model)
    node = segmentationOf(ct, "Outline")
    node.GetSegmentation().AddEmptySegment("l", "liver")
    with pytest.raises(DiffusionSegmentError, match="have no voxel in CT"):
        read(ct, node, model)


def test_a_segmentation_on_other_voxels_is_resampled_and_its_result_says_so(
    scene: Any, oblique: Volume, given: Any, model: ModelDescription
) -> None:
    matrix = oblique.index_to_lps.copy()
    matrix[:3, :3] *= 0.5
    fine = putVolume(scene, Volume(oblique.array.repeat(2, 0).repeat(2, 1).repeat(2, 2), matrix), "Fine")
    result = read(fine, given, model)
    assert result.resampled
    assert result.resultName == "Theirs (reviewed, resampled)"
    assert result.organs == ("spleen", "liver")
    for value, part in ((LIVER, LIVER_BOX), (SPLEEN, SPLEEN_BOX), (CYST, CYST_BOX)):
        inner = tuple(slice(2 * side.start, 2 * side.stop - 1) for side in part)
        assert (result.labels[inner] == value).all()
        voxels = np.prod([side.stop - side.start for side in part])
        assert np.count_nonzero(result.labels == value) == pytest.approx(8 * voxels, rel=0.35)
    assert not read(given.GetNodeReference("referenceImageGeometryRef"), given, model).resampled


def test_a_segmentation_that_lies_outside_the_scan_is_refused(
    scene: Any, oblique: Volume, given: Any, model: ModelDescription
) -> None:
    matrix = oblique.index_to_lps.copy()
    matrix[:3, 3] += 200.4
    other = putVolume(scene, Volume(oblique.array, matrix), "Other")
    with pytest.raises(DiffusionSegmentError, match="Most of Theirs lies outside Other") as caught:
        read(other, given, model)
    assert caught.value.code is ErrorCode.GEOMETRY


@pytest.fixture
def answer(ct: Any, given: Any, model: ModelDescription, result: Result, tmp_path: Path, oblique: Volume) -> Result:
    """What the worker answers to the review."""
    request = read(ct, given, model)
    labels = np.where(request.labels == CYST, 0, request.labels).astype(np.uint8)
    reference = write_buffer(tmp_path / "given.raw", labels, oblique.index_to_lps)
    return replace(result, labels=reference, report=replace(result.report, reviewed=request.record))


def test_the_result_of_a_review_is_a_new_node_and_the_given_one_keeps_its_segments(
    scene: Any, ct: Any, given: Any, model: ModelDescription, shown: Any, answer: Result
) -> None:
    request = read(ct, given, model)
    before = given.GetSegmentation().GetMTime()
    node = putResult(scene, answer, ct, model, previous=shown, given=request).segmentation
    assert node is not shown.segmentation
    assert node.GetName() == "Theirs (reviewed)"
    scan = SegmentedScan(ct, node, model.labels)
    np.testing.assert_array_equal(readLabels(scan).labels, np.where(request.labels == CYST, 0, request.labels))
    assert given.GetSegmentation().GetMTime() == before
    request.hideMatched()
    visible = [given.GetDisplayNode().GetSegmentVisibility(name) for name in given.GetSegmentation().GetSegmentIDs()]
    assert visible == [False, False, True]


def test_what_follows_a_review_sends_its_labels_also_in_a_loaded_scene(
    scene: Any,
    ct: Any,
    given: Any,
    model: ModelDescription,
    shown: Any,
    answer: Result,
    saveAndLoad: Callable[[], SegmentedScan],
) -> None:
    request = read(ct, given, model)
    node = putResult(scene, answer, ct, model, given=request).segmentation
    np.testing.assert_array_equal(reviewedMaps(SegmentedScan(ct, node, model.labels))["reviewed"], request.labels)
    assert reviewedMaps(SegmentedScan(ct, shown.segmentation, model.labels)) == {}
    loaded = saveAndLoad()
    node = loaded.scene.GetFirstNode("Theirs (reviewed)", "vtkMRMLSegmentationNode")
    scan = replace(loaded, segmentation=node)
    assert readReport(node).reviewed == request.record
    np.testing.assert_array_equal(reviewedMaps(scan)["reviewed"], request.labels)
    loaded.scene.RemoveNode(node.GetNodeReference("DiffusionSegment.reviewed"))
    with pytest.raises(DiffusionSegmentError, match="no longer in the scene") as caught:
        reviewedMaps(scan)
    assert caught.value.code is ErrorCode.INPUT_MISSING
