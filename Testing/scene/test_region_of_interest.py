"""A region of interest as the worker gets it: real markups, turned, moved by transforms, empty, beside the scan."""

from __future__ import annotations

from itertools import product

import numpy as np
import pytest
import slicer
import vtk
from DiffusionSegmentBackend.errors import DiffusionSegmentError, ErrorCode
from DiffusionSegmentLib.scene.region_of_interest import placeAround, regionOfInterest
from DiffusionSegmentLib.scene.volumes import toMatrix
from scipy.spatial.transform import Rotation

LPS = np.diag([-1.0, -1.0, 1.0, 1.0])


@pytest.fixture
def box(scene: slicer.vtkMRMLScene, ct: slicer.vtkMRMLScalarVolumeNode) -> slicer.vtkMRMLMarkupsROINode:
    """A box of 12 x 8 x 20 mm around the middle of the scan."""
    node = scene.AddNewNodeByClass("vtkMRMLMarkupsROINode", "Box")
    node.SetCenter(*middleOf(ct))
    node.SetSize(12.0, 8.0, 20.0)
    return node


def middleOf(ct: slicer.vtkMRMLScalarVolumeNode) -> list[float]:
    bounds = np.zeros(6)
    ct.GetRASBounds(bounds)
    return ((bounds[0::2] + bounds[1::2]) / 2).tolist()


def matrixOf(node: slicer.vtkMRMLMarkupsROINode, ct: slicer.vtkMRMLScalarVolumeNode) -> np.ndarray:
    return np.array(regionOfInterest(node, ct)).reshape(4, 4)


def turn(node: slicer.vtkMRMLMarkupsROINode, degrees: float) -> np.ndarray:
    """Rotate a box around its own middle, as its handles do; returns the rotation."""
    matrix = np.eye(4)
    matrix[:3, :3] = Rotation.from_euler("xyz", (degrees, 20, 10), degrees=True).as_matrix()
    matrix[:3, 3] = node.GetCenter()
    node.SetAndObserveObjectToNodeMatrix(toMatrix(matrix))
    return matrix[:3, :3]


def under(node: slicer.vtkMRMLTransformableNode, matrix: np.ndarray) -> None:
    """Put a node under a linear transform."""
    transform = node.GetScene().AddNewNodeByClass("vtkMRMLLinearTransformNode", "Moved")
    transform.SetMatrixTransformToParent(toMatrix(matrix))
    node.SetAndObserveTransformNodeID(transform.GetID())


def test_the_matrix_maps_the_cube_to_the_box_in_lps_mm(
    box: slicer.vtkMRMLMarkupsROINode, ct: slicer.vtkMRMLScalarVolumeNode
) -> None:
    expected = LPS @ np.diag([6.0, 4.0, 10.0, 1.0])
    expected[:3, 3] = (LPS @ (*middleOf(ct), 1.0))[:3]
    np.testing.assert_allclose(matrixOf(box, ct), expected, atol=1e-9)


def test_a_rotated_box_keeps_its_rotation(
    box: slicer.vtkMRMLMarkupsROINode, ct: slicer.vtkMRMLScalarVolumeNode
) -> None:
    rotation = turn(box, 35.0)
    np.testing.assert_allclose(matrixOf(box, ct)[:3, :3], LPS[:3, :3] @ rotation * (6.0, 4.0, 10.0), atol=1e-9)


@pytest.mark.parametrize("turned", [False, True])
def test_the_matrix_and_slicer_agree_about_points_inside(
    box: slicer.vtkMRMLMarkupsROINode, ct: slicer.vtkMRMLScalarVolumeNode, *, turned: bool
) -> None:
    """Slicer's own answer, under a parent transform that turns and moves."""
    if turned:
        turn(box, 50.0)
    parent = np.eye(4)
    parent[:3, :3] = Rotation.from_euler("z", 25, degrees=True).as_matrix()
    parent[:3, 3] = np.array(middleOf(ct)) - parent[:3, :3] @ middleOf(ct) + (2.0, -1.0, 1.0)
    under(box, parent)
    toCube = np.linalg.inv(matrixOf(box, ct)) @ LPS
    points = np.random.default_rng(3).uniform(-16, 16, (300, 3)) + middleOf(ct)
    ours = [bool((np.abs(toCube @ (*point, 1.0))[:3] <= 1).all()) for point in points]
    assert ours == [bool(box.IsPointInROIWorld(point)) for point in points]
    assert 10 < sum(ours) < 200


def test_a_box_without_control_points_is_refused(
    scene: slicer.vtkMRMLScene, ct: slicer.vtkMRMLScalarVolumeNode
) -> None:
    node = scene.AddNewNodeByClass("vtkMRMLMarkupsROINode", "Box")
    with pytest.raises(DiffusionSegmentError, match="Box is empty") as caught:
        regionOfInterest(node, ct)
    assert caught.value.code is ErrorCode.OPTION
    assert "Place it" in caught.value.hint


def test_a_box_without_size_is_refused(box: slicer.vtkMRMLMarkupsROINode, ct: slicer.vtkMRMLScalarVolumeNode) -> None:
    box.SetSize(12.0, 0.0, 20.0)
    with pytest.raises(DiffusionSegmentError, match="Box is empty"):
        regionOfInterest(box, ct)


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_a_box_beside_the_scan_is_refused(
    box: slicer.vtkMRMLMarkupsROINode, ct: slicer.vtkMRMLScalarVolumeNode, axis: int
) -> None:
    centre = middleOf(ct)
    centre[axis] += 200.0
    box.SetCenter(*centre)
    with pytest.raises(DiffusionSegmentError, match="Box does not touch CT") as caught:
        regionOfInterest(box, ct)
    assert caught.value.code is ErrorCode.OPTION


def test_a_box_outside_a_transformed_scan_is_refused(
    box: slicer.vtkMRMLMarkupsROINode, ct: slicer.vtkMRMLScalarVolumeNode
) -> None:
    away = np.eye(4)
    away[:3, 3] = (0.0, 300.0, 0.0)
    under(ct, away)
    with pytest.raises(DiffusionSegmentError, match="does not touch"):
        regionOfInterest(box, ct)
    under(box, away)
    regionOfInterest(box, ct)


def test_a_box_that_only_overlaps_the_bounds_of_the_scan_is_refused(
    scene: slicer.vtkMRMLScene, ct: slicer.vtkMRMLScalarVolumeNode
) -> None:
    """The scan is oblique: a small box in a corner of its bounds lies outside it."""
    bounds = np.zeros(6)
    ct.GetRASBounds(bounds)
    refused = 0
    for corner in product(*bounds.reshape(3, 2)):
        node = scene.AddNewNodeByClass("vtkMRMLMarkupsROINode", "Corner")
        node.SetCenter(*corner)
        node.SetSize(1.0, 1.0, 1.0)
        try:
            regionOfInterest(node, ct)
        except DiffusionSegmentError:
            refused += 1
    assert refused == 8


def test_a_box_under_a_non_linear_transform_is_refused(
    box: slicer.vtkMRMLMarkupsROINode, ct: slicer.vtkMRMLScalarVolumeNode
) -> None:
    warp = box.GetScene().AddNewNodeByClass("vtkMRMLTransformNode", "Warp")
    spline = vtk.vtkThinPlateSplineTransform()
    points = vtk.vtkPoints()
    for point in ((0, 0, 0), (1, 0, 0), (0, 1, 0), (0, 0, 1)):
        points.InsertNextPoint(point)
    spline.SetSourceLandmarks(points)
    spline.SetTargetLandmarks(points)
    warp.SetAndObserveTransformToParent(spline)
    box.SetAndObserveTransformNodeID(warp.GetID())
    with pytest.raises(DiffusionSegmentError, match="non-linear") as caught:
        regionOfInterest(box, ct)
    assert caught.value.code is ErrorCode.GEOMETRY


def test_a_new_box_encloses_the_scan_and_a_present_one_is_kept(
    scene: slicer.vtkMRMLScene, ct: slicer.vtkMRMLScalarVolumeNode
) -> None:
    node = scene.AddNewNodeByClass("vtkMRMLMarkupsROINode", "New")
    placeAround(node, ct)
    bounds, scan = np.zeros(6), np.zeros(6)
    node.GetRASBounds(bounds)
    ct.GetRASBounds(scan)
    np.testing.assert_allclose(bounds, scan, atol=1e-6)
    node.SetSize(5.0, 5.0, 5.0)
    placeAround(node, ct)
    assert list(node.GetSize()) == [5.0, 5.0, 5.0]
