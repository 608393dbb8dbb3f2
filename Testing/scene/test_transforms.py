"""Scans under transforms: the result matches the organs, and invalid matrices are refused with a message."""

from __future__ import annotations

import numpy as np
import pytest
import slicer
import vtk
from DiffusionSegmentBackend.errors import DiffusionSegmentError, ErrorCode
from DiffusionSegmentBackend.imaging.volume import Volume
from DiffusionSegmentBackend.protocol.messages import Result
from DiffusionSegmentLib.scene.corrections import findCorrections
from DiffusionSegmentLib.scene.label_map import readLabels, writeLabels
from DiffusionSegmentLib.scene.result import SceneResult, putResult
from DiffusionSegmentLib.scene.segmented_scan import SegmentedScan
from DiffusionSegmentLib.scene.terminology import ModelDescription
from DiffusionSegmentLib.scene.volumes import toMatrix, volumeBuffer
from scipy.spatial.transform import Rotation

Scene = slicer.vtkMRMLScene
Ct = slicer.vtkMRMLScalarVolumeNode
LIVER = 6


def linear(scene: Scene, matrix: np.ndarray) -> slicer.vtkMRMLTransformNode:
    node = scene.AddNewNodeByClass("vtkMRMLLinearTransformNode")
    node.SetMatrixTransformToParent(toMatrix(matrix))
    return node


def rigid(angle: float = 25.0, move: tuple[float, float, float] = (12.0, -30.0, 45.0)) -> np.ndarray:
    matrix = np.eye(4)
    matrix[:3, :3] = Rotation.from_euler("zx", (angle, angle / 2), degrees=True).as_matrix()
    matrix[:3, 3] = move
    return matrix


def scaling(*factors: float) -> np.ndarray:
    return np.diag([*factors, 1.0])


def worldCentre(ct: Ct, mask: np.ndarray) -> np.ndarray:
    """Centre of voxels in RAS mm of the world, by Slicer's own transformation to the world."""
    corners = []
    matrix = vtk.vtkMatrix4x4()
    ct.GetIJKToRASMatrix(matrix)
    for k, j, i in (np.argwhere(mask).min(axis=0), np.argwhere(mask).max(axis=0)):
        world = [0.0] * 3
        ct.TransformPointToWorld(list(matrix.MultiplyPoint((i, j, k, 1.0)))[:3], world)
        corners.append(world)
    return np.mean(corners, axis=0)


def assertUnderOrgans(put: SceneResult, ct: Ct, labels: np.ndarray) -> None:
    centre = put.segmentation.GetSegmentCenterRAS("liver")
    expected = worldCentre(ct, labels == LIVER)
    assert np.linalg.norm(np.array(centre) - expected) < 1.5, "the liver is not where it is in the scan"
    for node in put.overlays.values():
        np.testing.assert_allclose(volumeBuffer(node)[1], volumeBuffer(ct)[1], atol=1e-9)


@pytest.mark.parametrize("matrices", [[rigid()], [rigid(), rigid(-70.0, (0.0, 5.0, -9.0))], [scaling(1.2, 0.9, 1.1)]])
def test_the_result_matches_the_organs(
    scene: Scene, ct: Ct, result: Result, labels: np.ndarray, model: ModelDescription, matrices: list[np.ndarray]
) -> None:
    child: slicer.vtkMRMLTransformableNode = ct
    for matrix in matrices:
        parent = linear(scene, matrix)
        child.SetAndObserveTransformNodeID(parent.GetID())
        child = parent
    assertUnderOrgans(putResult(scene, result, ct, model), ct, labels)


def test_the_sent_geometry_has_the_voxel_volume_of_the_world(scene: Scene, ct: Ct, oblique: Volume) -> None:
    """The worker computes volumes from the matrix that it receives."""
    ct.SetAndObserveTransformNodeID(linear(scene, rigid()).GetID())
    assert Volume(*volumeBuffer(ct)).voxel_ml == pytest.approx(oblique.voxel_ml)
    ct.SetAndObserveTransformNodeID(linear(scene, scaling(2.0, 1.0, 1.5)).GetID())
    assert Volume(*volumeBuffer(ct)).voxel_ml == pytest.approx(3 * oblique.voxel_ml)


def test_a_transform_set_during_the_run_applies_to_the_result(
    scene: Scene, ct: Ct, result: Result, labels: np.ndarray, model: ModelDescription
) -> None:
    """The result was made where the scan lay before."""
    ct.SetAndObserveTransformNodeID(linear(scene, rigid()).GetID())
    assertUnderOrgans(putResult(scene, result, ct, model), ct, labels)


def test_a_change_of_their_transform_moves_scan_and_result_together(
    scene: Scene, ct: Ct, result: Result, labels: np.ndarray, model: ModelDescription
) -> None:
    parent = linear(scene, rigid())
    ct.SetAndObserveTransformNodeID(parent.GetID())
    put = putResult(scene, result, ct, model)
    parent.SetMatrixTransformToParent(toMatrix(rigid(80.0)))
    assertUnderOrgans(put, ct, labels)
    scan = SegmentedScan(ct, put.segmentation, model.labels)
    np.testing.assert_array_equal(readLabels(scan).labels, labels)


def test_a_scan_moved_without_its_result_is_reported(
    scene: Scene, ct: Ct, result: Result, labels: np.ndarray, model: ModelDescription
) -> None:
    put = putResult(scene, result, ct, model)
    scan = SegmentedScan(ct, put.segmentation, model.labels)
    edited = labels.copy()
    edited[6:9, 7:9, 5:7] = 0
    writeLabels(scan, edited)
    parent = linear(scene, rigid())
    ct.SetAndObserveTransformNodeID(parent.GetID())
    with pytest.raises(DiffusionSegmentError, match="under different transforms") as caught:
        findCorrections(scan)
    assert caught.value.hint == "Put both under the same transform."
    put.segmentation.SetAndObserveTransformNodeID(parent.GetID())
    assert findCorrections(scan).count == 3 * 2 * 2


def test_the_next_result_follows_a_scan_that_was_moved(
    scene: Scene, ct: Ct, result: Result, labels: np.ndarray, model: ModelDescription
) -> None:
    put = putResult(scene, result, ct, model)
    ct.SetAndObserveTransformNodeID(linear(scene, rigid()).GetID())
    assertUnderOrgans(putResult(scene, result, ct, model, previous=put), ct, labels)


@pytest.mark.parametrize(
    ("matrix", "words"),
    [
        (scaling(1.0, 0.0, 1.0), "flattens"),
        (scaling(1.0, 1.0, 1e-9), "flattens"),
        (scaling(-1.0, 1.0, 1.0), "mirrors"),
        (scaling(np.nan, 1.0, 1.0), "flattens"),
        (np.array([[1.0, 0, 0, 0], [0, 1, 0, 0], [0, 0, 1, 0], [0.01, 0, 0, 1]]), "perspective"),
    ],
)
def test_an_invalid_matrix_is_refused(scene: Scene, ct: Ct, matrix: np.ndarray, words: str) -> None:
    ct.SetAndObserveTransformNodeID(linear(scene, matrix).GetID())
    with pytest.raises(DiffusionSegmentError, match=words) as caught:
        volumeBuffer(ct)
    assert caught.value.code is ErrorCode.GEOMETRY
    assert caught.value.hint


def test_two_mirroring_transforms_cancel(scene: Scene, ct: Ct, oblique: Volume) -> None:
    outer, inner = linear(scene, scaling(-1.0, 1.0, 1.0)), linear(scene, scaling(-1.0, 1.0, 1.0))
    inner.SetAndObserveTransformNodeID(outer.GetID())
    ct.SetAndObserveTransformNodeID(inner.GetID())
    np.testing.assert_allclose(volumeBuffer(ct)[1], oblique.index_to_lps)


def test_a_hardened_mirroring_transform_is_accepted(scene: Scene, ct: Ct, oblique: Volume) -> None:
    ct.SetAndObserveTransformNodeID(linear(scene, scaling(-1.0, 1.0, 1.0)).GetID())
    ct.HardenTransform()
    np.testing.assert_allclose(volumeBuffer(ct)[1], np.diag([-1.0, 1, 1, 1]) @ oblique.index_to_lps, atol=1e-9)
