"""Undo and redo by name: the step is undone, what the reader did since is kept."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import slicer
from DiffusionSegmentBackend.errors import DiffusionSegmentError
from DiffusionSegmentBackend.protocol.messages import RegionAlternatives
from DiffusionSegmentBackend.schema.report import Report
from DiffusionSegmentBackend.schema.review_state import RegionState
from DiffusionSegmentLib.scene.alternatives import keepAlternatives, useAlternative
from DiffusionSegmentLib.scene.box import Box
from DiffusionSegmentLib.scene.correction_maps import appliedScribbles, storeResultLabels, storeScribbles
from DiffusionSegmentLib.scene.corrections import findCorrections
from DiffusionSegmentLib.scene.history import History, StepName, emptySnapshot, snapshot
from DiffusionSegmentLib.scene.label_map import readLabels, writeLabels
from DiffusionSegmentLib.scene.layers import layersOf
from DiffusionSegmentLib.scene.overlay import OverlayKind
from DiffusionSegmentLib.scene.result import SceneResult
from DiffusionSegmentLib.scene.review import ReviewList
from DiffusionSegmentLib.scene.segmented_scan import SegmentedScan
from slicer.util import arrayFromVolume

LIVER, SPLEEN = 6, 1
BOX = Box((6, 7, 5), (12, 12, 20))


def paint(scan: SegmentedScan, box: Box, value: int) -> None:
    writeLabels(scan, np.full(box.shape, value, np.uint8), box=box)


def correct(history: History, scan: SegmentedScan, shown: SceneResult, report: dict[str, Any]) -> np.ndarray:
    """What applying corrections does to the nodes: labels, copy of the result, uncertainty, report."""
    uncertainty = shown.overlays[OverlayKind.UNCERTAINTY]
    before = snapshot(scan).withMaps([uncertainty])
    paint(scan, BOX, SPLEEN)
    storeResultLabels(scan, np.full(BOX.shape, SPLEEN, np.uint8), box=BOX)
    storeScribbles(scan, np.full(BOX.shape, SPLEEN + 1, np.uint8), box=BOX)
    arrayFromVolume(uncertainty)[BOX.slices] = 0.125
    ReviewList(scan.segmentation).replaceReport(Report.from_partial_json({**report, "review": report["review"][1:]}))
    history.record(StepName.APPLY_CORRECTIONS, scan, before)
    return before.labels


@pytest.fixture
def history() -> History:
    return History()


def test_steps_are_reported_by_name(history: History, scan: SegmentedScan, shown: SceneResult, report: Any) -> None:
    assert history.undoText is history.redoText is None
    correct(history, scan, shown, report)
    assert history.undoText == "Undo Apply corrections"
    history.undo(scan)
    assert history.undoText is None
    assert history.redoText == "Redo Apply corrections"


def test_undo_restores_everything_that_the_step_changed(
    history: History, scan: SegmentedScan, shown: SceneResult, report: Any
) -> None:
    uncertainty = arrayFromVolume(shown.overlays[OverlayKind.UNCERTAINTY]).copy()
    before = correct(history, scan, shown, report)
    history.undo(scan)
    np.testing.assert_array_equal(readLabels(scan).labels, before)
    np.testing.assert_array_equal(arrayFromVolume(shown.overlays[OverlayKind.UNCERTAINTY]), uncertainty)
    assert len(ReviewList(scan.segmentation).regions) == 3
    assert not appliedScribbles(scan).any()
    with pytest.raises(DiffusionSegmentError, match="no corrections"):
        findCorrections(scan)


def test_redo_repeats_the_step(history: History, scan: SegmentedScan, shown: SceneResult, report: Any) -> None:
    correct(history, scan, shown, report)
    after = readLabels(scan).labels
    history.undo(scan)
    assert history.redo(scan) is StepName.APPLY_CORRECTIONS
    np.testing.assert_array_equal(readLabels(scan).labels, after)
    assert len(ReviewList(scan.segmentation).regions) == 2
    assert (appliedScribbles(scan)[BOX.slices] == SPLEEN + 1).all()
    assert (arrayFromVolume(shown.overlays[OverlayKind.UNCERTAINTY])[BOX.slices] == 0.125).all()


def test_edits_since_the_step_are_kept_inside_and_outside_its_box(
    history: History, scan: SegmentedScan, shown: SceneResult, report: Any
) -> None:
    before = correct(history, scan, shown, report)
    inside, outside = Box((7, 8, 6), (8, 9, 9)), Box((16, 16, 20), (18, 18, 22))
    paint(scan, inside, LIVER + 1)
    paint(scan, outside, LIVER)
    history.undo(scan)
    expected = before.copy()
    expected[inside.slices], expected[outside.slices] = LIVER + 1, LIVER
    np.testing.assert_array_equal(readLabels(scan).labels, expected)
    history.redo(scan)
    expected[BOX.slices] = SPLEEN
    expected[inside.slices] = LIVER + 1
    np.testing.assert_array_equal(readLabels(scan).labels, expected)


def test_review_states_set_since_the_step_are_kept(
    history: History, scan: SegmentedScan, shown: SceneResult, report: Any
) -> None:
    ReviewList(scan.segmentation).accept(0)
    correct(history, scan, shown, report)
    ReviewList(scan.segmentation).flag(1)
    history.undo(scan)
    states = [region.state for region in ReviewList(scan.segmentation).regions]
    assert states == [RegionState.ACCEPTED, RegionState.OPEN, RegionState.FLAGGED]


def test_redo_restores_the_review_states_of_the_step(history: History, scan: SegmentedScan) -> None:
    history.record(StepName.SEGMENT, scan, emptySnapshot(scan))
    ReviewList(scan.segmentation).accept(2)
    history.undo(scan)
    history.redo(scan)
    assert ReviewList(scan.segmentation).regions[2].state is RegionState.ACCEPTED


def test_undo_restores_the_segment_status(
    history: History, scan: SegmentedScan, shown: SceneResult, report: Any
) -> None:
    logic = slicer.vtkSlicerSegmentationsModuleLogic
    liver = scan.segmentation.GetSegmentation().GetSegment("liver")
    before = snapshot(scan)
    paint(scan, BOX, SPLEEN)
    review = ReviewList(scan.segmentation)
    review.accept(0)
    review.accept(1)
    history.record(StepName.APPLY_CORRECTIONS, scan, before)
    assert logic.GetSegmentStatus(liver) == logic.Completed
    history.undo(scan)
    assert logic.GetSegmentStatus(liver) == logic.NotStarted


def test_the_first_segmentation_can_be_undone(history: History, scan: SegmentedScan, labels: np.ndarray) -> None:
    history.record(StepName.SEGMENT, scan, emptySnapshot(scan))
    assert history.undo(scan) is StepName.SEGMENT
    assert not readLabels(scan).labels.any()
    assert ReviewList(scan.segmentation).regions == ()
    history.redo(scan)
    np.testing.assert_array_equal(readLabels(scan).labels, labels)
    assert len(ReviewList(scan.segmentation).regions) == 3


def test_the_use_of_an_alternative_is_one_step(
    history: History, scan: SegmentedScan, alternativesMessage: RegionAlternatives, labels: np.ndarray
) -> None:
    before = snapshot(scan)
    alternatives = keepAlternatives(scan, alternativesMessage).ofRegion(ReviewList(scan.segmentation).regions[1])
    assert alternatives
    useAlternative(scan, alternatives[0])
    used = readLabels(scan).labels
    history.record(StepName.USE_ALTERNATIVE, scan, before)
    assert history.undo(scan) is StepName.USE_ALTERNATIVE
    np.testing.assert_array_equal(readLabels(scan).labels, labels)
    history.redo(scan)
    np.testing.assert_array_equal(readLabels(scan).labels, used)
    assert not np.array_equal(used, labels)


def test_many_steps_are_undone_and_redone_in_turn(history: History, scan: SegmentedScan) -> None:
    states = [readLabels(scan).labels]
    for n in range(12):
        before = snapshot(scan)
        paint(scan, Box((n, n, n), (n + 2, n + 2, n + 2)), LIVER if n % 2 else SPLEEN)
        history.record(StepName.SIMILAR_REGION, scan, before)
        states.append(readLabels(scan).labels)
    for expected in states[-2::-1]:
        history.undo(scan)
        np.testing.assert_array_equal(readLabels(scan).labels, expected)
    assert history.undo(scan) is None
    for expected in states[1:]:
        history.redo(scan)
        np.testing.assert_array_equal(readLabels(scan).labels, expected)
    assert history.redo(scan) is None


def test_the_oldest_step_beyond_the_levels_is_discarded(scan: SegmentedScan) -> None:
    history = History(levels=3)
    for _ in range(5):
        history.record(StepName.SIMILAR_REGION, scan, snapshot(scan))
    assert [history.undo(scan) for _ in range(4)][-2:] == [StepName.SIMILAR_REGION, None]


def test_a_new_step_clears_redo(history: History, scan: SegmentedScan) -> None:
    history.record(StepName.SIMILAR_REGION, scan, snapshot(scan))
    history.undo(scan)
    history.record(StepName.USE_ALTERNATIVE, scan, snapshot(scan))
    assert history.redoText is None


def test_a_step_needs_little_memory(history: History, scan: SegmentedScan, shown: SceneResult, report: Any) -> None:
    correct(history, scan, shown, report)
    assert 0 < history.bytes < 4000


def test_undo_with_a_deleted_volume_is_refused_and_can_be_tried_again(
    history: History, scan: SegmentedScan, shown: SceneResult, report: Any
) -> None:
    before = correct(history, scan, shown, report)
    scene = scan.scene
    scene.RemoveNode(scan.input)
    with pytest.raises(DiffusionSegmentError, match="no longer in the scene"):
        history.undo(scan)
    assert history.undoText == "Undo Apply corrections"
    scene.AddNode(scan.input)
    history.undo(scan)
    np.testing.assert_array_equal(readLabels(scan).labels, before)


def test_undo_reaches_the_last_slices_of_a_scan(history: History, scan: SegmentedScan) -> None:
    before = snapshot(scan)
    paint(scan, Box((17, 3, 4), (19, 6, 9)), SPLEEN)
    history.record(StepName.APPLY_CORRECTIONS, scan, before)
    assert not np.array_equal(readLabels(scan).labels, before.labels)
    history.undo(scan)
    np.testing.assert_array_equal(readLabels(scan).labels, before.labels)


def test_label_values_of_the_node_are_mapped_to_those_of_the_model(scan: SegmentedScan) -> None:
    (layer,) = layersOf(scan)
    expected = readLabels(scan).labels.copy()
    np.testing.assert_array_equal(readLabels(scan, shared=True).labels, expected)
    layer.voxels()[layer.voxels() == LIVER] = 99
    scan.segmentation.GetSegmentation().GetSegment("liver").SetLabelValue(99)
    np.testing.assert_array_equal(readLabels(scan, shared=True).labels, expected)
