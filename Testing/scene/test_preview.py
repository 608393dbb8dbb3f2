"""A preview in the scene: with the geometry of the input, apart from the result, removed completely, never saved."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import slicer
from DiffusionSegmentBackend.errors import DiffusionSegmentError, ErrorCode
from DiffusionSegmentBackend.imaging.volume import Volume
from DiffusionSegmentBackend.protocol.buffers import write_buffer
from DiffusionSegmentBackend.protocol.messages import Preview
from DiffusionSegmentLib.scene.label_map import readLabels
from DiffusionSegmentLib.scene.overlay import STYLES, OverlayKind, showOverlay
from DiffusionSegmentLib.scene.preview import removePreview, showPreview
from DiffusionSegmentLib.scene.result import SceneResult
from DiffusionSegmentLib.scene.segmented_scan import SegmentedScan
from DiffusionSegmentLib.scene.terminology import ModelDescription


@pytest.fixture
def message(labels: np.ndarray, oblique: Volume, tmp_path: Path) -> Preview:
    return Preview(id="1", labels=write_buffer(tmp_path / "preview.raw", labels, oblique.index_to_lps))


def nodes(scene: slicer.vtkMRMLScene) -> list[str]:
    """All nodes but the subject hierarchy, which the first segmentation adds."""
    present = [scene.GetNthNode(n) for n in range(scene.GetNumberOfNodes())]
    return sorted(node.GetID() for node in present if not node.IsA("vtkMRMLSubjectHierarchyNode"))


def test_the_preview_stays_valid_without_its_file_and_has_the_geometry_of_the_scan(
    message: Preview, ct: slicer.vtkMRMLScalarVolumeNode, model: ModelDescription, labels: np.ndarray
) -> None:
    node = showPreview(message, ct, model)
    Path(message.labels.path).unlink()
    assert node.GetName() == "CT preview"
    np.testing.assert_array_equal(readLabels(SegmentedScan(ct, node, model.labels)).labels, labels)
    assert node.GetDisplayNode().GetOpacity() < 1.0


def test_removal_leaves_no_nodes(
    scene: slicer.vtkMRMLScene, message: Preview, ct: slicer.vtkMRMLScalarVolumeNode, model: ModelDescription
) -> None:
    before = nodes(scene)
    showPreview(message, ct, model)
    showPreview(message, ct, model)
    removePreview(scene)
    assert nodes(scene) == before
    removePreview(scene)


def test_the_preview_of_a_removed_scan_is_removed_too(
    scene: slicer.vtkMRMLScene, message: Preview, ct: slicer.vtkMRMLScalarVolumeNode, model: ModelDescription
) -> None:
    showPreview(message, ct, model)
    scene.RemoveNode(ct)
    removePreview(scene)
    assert scene.GetNumberOfNodesByClass("vtkMRMLSegmentationNode") == 0


def test_result_and_own_segmentations_are_not_touched(
    scene: slicer.vtkMRMLScene,
    message: Preview,
    ct: slicer.vtkMRMLScalarVolumeNode,
    model: ModelDescription,
    shown: SceneResult,
) -> None:
    expected = readLabels(SegmentedScan(ct, shown.segmentation, model.labels)).labels
    time = shown.segmentation.GetSegmentation().GetMTime()
    assert showPreview(message, ct, model) is not shown.segmentation
    removePreview(scene)
    assert shown.segmentation.GetScene() is scene
    assert shown.segmentation.GetSegmentation().GetMTime() == time
    np.testing.assert_array_equal(readLabels(SegmentedScan(ct, shown.segmentation, model.labels)).labels, expected)


def test_a_scene_is_saved_without_it(
    message: Preview, ct: slicer.vtkMRMLScalarVolumeNode, model: ModelDescription
) -> None:
    node = showPreview(message, ct, model)
    assert not node.GetSaveWithScene()
    assert not node.GetDisplayNode().GetSaveWithScene()


def test_a_preview_of_another_size_is_refused_and_the_previous_one_stays(
    scene: slicer.vtkMRMLScene,
    message: Preview,
    ct: slicer.vtkMRMLScalarVolumeNode,
    model: ModelDescription,
    tmp_path: Path,
) -> None:
    showPreview(message, ct, model)
    before = nodes(scene)
    small = write_buffer(tmp_path / "small.raw", np.zeros((2, 3, 4), np.uint8), np.eye(4))
    with pytest.raises(DiffusionSegmentError) as caught:
        showPreview(replace(message, labels=small), ct, model)
    assert caught.value.code is ErrorCode.GEOMETRY
    assert nodes(scene) == before


def test_a_preview_for_a_removed_scan_is_refused(
    scene: slicer.vtkMRMLScene, message: Preview, ct: slicer.vtkMRMLScalarVolumeNode, model: ModelDescription
) -> None:
    scene.RemoveNode(ct)
    with pytest.raises(DiffusionSegmentError) as caught:
        showPreview(message, ct, model)
    assert caught.value.code is ErrorCode.INPUT_MISSING


@pytest.mark.parametrize("kind", STYLES)
def test_the_legend_of_every_overlay_states_its_unit(
    scene: slicer.vtkMRMLScene, ct: slicer.vtkMRMLScalarVolumeNode, shown: SceneResult, kind: OverlayKind
) -> None:
    scene.AddNewNodeByClass("vtkMRMLSliceCompositeNode")
    showOverlay(scene, ct, shown.overlays[kind], kind)
    legend = slicer.vtkSlicerColorLogic.GetColorLegendDisplayNode(shown.overlays[kind])
    assert legend.GetVisibility()
    assert legend.GetTitleText().endswith(("(mm)", "(0 to 1)"))
