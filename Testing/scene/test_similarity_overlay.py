"""Similar voxels in the scene: a map on its own grid over the scan, a point, and a segment of the region around."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import slicer
import vtk
from DiffusionSegmentBackend.errors import DiffusionSegmentError, ErrorCode
from DiffusionSegmentBackend.imaging.volume import Volume
from DiffusionSegmentBackend.protocol.buffers import write_buffer
from DiffusionSegmentBackend.protocol.messages import Similarity
from DiffusionSegmentLib.scene.history import History, StepName, snapshot
from DiffusionSegmentLib.scene.label_map import readLabels
from DiffusionSegmentLib.scene.layers import layersOf
from DiffusionSegmentLib.scene.segmented_scan import SegmentedScan
from DiffusionSegmentLib.scene.similar_point import findSimilarPoint, placeSimilarPoint, similarPointLPS
from DiffusionSegmentLib.scene.similarity import (
    findSimilarity,
    makeSimilarSegment,
    putSimilarity,
    segmentationFor,
    showSimilarity,
)
from DiffusionSegmentLib.scene.volumes import volumeBuffer
from slicer.util import arrayFromVolume

GRID_SHAPE = (18, 14, 16)
FAR = (6.0, 4.0, 4.0)
NEAR = (14.0, 10.0, 12.0)


def gridToLPS(scanToLPS: np.ndarray) -> np.ndarray:
    """A grid of 1.7 x 1.6 x 1.1 voxels of the scan, beginning a little before its first voxel."""
    between = np.diag([1.7, 1.6, 1.1, 1.0])
    between[:3, 3] = (-0.3, 0.4, -0.2)
    return np.asarray(scanToLPS @ between)


def bumps(gridPositions: list[tuple[float, float, float]]) -> np.ndarray:
    """Similarity that falls from 1 by 0.1 a grid voxel around each position (k, j, i)."""
    positions = np.indices(GRID_SHAPE).reshape(3, -1)
    nearest = np.min([np.linalg.norm(positions - np.array(p)[:, None], axis=0) for p in gridPositions], axis=0)
    return (1.0 - 0.1 * nearest).reshape(GRID_SHAPE).astype(np.float32)


def lps(matrix: np.ndarray, kji: tuple[float, float, float]) -> tuple[float, float, float]:
    x, y, z = (float(v) for v in (matrix @ (*kji[::-1], 1.0))[:3])
    return x, y, z


@pytest.fixture
def values() -> np.ndarray:
    return bumps([FAR, NEAR])


@pytest.fixture
def put(
    ct: slicer.vtkMRMLScalarVolumeNode, values: np.ndarray, tmp_path: Path
) -> Callable[[], slicer.vtkMRMLScalarVolumeNode]:
    """Put the similarity map of the scan in its present geometry into the scene."""

    def run() -> slicer.vtkMRMLScalarVolumeNode:
        sent = volumeBuffer(ct)[1]
        answer = Similarity(id="1", similarity=write_buffer(tmp_path / "map.raw", values, gridToLPS(sent)))
        return putSimilarity(ct, answer, sent)

    return run


def turned(scene: slicer.vtkMRMLScene, *nodes: slicer.vtkMRMLTransformableNode) -> None:
    """Put nodes under a rotation and translation."""
    transform = scene.AddNewNodeByClass("vtkMRMLLinearTransformNode")
    turn = vtk.vtkTransform()
    turn.RotateZ(25)
    turn.Translate(30, -20, 11)
    transform.SetMatrixTransformToParent(turn.GetMatrix())
    for node in nodes:
        node.SetAndObserveTransformNodeID(transform.GetID())


def drawn(scan: SegmentedScan, segmentId: str) -> np.ndarray:
    """The mask of a segment on the grid of the scan."""
    mask = np.zeros(scan.box.shape, bool)
    for layer in layersOf(scan):
        if segmentId in layer.values:
            mask[layer.box.slices] = layer.voxels() == layer.values[segmentId]
    return mask


def expectedSimilarity(scan: SegmentedScan, positions: list[tuple[float, float, float]]) -> np.ndarray:
    """The values of `bumps` at the voxels of the scan, without interpolation."""
    voxels = np.indices(scan.box.shape).reshape(3, -1)[::-1]
    toGrid = np.linalg.inv(gridToLPS(np.eye(4)))
    grid = (toGrid @ np.vstack([voxels, np.ones(voxels.shape[1])]))[:3][::-1]
    nearest = np.min([np.linalg.norm(grid - np.array(p)[:, None], axis=0) for p in positions], axis=0)
    return (1.0 - 0.1 * nearest).reshape(scan.box.shape)


def test_the_map_has_the_geometry_of_the_models_grid(
    ct: slicer.vtkMRMLScalarVolumeNode, values: np.ndarray, put: Callable[[], slicer.vtkMRMLScalarVolumeNode]
) -> None:
    node = put()
    np.testing.assert_array_equal(arrayFromVolume(node), values)
    np.testing.assert_allclose(volumeBuffer(node)[1], gridToLPS(volumeBuffer(ct)[1]), atol=1e-6)


def test_the_map_moves_with_its_scan(
    scene: slicer.vtkMRMLScene, ct: slicer.vtkMRMLScalarVolumeNode, values: np.ndarray, tmp_path: Path
) -> None:
    sent = volumeBuffer(ct)[1].copy()
    answer = Similarity(id="1", similarity=write_buffer(tmp_path / "map.raw", values, gridToLPS(sent)))
    turned(scene, ct)
    node = putSimilarity(ct, answer, sent)
    np.testing.assert_allclose(volumeBuffer(node)[1], gridToLPS(volumeBuffer(ct)[1]), atol=1e-6)


def test_the_next_map_replaces_the_last(
    scene: slicer.vtkMRMLScene,
    ct: slicer.vtkMRMLScalarVolumeNode,
    put: Callable[[], slicer.vtkMRMLScalarVolumeNode],
) -> None:
    first = put()
    assert put() is first
    assert findSimilarity(ct) is first
    assert scene.GetNumberOfNodesByClass("vtkMRMLScalarVolumeNode") == 2


def test_the_map_is_shown_with_a_legend_and_not_saved(
    scene: slicer.vtkMRMLScene,
    ct: slicer.vtkMRMLScalarVolumeNode,
    put: Callable[[], slicer.vtkMRMLScalarVolumeNode],
) -> None:
    composite = scene.AddNewNodeByClass("vtkMRMLSliceCompositeNode")
    node = put()
    showSimilarity(ct, node, threshold=0.8, opacity=0.5)
    assert composite.GetBackgroundVolumeID() == ct.GetID()
    assert composite.GetForegroundVolumeID() == node.GetID()
    assert node.GetDisplayNode().GetLowerThreshold() == pytest.approx(0.8)
    legend = slicer.vtkSlicerColorLogic.GetColorLegendDisplayNode(node)
    assert legend.GetTitleText() == "Similarity"
    assert legend.GetVisibility()
    display = node.GetDisplayNode()
    assert not any(one.GetSaveWithScene() for one in (node, display, display.GetColorNode(), legend))


def test_a_removed_scan_gets_no_map(
    scene: slicer.vtkMRMLScene, ct: slicer.vtkMRMLScalarVolumeNode, put: Callable[[], slicer.vtkMRMLScalarVolumeNode]
) -> None:
    scene.RemoveNode(ct)
    with pytest.raises(DiffusionSegmentError) as caught:
        put()
    assert caught.value.code is ErrorCode.INPUT_MISSING


def test_the_point_is_set_by_a_click_and_given_in_world_coordinates(
    scene: slicer.vtkMRMLScene, ct: slicer.vtkMRMLScalarVolumeNode
) -> None:
    turned(scene, ct)
    node = placeSimilarPoint(ct)
    selection = scene.GetFirstNodeByClass("vtkMRMLSelectionNode")
    interaction = scene.GetFirstNodeByClass("vtkMRMLInteractionNode")
    assert selection.GetActivePlaceNodeID() == node.GetID()
    assert interaction.GetCurrentInteractionMode() == interaction.Place
    assert not interaction.GetPlaceModePersistence()
    assert similarPointLPS(node) is None
    node.AddControlPointWorld(vtk.vtkVector3d(1.0, 2.0, 3.0))
    assert similarPointLPS(node) == pytest.approx((-1.0, -2.0, 3.0))
    assert placeSimilarPoint(ct) is findSimilarPoint(ct) is node, "one node a scan"
    assert similarPointLPS(node) is None


@pytest.mark.parametrize("moved", [False, True])
def test_a_segment_is_the_connected_region_around_the_point(
    scene: slicer.vtkMRMLScene,
    scan: SegmentedScan,
    put: Callable[[], slicer.vtkMRMLScalarVolumeNode],
    moved: bool,
) -> None:
    if moved:
        turned(scene, scan.input, scan.segmentation)
    node, organs = put(), readLabels(scan).labels
    made = makeSimilarSegment(scan, node, lps(volumeBuffer(node)[1], FAR), 0.72)
    mask = drawn(scan, made.segmentId)
    wanted = expectedSimilarity(scan, [FAR]) >= 0.72
    assert np.count_nonzero(mask & wanted) > 0.9 * np.count_nonzero(mask | wanted)
    assert not (mask & (expectedSimilarity(scan, [NEAR]) >= 0.72)).any()
    voxel = abs(np.linalg.det(volumeBuffer(scan.input)[1][:3, :3])) / 1000
    assert made.volumeMl == pytest.approx(np.count_nonzero(mask) * voxel)
    np.testing.assert_array_equal(readLabels(scan).labels, organs)


def test_a_region_enclosed_by_another_is_not_joined_with_it(
    ct: slicer.vtkMRMLScalarVolumeNode, scan: SegmentedScan, tmp_path: Path
) -> None:
    walls = np.full(GRID_SHAPE, -0.5, np.float32)
    walls[5:8, 2:9, 3:11] = 0.9
    walls[5:8, 4:7, 5:9] = -0.5
    walls[5:8, 5, 7] = 0.9
    sent = volumeBuffer(ct)[1]
    answer = Similarity(id="1", similarity=write_buffer(tmp_path / "map.raw", walls, gridToLPS(sent)))
    node = putSimilarity(ct, answer, sent)
    made = makeSimilarSegment(scan, node, lps(gridToLPS(sent), (6.0, 2.0, 3.0)), 0.2)
    inside = (np.linalg.inv(sent) @ (*lps(gridToLPS(sent), (6.0, 5.0, 7.0)), 1.0))[:3]
    i, j, k = (round(float(v)) for v in inside)
    mask = drawn(scan, made.segmentId)
    assert mask.any()
    assert not mask[k - 1 : k + 2, j - 1 : j + 2, i - 1 : i + 2].any()


def test_new_segments_get_unused_names(scan: SegmentedScan, put: Callable[[], slicer.vtkMRMLScalarVolumeNode]) -> None:
    node = put()
    point = lps(volumeBuffer(node)[1], FAR)
    names = [makeSimilarSegment(scan, node, point, threshold).name for threshold in (0.7, 0.8)]
    assert names == ["Similar region 1", "Similar region 2"]


@pytest.mark.parametrize(
    ("kji", "threshold", "words"),
    [
        ((6.0, 4.0, 9.0), 0.7, "has a similarity of 0.70"),
        ((90.0, 4.0, 4.0), 0.7, "outside the region that was analysed"),
    ],
)
def test_a_point_without_similar_voxels_is_refused_and_nothing_is_added(
    scan: SegmentedScan,
    put: Callable[[], slicer.vtkMRMLScalarVolumeNode],
    kji: tuple[float, float, float],
    threshold: float,
    words: str,
) -> None:
    node = put()
    segmentation = scan.segmentation.GetSegmentation()
    before = segmentation.GetSegmentIDs()
    with pytest.raises(DiffusionSegmentError, match=words) as caught:
        makeSimilarSegment(scan, node, lps(volumeBuffer(node)[1], kji), threshold)
    assert caught.value.code is ErrorCode.OPTION
    assert segmentation.GetSegmentIDs() == before


def test_undo_removes_the_segment_and_redo_restores_it_with_its_edits(
    scan: SegmentedScan, put: Callable[[], slicer.vtkMRMLScalarVolumeNode]
) -> None:
    node, history, organs = put(), History(), readLabels(scan).labels
    before = snapshot(scan)
    made = makeSimilarSegment(scan, node, lps(volumeBuffer(node)[1], FAR), 0.7).segmentId
    history.record(StepName.SIMILAR_REGION, scan, before)
    assert history.undoText == "Undo Similar region"
    assert history.bytes > 0

    # The reader paints in it and renames it.
    segment = scan.segmentation.GetSegmentation().GetSegment(made)
    segment.SetName("Cyst")
    layer = next(layer for layer in layersOf(scan) if made in layer.values)
    layer.voxels()[0, 0, :] = layer.values[made]
    left = drawn(scan, made)

    history.undo(scan)
    assert scan.segmentation.GetSegmentation().GetSegment(made) is None
    np.testing.assert_array_equal(readLabels(scan).labels, organs)
    history.redo(scan)
    np.testing.assert_array_equal(drawn(scan, made), left)
    assert scan.segmentation.GetSegmentation().GetSegment(made).GetName() == "Cyst"


def test_undo_clears_all_voxels_in_a_shared_label_map(
    scan: SegmentedScan, put: Callable[[], slicer.vtkMRMLScalarVolumeNode]
) -> None:
    node, history = put(), History()
    before, organs = snapshot(scan), np.count_nonzero(readLabels(scan).labels)
    makeSimilarSegment(scan, node, lps(volumeBuffer(node)[1], NEAR), 0.95)
    history.record(StepName.SIMILAR_REGION, scan, before)
    segmentation = scan.segmentation.GetSegmentation()
    assert segmentation.GetNumberOfLayers() == 2
    segmentation.CollapseBinaryLabelmaps(False)
    assert segmentation.GetNumberOfLayers() == 1
    history.undo(scan)
    assert sum(np.count_nonzero(layer.voxels()) for layer in layersOf(scan)) == organs


def test_undo_of_another_step_keeps_a_segment_of_the_reader(
    scan: SegmentedScan, put: Callable[[], slicer.vtkMRMLScalarVolumeNode]
) -> None:
    node, history = put(), History()
    before = snapshot(scan)
    made = makeSimilarSegment(scan, node, lps(volumeBuffer(node)[1], FAR), 0.7).segmentId
    history.record(StepName.APPLY_CORRECTIONS, scan, before)
    history.undo(scan)
    assert scan.segmentation.GetSegmentation().GetSegment(made) is not None


def test_a_scan_without_a_result_gets_a_new_segmentation(
    ct: slicer.vtkMRMLScalarVolumeNode, put: Callable[[], slicer.vtkMRMLScalarVolumeNode]
) -> None:
    node = put()
    segmentation = segmentationFor(ct, None)
    assert segmentationFor(ct, segmentation) is segmentation
    scan = SegmentedScan(ct, segmentation, ())
    made = makeSimilarSegment(scan, node, lps(volumeBuffer(node)[1], FAR), 0.7)
    assert drawn(scan, made.segmentId).any()
    assert made.name == "Similar region 1"


def test_the_segmentation_of_another_scan_is_not_used(
    scene: slicer.vtkMRMLScene, scan: SegmentedScan, oblique: Volume
) -> None:
    from headless.slicer_picture import putVolume

    other = putVolume(scene, oblique, "Second phase")
    assert segmentationFor(other, scan.segmentation) is not scan.segmentation
