"""Regions as points, and slice views that jump to them, also when the scan was moved."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import slicer
import vtk
from DiffusionSegmentBackend.errors import DiffusionSegmentError
from DiffusionSegmentBackend.imaging.volume import Volume
from DiffusionSegmentBackend.schema.review_state import RegionState
from DiffusionSegmentLib.scene.box import Box
from DiffusionSegmentLib.scene.jump import jumpTo, jumpToRegion
from DiffusionSegmentLib.scene.label_map import writeLabels
from DiffusionSegmentLib.scene.overlay import OverlayKind
from DiffusionSegmentLib.scene.region_markups import updateRegionMarkups
from DiffusionSegmentLib.scene.result import SceneResult
from DiffusionSegmentLib.scene.review import ReviewList
from DiffusionSegmentLib.scene.segmented_scan import SegmentedScan, keepGeometry
from headless.views import SliceView

Scene = slicer.vtkMRMLScene
POSITIONS = ((6, 7, 5), (9, 8, 13), (14, 12, 22))


@pytest.fixture
def review(scan: SegmentedScan) -> ReviewList:
    return ReviewList(scan.segmentation)


def ras(volume: Volume, kji: tuple[int, int, int]) -> np.ndarray:
    x, y, z = (volume.index_to_lps @ (*kji[::-1], 1.0))[:3]
    return np.array([-x, -y, z])


def turn(scene: Scene, scan: SegmentedScan) -> vtk.vtkMatrix4x4:
    """Put scan and segmentation under one transform, as a reader does after the run."""
    move = vtk.vtkTransform()
    move.Translate(12, -20, 30)
    move.RotateZ(25)
    node = scene.AddNewNodeByClass("vtkMRMLLinearTransformNode")
    node.SetMatrixTransformToParent(move.GetMatrix())
    scan.input.SetAndObserveTransformNodeID(node.GetID())
    scan.segmentation.SetAndObserveTransformNodeID(node.GetID())
    return move.GetMatrix()


class TestMarkups:
    def test_each_region_is_a_named_locked_point_at_its_centroid(
        self, scan: SegmentedScan, review: ReviewList, oblique: Volume
    ) -> None:
        node = updateRegionMarkups(scan, review)[RegionState.OPEN]
        assert node.GetNumberOfControlPoints() == 3
        for n, position in enumerate(POSITIONS):
            np.testing.assert_allclose(node.GetNthControlPointPositionWorld(n), ras(oblique, position), atol=1e-3)
        assert node.GetNthControlPointLabel(1) == "2 spleen"
        assert node.GetNthControlPointDescription(1) == "spleen or liver?"
        assert node.GetNthControlPointLocked(1)

    def test_points_follow_state_and_selection(self, scan: SegmentedScan, review: ReviewList) -> None:
        updateRegionMarkups(scan, review)
        review.select(1)
        review.flag()
        review.accept(0)
        nodes = updateRegionMarkups(scan, review)
        names = {state: node.GetControlPointLabels for state, node in nodes.items()}
        assert set(names) == {RegionState.OPEN, RegionState.ACCEPTED, RegionState.FLAGGED}
        flagged = nodes[RegionState.FLAGGED]
        assert flagged.GetNthControlPointLabel(0) == "2 spleen"
        assert flagged.GetNthControlPointSelected(0)
        assert not nodes[RegionState.OPEN].GetNthControlPointSelected(0)
        colours = {node.GetDisplayNode().GetColor() for node in nodes.values()}
        assert len(colours) == 3

    def test_points_follow_a_scan_that_was_moved_after_the_run(
        self, scene: Scene, scan: SegmentedScan, review: ReviewList, oblique: Volume
    ) -> None:
        matrix = turn(scene, scan)
        node = updateRegionMarkups(scan, review)[RegionState.OPEN]
        expected = matrix.MultiplyPoint((*ras(oblique, POSITIONS[0]), 1.0))[:3]
        np.testing.assert_allclose(node.GetNthControlPointPositionWorld(0), expected, atol=1e-3)

    def test_points_follow_a_scan_that_was_moved_back_after_the_run(
        self, scan: SegmentedScan, review: ReviewList, oblique: Volume
    ) -> None:
        shift = np.eye(4)
        shift[:3, 3] = (5.0, -4.0, 3.0)
        keepGeometry(scan.segmentation, shift @ oblique.index_to_lps)
        node = updateRegionMarkups(scan, review)[RegionState.OPEN]
        expected = ras(oblique, POSITIONS[0]) - (-5.0, 4.0, 3.0)
        np.testing.assert_allclose(node.GetNthControlPointPositionWorld(0), expected, atol=1e-3)

    def test_updating_uses_the_same_nodes(self, scene: Scene, scan: SegmentedScan, review: ReviewList) -> None:
        updateRegionMarkups(scan, review)
        count = scene.GetNumberOfNodes()
        updateRegionMarkups(scan, review)
        assert scene.GetNumberOfNodes() == count

    def test_a_loaded_scene_reuses_its_points(
        self, scene: Scene, scan: SegmentedScan, review: ReviewList, saveAndLoad: Callable[[], SegmentedScan]
    ) -> None:
        updateRegionMarkups(scan, review)
        loaded = saveAndLoad()
        nodes = updateRegionMarkups(loaded, ReviewList(loaded.segmentation))
        assert nodes[RegionState.OPEN].GetNumberOfControlPoints() == 3
        assert scene.GetNumberOfNodesByClass("vtkMRMLMarkupsFiducialNode") == 1

    def test_a_deleted_volume_is_reported(self, scene: Scene, scan: SegmentedScan, review: ReviewList) -> None:
        scene.RemoveNode(scan.input)
        with pytest.raises(DiffusionSegmentError, match="no longer in the scene"):
            updateRegionMarkups(scan, review)


class TestJump:
    @staticmethod
    def centre(view: SliceView) -> np.ndarray:
        matrix = view.node.GetSliceToRAS()
        return np.array([matrix.GetElement(row, 3) for row in range(3)])

    def test_views_are_centred_and_the_region_fills_a_third(
        self, axialView: SliceView, scan: SegmentedScan, shown: SceneResult, review: ReviewList, oblique: Volume
    ) -> None:
        point = jumpToRegion(scan, review.regions[1], regions=shown.regions)
        np.testing.assert_allclose(point, ras(oblique, POSITIONS[1]), atol=1e-3)
        np.testing.assert_allclose(self.centre(axialView), point, atol=1e-3)
        assert min(axialView.node.GetFieldOfView()[:2]) == pytest.approx(40.0)

    def test_a_large_region_widens_the_view(self, axialView: SliceView, scene: Scene, scan: SegmentedScan) -> None:
        before = axialView.node.GetFieldOfView()
        jumpTo(scene, (1.0, 2.0, 3.0), sizeMm=90.0)
        width, height, _ = axialView.node.GetFieldOfView()
        assert min(width, height) == pytest.approx(270.0)
        assert width / height == pytest.approx(before[0] / before[1])

    def test_without_a_map_the_size_follows_from_the_volume(
        self, axialView: SliceView, scan: SegmentedScan, review: ReviewList
    ) -> None:
        jumpToRegion(scan, review.regions[0])
        ball = (6 * 2500 / np.pi) ** (1 / 3)
        assert min(axialView.node.GetFieldOfView()[:2]) == pytest.approx(3 * ball)

    def test_the_jump_follows_a_moved_scan(
        self, axialView: SliceView, scene: Scene, scan: SegmentedScan, review: ReviewList, oblique: Volume
    ) -> None:
        matrix = turn(scene, scan)
        jumpToRegion(scan, review.regions[2])
        expected = matrix.MultiplyPoint((*ras(oblique, POSITIONS[2]), 1.0))[:3]
        np.testing.assert_allclose(self.centre(axialView), expected, atol=1e-3)

    def test_the_overlay_is_shown(
        self, axialView: SliceView, scene: Scene, scan: SegmentedScan, shown: SceneResult, review: ReviewList
    ) -> None:
        overlay = shown.overlays[OverlayKind.UNCERTAINTY]
        jumpToRegion(scan, review.regions[0], overlay=overlay)
        composite = scene.GetFirstNodeByClass("vtkMRMLSliceCompositeNode")
        assert composite.GetForegroundVolumeID() == overlay.GetID()
        assert composite.GetBackgroundVolumeID() == scan.input.GetID()


def test_a_written_box_is_drawn_at_once(
    axialView: SliceView, scan: SegmentedScan, review: ReviewList, oblique: Volume
) -> None:
    """The view is redrawn although voxels are written without methods of the segmentation."""
    scan.segmentation.GetDisplayNode().SetOpacity2DFill(1.0)
    scan.segmentation.GetDisplayNode().SetOpacity2DOutline(0.0)
    x, y, z = (float(value) for value in ras(oblique, (18, 18, 8)))
    axialView.showAt((x, y, z), fieldOfView=30)
    before = axialView.grab().astype(int)
    box = Box((16, 14, 4), (20, 22, 13))
    writeLabels(scan, np.full(box.shape, 6, np.uint8), box=box)
    after = axialView.grab().astype(int)
    middle = slice(110, 130), slice(140, 160)
    assert np.ptp(before[middle], axis=-1).max() < 5
    assert np.ptp(after[middle], axis=-1).min() > 30
