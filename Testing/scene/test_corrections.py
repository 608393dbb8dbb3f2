"""The reader's edits as scribbles, the corrected labels, and that no edit is lost."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import slicer
from DiffusionSegmentBackend.errors import DiffusionSegmentError, ErrorCode
from DiffusionSegmentBackend.imaging.volume import Volume
from DiffusionSegmentBackend.protocol.buffers import write_buffer
from DiffusionSegmentBackend.protocol.messages import Corrected, Result
from DiffusionSegmentBackend.schema.report import Report
from DiffusionSegmentBackend.schema.review_state import RegionState
from DiffusionSegmentLib.scene.box import Box
from DiffusionSegmentLib.scene.correction_maps import RESULT_LABELS_ROLE, appliedScribbles
from DiffusionSegmentLib.scene.corrections import Corrections, applyCorrected, findCorrections
from DiffusionSegmentLib.scene.label_map import readLabels, writeLabels
from DiffusionSegmentLib.scene.merge_policy import setLocked
from DiffusionSegmentLib.scene.overlay import OverlayKind
from DiffusionSegmentLib.scene.result import SceneResult, putResult
from DiffusionSegmentLib.scene.review import ReviewList
from DiffusionSegmentLib.scene.segmented_scan import SegmentedScan
from DiffusionSegmentLib.scene.terminology import ModelDescription
from DiffusionSegmentLib.scene.volumes import ijkToLPS
from headless.slicer_picture import putVolume
from slicer.util import arrayFromVolume

Scene = slicer.vtkMRMLScene
LIVER, SPLEEN = 6, 1
ANSWER = Box((2, 4, 2), (14, 18, 20))
SCRIBBLED = Box((6, 14, 4), (10, 16, 8))


def paint(scan: SegmentedScan, box: Box, value: int) -> None:
    writeLabels(scan, np.full(box.shape, value, np.uint8), box=box)


@pytest.fixture
def answerOf(tmp_path: Path, oblique: Volume, report: dict[str, Any]) -> Callable[..., Corrected]:
    def make(labels: np.ndarray, *, box: Box = ANSWER, shift: float = 0.0) -> Corrected:
        geometry = oblique.index_to_lps.copy()
        geometry[:3, 3] = (oblique.index_to_lps @ (*box.start[::-1], 1.0))[:3] + shift
        uncertainty = np.full((7, 6, 5), 0.25, np.float32)
        coarse = oblique.index_to_lps @ np.diag([5.0, 4.0, 3.0, 1.0])
        numbers = np.full(oblique.array.shape, 2, np.uint8)
        return Corrected(
            id="3",
            labels=write_buffer(tmp_path / "answer.raw", labels, geometry),
            uncertainty=write_buffer(tmp_path / "answer-uncertainty.raw", uncertainty, coarse),
            mutual_information=write_buffer(tmp_path / "information.raw", uncertainty / 5, coarse),
            report=Report.from_partial_json({**report, "review": report["review"][1:]}),
            regions=write_buffer(tmp_path / "numbers.raw", numbers, oblique.index_to_lps),
        )

    return make


class TestFinding:
    def test_painted_and_erased_voxels_become_scribbles_of_their_label(
        self, scan: SegmentedScan, labels: np.ndarray
    ) -> None:
        paint(scan, Box((0, 0, 0), (2, 2, 2)), LIVER)
        paint(scan, Box((8, 6, 16), (9, 8, 18)), 0)
        matches = findCorrections(scan)
        expected = np.zeros(labels.shape, np.uint8)
        expected[:2, :2, :2] = LIVER + 1
        expected[8, 6:8, 16:18] = 1
        np.testing.assert_array_equal(matches.scribbles, expected)
        assert matches.count == 12
        np.testing.assert_array_equal(matches.labels, readLabels(scan).labels)

    def test_a_deleted_segment_counts_as_erased(self, scan: SegmentedScan, labels: np.ndarray) -> None:
        scan.segmentation.GetSegmentation().RemoveSegment("liver")
        np.testing.assert_array_equal(findCorrections(scan).scribbles == 1, labels == LIVER)

    def test_locked_organs_are_named(self, scan: SegmentedScan) -> None:
        paint(scan, Box((0, 0, 0), (1, 1, 1)), LIVER)
        setLocked(scan.segmentation, "spleen", True)
        assert findCorrections(scan).locked == (SPLEEN,)

    def test_edits_are_detected_after_save_and_load(
        self, scan: SegmentedScan, saveAndLoad: Callable[[], SegmentedScan]
    ) -> None:
        paint(scan, Box((0, 0, 0), (2, 2, 2)), LIVER)
        before = findCorrections(scan).scribbles
        loaded = saveAndLoad()
        np.testing.assert_array_equal(findCorrections(loaded).scribbles, before)

    def test_the_copy_is_hidden_and_removed_with_its_segmentation(
        self, scene: Scene, scan: SegmentedScan, reviewed: Any, model: ModelDescription
    ) -> None:
        copy = scan.segmentation.GetNodeReference(RESULT_LABELS_ROLE)
        assert copy.GetHideFromEditors()
        hierarchy = slicer.vtkMRMLSubjectHierarchyNode.ResolveSubjectHierarchy(scene)
        assert hierarchy is None or not hierarchy.GetItemByDataNode(copy)
        scene.RemoveNode(scan.segmentation)
        putResult(scene, reviewed, scan.input, model)
        assert scene.GetNumberOfNodesByClass("vtkMRMLLabelMapVolumeNode") == 1

    def test_a_result_without_edits_is_reported(self, scan: SegmentedScan) -> None:
        with pytest.raises(DiffusionSegmentError, match="no corrections") as caught:
            findCorrections(scan)
        assert caught.value.hint

    def test_two_organs_in_one_voxel_are_refused_and_kept(self, scan: SegmentedScan) -> None:
        segmentation = scan.segmentation.GetSegmentation()
        segmentation.SeparateSegmentLabelmap("liver")
        both = segmentation.GetSegment("liver").GetRepresentation("Binary labelmap")
        both.GetPointData().GetScalars().Fill(segmentation.GetSegment("liver").GetLabelValue())
        both.Modified()
        with pytest.raises(DiffusionSegmentError, match="Two organs claim") as caught:
            findCorrections(scan)
        assert caught.value.code is ErrorCode.INPUT_VALUES
        assert (readLabels(scan).labels > 0).all()

    def test_drawing_outside_the_scan_is_refused(self, scan: SegmentedScan) -> None:
        image = scan.segmentation.GetSegmentation().GetSegment("liver").GetRepresentation("Binary labelmap")
        first, last, *rest = image.GetExtent()
        image.SetExtent(first + 20, last + 20, *rest)
        with pytest.raises(DiffusionSegmentError, match="outside the scan"):
            findCorrections(scan)

    def test_another_volume_of_the_same_grid_size_is_refused(
        self, scene: Scene, scan: SegmentedScan, model: ModelDescription
    ) -> None:
        other = putVolume(scene, Volume(np.zeros((20, 24, 28), np.int16), np.eye(4)), "Other")
        with pytest.raises(DiffusionSegmentError, match="from another volume"):
            findCorrections(SegmentedScan(other, scan.segmentation, model.labels))

    def test_a_segmentation_that_is_no_result_is_refused(
        self, scene: Scene, scan: SegmentedScan, model: ModelDescription
    ) -> None:
        own = scene.AddNewNodeByClass("vtkMRMLSegmentationNode", "Mine")
        with pytest.raises(DiffusionSegmentError, match="unknown"):
            findCorrections(SegmentedScan(scan.input, own, model.labels))

    @pytest.mark.parametrize("gone", ["input", "segmentation"])
    def test_a_deleted_node_is_reported(self, scene: Scene, scan: SegmentedScan, gone: str) -> None:
        scene.RemoveNode(getattr(scan, gone))
        with pytest.raises(DiffusionSegmentError, match="no longer in the scene"):
            findCorrections(scan)


class TestApplying:
    @pytest.fixture
    def sent(self, scan: SegmentedScan) -> Corrections:
        paint(scan, SCRIBBLED, LIVER)
        return findCorrections(scan)

    def test_the_corrected_labels_replace_only_their_box(
        self, scan: SegmentedScan, shown: SceneResult, sent: Corrections, answerOf: Callable[..., Corrected]
    ) -> None:
        arriving = np.full(ANSWER.shape, SPLEEN, np.uint8)
        applied = applyCorrected(scan, answerOf(arriving), sent, shown)
        expected = sent.labels.copy()
        expected[ANSWER.slices] = SPLEEN
        np.testing.assert_array_equal(readLabels(scan).labels, expected)
        assert applied.box == ANSWER
        assert applied.keptVoxels == 0

    def test_uncertainty_report_and_regions_are_updated(
        self, scan: SegmentedScan, shown: SceneResult, sent: Corrections, answerOf: Callable[..., Corrected]
    ) -> None:
        ReviewList(scan.segmentation).flag(1)
        applied = applyCorrected(scan, answerOf(sent.labels[ANSWER.slices]), sent, shown)
        for kind, value in ((OverlayKind.UNCERTAINTY, 0.25), (OverlayKind.MUTUAL_INFORMATION, 0.05)):
            node = shown.overlays[kind]
            np.testing.assert_array_equal(arrayFromVolume(node), np.full((7, 6, 5), value, np.float32))
            coarse = ijkToLPS(scan.input) @ np.diag([5.0, 4.0, 3.0, 1.0])
            np.testing.assert_allclose(ijkToLPS(node), coarse, atol=1e-9)
        assert [region.state for region in ReviewList(scan.segmentation).regions] == [
            RegionState.FLAGGED,
            RegionState.OPEN,
        ]
        assert applied.result.regions is not None
        assert (applied.result.regions.unpack() == 2).all()

    def test_applied_corrections_are_not_detected_again(
        self, scan: SegmentedScan, shown: SceneResult, sent: Corrections, answerOf: Callable[..., Corrected]
    ) -> None:
        applyCorrected(scan, answerOf(sent.labels[ANSWER.slices]), sent, shown)
        with pytest.raises(DiffusionSegmentError, match="no corrections"):
            findCorrections(scan)

    def test_scribbles_stay_in_force_until_they_are_painted_over(
        self,
        scan: SegmentedScan,
        shown: SceneResult,
        sent: Corrections,
        answerOf: Callable[..., Corrected],
        saveAndLoad: Callable[[], SegmentedScan],
    ) -> None:
        applyCorrected(scan, answerOf(sent.labels[ANSWER.slices]), sent, shown)
        changed = Box((6, 14, 4), (7, 15, 5))
        paint(scan, changed, SPLEEN)
        expected = np.zeros_like(sent.scribbles)
        expected[SCRIBBLED.slices] = LIVER + 1
        expected[changed.slices] = SPLEEN + 1
        matches = findCorrections(saveAndLoad())
        np.testing.assert_array_equal(matches.scribbles, expected)
        assert matches.count == 1

    def test_a_new_result_clears_the_scribbles(
        self,
        scan: SegmentedScan,
        shown: SceneResult,
        sent: Corrections,
        answerOf: Callable[..., Corrected],
        reviewed: Result,
        model: ModelDescription,
    ) -> None:
        applyCorrected(scan, answerOf(sent.labels[ANSWER.slices]), sent, shown)
        putResult(scan.scene, reviewed, scan.input, model, previous=shown)
        assert not appliedScribbles(scan).any()

    def test_edits_during_the_run_are_kept_and_sent_next_time(
        self, scan: SegmentedScan, shown: SceneResult, sent: Corrections, answerOf: Callable[..., Corrected]
    ) -> None:
        inside, outside = Box((3, 5, 3), (5, 6, 6)), Box((17, 20, 20), (19, 22, 22))
        paint(scan, inside, LIVER)
        paint(scan, outside, LIVER)
        applied = applyCorrected(scan, answerOf(np.full(ANSWER.shape, SPLEEN, np.uint8)), sent, shown)
        now = readLabels(scan).labels
        assert (now[inside.slices] == LIVER).all()
        assert (now[outside.slices] == LIVER).all()
        assert applied.keptVoxels == 6
        scribbles = findCorrections(scan).scribbles
        expected = sent.scribbles.copy()
        expected[inside.slices] = expected[outside.slices] = LIVER + 1
        np.testing.assert_array_equal(scribbles, expected)

    def test_locked_organs_neither_shrink_nor_grow(
        self,
        scan: SegmentedScan,
        shown: SceneResult,
        sent: Corrections,
        labels: np.ndarray,
        answerOf: Callable[..., Corrected],
    ) -> None:
        setLocked(scan.segmentation, "spleen", True)
        for value in (LIVER, SPLEEN):
            applyCorrected(scan, answerOf(np.full(ANSWER.shape, value, np.uint8)), sent, shown)
            np.testing.assert_array_equal(readLabels(scan).labels == SPLEEN, labels == SPLEEN)

    @pytest.mark.parametrize("trouble", ["shifted", "too large", "deleted"])
    def test_an_invalid_answer_changes_nothing(
        self,
        scene: Scene,
        scan: SegmentedScan,
        shown: SceneResult,
        sent: Corrections,
        answerOf: Callable[..., Corrected],
        trouble: str,
    ) -> None:
        good = answerOf(np.full(ANSWER.shape, SPLEEN, np.uint8), shift=0.4 if trouble == "shifted" else 0.0)
        if trouble == "too large":
            good = answerOf(np.full((19, 4, 4), SPLEEN, np.uint8))
        if trouble == "deleted":
            scene.RemoveNode(scan.input)
        attribute = scan.segmentation.GetAttribute("DiffusionSegment.report")
        with pytest.raises(DiffusionSegmentError):
            applyCorrected(scan, good, sent, shown)
        assert scan.segmentation.GetAttribute("DiffusionSegment.report") == attribute
        if trouble != "deleted":
            np.testing.assert_array_equal(readLabels(scan).labels, sent.labels)
            assert findCorrections(scan).count == 32

    def test_a_deleted_overlay_does_not_prevent_a_correction(
        self,
        scene: Scene,
        scan: SegmentedScan,
        shown: SceneResult,
        sent: Corrections,
        answerOf: Callable[..., Corrected],
    ) -> None:
        scene.RemoveNode(shown.overlays[OverlayKind.UNCERTAINTY])
        applyCorrected(scan, answerOf(np.full(ANSWER.shape, SPLEEN, np.uint8)), sent, shown)
        assert (readLabels(scan).labels[ANSWER.slices] == SPLEEN).all()
