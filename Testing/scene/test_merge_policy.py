"""Merging a new result with the present segmentation."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import slicer
from DiffusionSegmentBackend.errors import DiffusionSegmentError
from DiffusionSegmentBackend.protocol.buffers import geometry_of, write_buffer
from DiffusionSegmentLib.scene.box import Box
from DiffusionSegmentLib.scene.corrections import findCorrections
from DiffusionSegmentLib.scene.label_map import readLabels, userSegmentMask, writeLabels
from DiffusionSegmentLib.scene.merge_policy import MergePolicy, isLocked, lockedValues, merged, setLocked
from DiffusionSegmentLib.scene.result import SceneResult, putResult
from DiffusionSegmentLib.scene.segmented_scan import SegmentedScan
from DiffusionSegmentLib.scene.terminology import ModelDescription
from DiffusionSegmentLib.scene.volumes import toMatrix
from vtk.util.numpy_support import vtk_to_numpy

Scene = slicer.vtkMRMLScene
LIVER, SPLEEN = 6, 1
USER = Box((0, 0, 0), (2, 3, 4))
PRESENT = np.array([[[0, 1, 2, 0, 2]]], np.uint8)
ARRIVING = np.array([[[3, 3, 3, 1, 1]]], np.uint8)


class TestLabels:
    @pytest.mark.parametrize(
        ("policy", "locked", "expected"),
        [
            (MergePolicy.NEW, (1,), [3, 3, 3, 1, 1]),
            (MergePolicy.REPLACE, (1,), [3, 3, 3, 1, 1]),
            (MergePolicy.FILL_EMPTY, (), [3, 1, 2, 1, 2]),
            (MergePolicy.FILL_EMPTY, (1,), [3, 1, 2, 0, 2]),
            (MergePolicy.RESPECT_LOCKED, (), [3, 3, 3, 1, 1]),
            (MergePolicy.RESPECT_LOCKED, (1,), [3, 1, 3, 0, 2]),
            (MergePolicy.RESPECT_LOCKED, (1, 3), [0, 1, 2, 0, 2]),
        ],
    )
    def test_every_policy(self, policy: MergePolicy, locked: tuple[int, ...], expected: list[int]) -> None:
        np.testing.assert_array_equal(merged(PRESENT, ARRIVING, policy, locked), [[expected]])

    def test_the_arguments_stay_as_they_are(self) -> None:
        before, after = PRESENT.copy(), ARRIVING.copy()
        for policy in MergePolicy:
            merged(before, after, policy, (1,))[:] = 9
        np.testing.assert_array_equal(before, PRESENT)
        np.testing.assert_array_equal(after, ARRIVING)

    def test_two_shapes_are_refused(self) -> None:
        with pytest.raises(ValueError, match="cannot be merged"):
            merged(PRESENT, ARRIVING[..., :2], MergePolicy.REPLACE)


class TestLock:
    def test_a_lock_is_set_removed_and_saved(
        self, scan: SegmentedScan, saveAndLoad: Callable[[], SegmentedScan]
    ) -> None:
        setLocked(scan.segmentation, "liver", True)
        setLocked(scan.segmentation, "spleen", True)
        setLocked(scan.segmentation, "spleen", False)
        assert lockedValues(saveAndLoad()) == (LIVER,)

    def test_a_missing_segment_cannot_be_locked(self, scan: SegmentedScan) -> None:
        setLocked(scan.segmentation, "stomach", True)
        assert not isLocked(scan.segmentation, "stomach")

    def test_a_completed_organ_is_not_locked(self, scan: SegmentedScan) -> None:
        logic = slicer.vtkSlicerSegmentationsModuleLogic
        logic.SetSegmentStatus(scan.segmentation.GetSegmentation().GetSegment("liver"), logic.Completed)
        assert lockedValues(scan) == ()


@pytest.fixture
def second(reviewed: Any, labels: np.ndarray, tmp_path: Path) -> Any:
    """A later result: spleen everywhere in the lower slices."""
    array = np.zeros(labels.shape, np.uint8)
    array[:10] = SPLEEN
    return replace(reviewed, labels=write_buffer(tmp_path / "second.raw", array, geometry_of(reviewed.labels)))


@pytest.fixture
def tumour(scan: SegmentedScan) -> np.ndarray:
    """A segment of the reader's in the shared layer."""
    segmentation = scan.segmentation.GetSegmentation()
    segmentation.AddEmptySegment("tumour", "Tumour")
    image = segmentation.GetSegment("tumour").GetRepresentation("Binary labelmap")
    mask = np.zeros(scan.box.shape, bool)
    mask[USER.slices] = True
    value = segmentation.GetSegment("tumour").GetLabelValue()
    vtk_to_numpy(image.GetPointData().GetScalars()).reshape(mask.shape)[mask] = value
    image.Modified()
    return mask


class TestArrival:
    @staticmethod
    def arrive(scan: SegmentedScan, second: Any, shown: SceneResult, policy: MergePolicy, model: Any) -> SceneResult:
        return putResult(scan.scene, second, scan.input, model, previous=shown, policy=policy)

    def test_a_new_segmentation_leaves_the_old_one_unchanged(
        self, scan: SegmentedScan, second: Any, shown: SceneResult, labels: np.ndarray, model: ModelDescription
    ) -> None:
        put = self.arrive(scan, second, shown, MergePolicy.NEW, model)
        assert put.segmentation is not shown.segmentation
        np.testing.assert_array_equal(readLabels(scan).labels, labels)
        assert not set(put.overlays.values()) & set(shown.overlays.values())

    def test_replacing_keeps_user_segments(
        self, scan: SegmentedScan, second: Any, shown: SceneResult, tumour: np.ndarray, model: ModelDescription
    ) -> None:
        self.arrive(scan, second, shown, MergePolicy.REPLACE, model)
        now = readLabels(scan).labels
        assert (now[:10] == SPLEEN).all()
        assert not now[10:].any()
        np.testing.assert_array_equal(userSegmentMask(scan), tumour)

    def test_filling_keeps_every_labelled_voxel(
        self,
        scan: SegmentedScan,
        second: Any,
        shown: SceneResult,
        labels: np.ndarray,
        tumour: np.ndarray,
        model: ModelDescription,
    ) -> None:
        self.arrive(scan, second, shown, MergePolicy.FILL_EMPTY, model)
        expected = labels.copy()
        expected[:10][(labels[:10] == 0) & ~tumour[:10]] = SPLEEN
        np.testing.assert_array_equal(readLabels(scan).labels, expected)
        np.testing.assert_array_equal(userSegmentMask(scan), tumour)

    def test_locked_organs_stay(
        self, scan: SegmentedScan, second: Any, shown: SceneResult, labels: np.ndarray, model: ModelDescription
    ) -> None:
        setLocked(scan.segmentation, "liver", True)
        put = self.arrive(scan, second, shown, MergePolicy.RESPECT_LOCKED, model)
        now = readLabels(scan).labels
        np.testing.assert_array_equal(now == LIVER, labels == LIVER)
        assert (now[:10][labels[:10] != LIVER] == SPLEEN).all()
        assert put.segmentation is shown.segmentation
        assert lockedValues(scan) == (LIVER,)

    @pytest.mark.parametrize("policy", list(MergePolicy))
    def test_merged_labels_are_not_detected_as_corrections(
        self, scan: SegmentedScan, second: Any, shown: SceneResult, policy: MergePolicy, model: ModelDescription
    ) -> None:
        writeLabels(scan, np.full((1, 2, 3), LIVER, np.uint8), box=Box((19, 0, 0), (20, 2, 3)))
        put = self.arrive(scan, second, shown, policy, model)
        with pytest.raises(DiffusionSegmentError, match="no corrections"):
            findCorrections(SegmentedScan(scan.input, put.segmentation, model.labels))

    def test_merging_with_a_segmentation_on_another_grid_is_refused(
        self, scene: Scene, scan: SegmentedScan, second: Any, shown: SceneResult, model: ModelDescription
    ) -> None:
        shift = scene.AddNewNodeByClass("vtkMRMLLinearTransformNode")
        matrix = np.eye(4)
        matrix[0, 3] = 7.0
        shift.SetMatrixTransformToParent(toMatrix(matrix))
        shown.segmentation.SetAndObserveTransformNodeID(shift.GetID())
        count = scene.GetNumberOfNodes()
        with pytest.raises(DiffusionSegmentError, match="different transforms"):
            self.arrive(scan, second, shown, MergePolicy.FILL_EMPTY, model)
        assert scene.GetNumberOfNodes() == count
