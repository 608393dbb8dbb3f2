"""A result in a real MRML scene: geometry, names, codes, colours, overlays and legend, all or nothing."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import slicer
import vtk
from DiffusionSegmentBackend.errors import DiffusionSegmentError, ErrorCode
from DiffusionSegmentBackend.imaging.volume import Volume
from DiffusionSegmentBackend.protocol.buffers import write_buffer
from DiffusionSegmentBackend.protocol.messages import Result
from DiffusionSegmentLib.scene.overlay import OverlayKind, setThreshold, showOverlay
from DiffusionSegmentLib.scene.result import putResult
from DiffusionSegmentLib.scene.segmentation import putSegmentation, showSurfaces
from DiffusionSegmentLib.scene.terminology import ModelDescription
from DiffusionSegmentLib.scene.volumes import volumeBuffer
from headless.views import SliceView
from slicer.util import arrayFromVolume

Scene = slicer.vtkMRMLScene
Ct = slicer.vtkMRMLScalarVolumeNode


def segmentArray(node: slicer.vtkMRMLSegmentationNode, name: str, ct: Ct) -> np.ndarray:
    """A segment's voxels (k, j, i) on the grid of the CT, by Slicer's own export."""
    labelmap = node.GetScene().AddNewNodeByClass("vtkMRMLLabelMapVolumeNode")
    names = vtk.vtkStringArray()
    names.InsertNextValue(name)
    logic = slicer.vtkSlicerSegmentationsModuleLogic
    assert logic.ExportSegmentsToLabelmapNode(node, names, labelmap, ct)
    return arrayFromVolume(labelmap) > 0


def addTransform(scene: Scene, angle: float = 20.0) -> slicer.vtkMRMLTransformNode:
    transform = scene.AddNewNodeByClass("vtkMRMLLinearTransformNode")
    matrix = vtk.vtkTransform()
    matrix.Translate(10, -20, 30)
    matrix.RotateZ(angle)
    transform.SetMatrixTransformToParent(matrix.GetMatrix())
    return transform


class TestVolumes:
    def test_a_volume_gives_its_voxels_and_lps_geometry(self, ct: Ct, oblique: Volume) -> None:
        array, matrix = volumeBuffer(ct)
        np.testing.assert_array_equal(array, oblique.array)
        np.testing.assert_allclose(matrix, oblique.index_to_lps, atol=1e-9)

    def test_a_linear_transform_is_applied(self, scene: Scene, ct: Ct) -> None:
        ct.SetAndObserveTransformNodeID(addTransform(scene).GetID())
        _, matrix = volumeBuffer(ct)
        world = [0.0] * 3
        ct.TransformPointToWorld(_ras(ct, (3, 5, 7)), world)
        np.testing.assert_allclose((matrix @ (3, 5, 7, 1))[:3], np.array(world) * (-1, -1, 1), atol=1e-6)

    def test_a_non_linear_transform_is_refused_with_a_hint(self, scene: Scene, ct: Ct) -> None:
        warp = scene.AddNewNodeByClass("vtkMRMLTransformNode")
        spline = vtk.vtkThinPlateSplineTransform()
        points = vtk.vtkPoints()
        for corner in ((0, 0, 0), (9, 0, 0), (0, 9, 0), (0, 0, 9)):
            points.InsertNextPoint(corner)
        spline.SetSourceLandmarks(points)
        spline.SetTargetLandmarks(points)
        warp.SetAndObserveTransformToParent(spline)
        ct.SetAndObserveTransformNodeID(warp.GetID())
        with pytest.raises(DiffusionSegmentError, match="Harden") as caught:
            volumeBuffer(ct)
        assert caught.value.code is ErrorCode.GEOMETRY

    def test_an_empty_volume_is_refused(self, scene: Scene) -> None:
        with pytest.raises(DiffusionSegmentError, match="empty"):
            volumeBuffer(scene.AddNewNodeByClass("vtkMRMLScalarVolumeNode"))


def _ras(node: Ct, ijk: tuple[int, int, int]) -> list[float]:
    matrix = vtk.vtkMatrix4x4()
    node.GetIJKToRASMatrix(matrix)
    return list(matrix.MultiplyPoint((*ijk, 1)))[:3]


class TestSegmentation:
    def test_segments_cover_the_labelled_voxels_on_an_oblique_grid(
        self, scene: Scene, ct: Ct, labels: np.ndarray, model: ModelDescription
    ) -> None:
        node = putSegmentation(scene, labels, model.labels, ct, "Organs")
        np.testing.assert_array_equal(segmentArray(node, "liver", ct), labels == 6)
        np.testing.assert_array_equal(segmentArray(node, "spleen", ct), labels == 1)

    def test_only_labels_with_voxels_become_segments(
        self, scene: Scene, ct: Ct, labels: np.ndarray, model: ModelDescription
    ) -> None:
        node = putSegmentation(scene, labels, model.labels, ct, "Organs")
        assert node.GetSegmentation().GetNumberOfSegments() == 2

    def test_names_colours_and_snomed_codes_are_standard(
        self, scene: Scene, ct: Ct, labels: np.ndarray, model: ModelDescription
    ) -> None:
        segmentation = putSegmentation(scene, labels, model.labels, ct, "Organs").GetSegmentation()
        liver = segmentation.GetSegment("liver")
        assert liver.GetName() == "Liver"
        np.testing.assert_allclose(liver.GetColor(), np.array((221, 130, 101)) / 255)
        entry = slicer.vtkSlicerTerminologyEntry()
        logic = slicer.vtkSlicerTerminologiesModuleLogic()
        assert logic.DeserializeTerminologyEntry(_terminology(liver), entry)
        assert entry.GetTypeObject().GetCodeValue() == "10200004"
        assert entry.GetTypeObject().GetCodeMeaning() == "Liver"
        assert entry.GetCategoryObject().GetCodeValue() == "123037004"

    def test_paired_organs_have_their_side(
        self, scene: Scene, ct: Ct, labels: np.ndarray, model: ModelDescription
    ) -> None:
        kidneys = np.where(labels == 6, 2, np.where(labels == 1, 3, 0)).astype(np.uint8)
        segmentation = putSegmentation(scene, kidneys, model.labels, ct, "Organs").GetSegmentation()
        assert "SCT^24028007^Right" in _terminology(segmentation.GetSegment("right_kidney"))
        assert "SCT^7771000^Left" in _terminology(segmentation.GetSegment("left_kidney"))

    def test_it_moves_with_its_volume(self, scene: Scene, ct: Ct, labels: np.ndarray, model: ModelDescription) -> None:
        ct.SetAndObserveTransformNodeID(addTransform(scene).GetID())
        node = putSegmentation(scene, labels, model.labels, ct, "Organs")
        assert node.GetTransformNodeID() == ct.GetTransformNodeID()
        np.testing.assert_array_equal(segmentArray(node, "liver", ct), labels == 6)

    def test_names_codes_and_provenance_survive_a_seg_nrrd(
        self, scene: Scene, ct: Ct, labels: np.ndarray, model: ModelDescription, tmp_path: Path
    ) -> None:
        provenance = {"model": "abdomen-ct", "seed": 4}
        node = putSegmentation(scene, labels, model.labels, ct, "Organs", provenance=provenance)
        node.AddDefaultStorageNode()
        storage = node.GetStorageNode()
        storage.SetFileName(str(tmp_path / "organs.seg.nrrd"))
        assert storage.WriteData(node)
        again = scene.AddNewNodeByClass("vtkMRMLSegmentationNode")
        again.AddDefaultStorageNode()
        again.GetStorageNode().SetFileName(str(tmp_path / "organs.seg.nrrd"))
        assert again.GetStorageNode().ReadData(again)
        liver = again.GetSegmentation().GetSegment("liver")
        assert liver.GetName() == "Liver"
        assert "10200004" in _terminology(liver)
        seed = vtk.reference("")
        assert liver.GetTag("DiffusionSegment.seed", seed)
        assert str(seed) == "4"
        np.testing.assert_array_equal(segmentArray(again, "liver", ct), labels == 6)

    def test_surfaces_enclose_about_the_organs_volume(
        self, scene: Scene, ct: Ct, labels: np.ndarray, model: ModelDescription, oblique: Volume
    ) -> None:
        node = putSegmentation(scene, labels, model.labels, ct, "Organs")
        showSurfaces(node)
        mass = vtk.vtkMassProperties()
        mass.SetInputData(node.GetClosedSurfaceInternalRepresentation("liver"))
        expected = np.count_nonzero(labels == 6) * oblique.voxel_ml * 1000
        assert 0.7 * expected < mass.GetVolume() < 1.1 * expected


def _terminology(segment: slicer.vtkSegment) -> str:
    value = vtk.reference("")
    assert segment.GetTag(slicer.vtkSegment.GetTerminologyEntryTagName(), value)
    return str(value)


class TestResult:
    def test_every_map_has_its_values_and_geometry(
        self, scene: Scene, ct: Ct, result: Result, model: ModelDescription
    ) -> None:
        put = putResult(scene, result, ct, model)
        assert set(put.overlays) == set(OverlayKind) - {OverlayKind.NONE}
        for node in put.overlays.values():
            np.testing.assert_allclose(volumeBuffer(node)[1], volumeBuffer(ct)[1])
        assert arrayFromVolume(put.overlays[OverlayKind.UNCERTAINTY])[3, 12, 5] == pytest.approx(0.5)
        k, j, i = 3, 12, 5
        for kind, expected in zip(list(OverlayKind)[3:], (i, j, k), strict=True):
            assert arrayFromVolume(put.overlays[kind])[k, j, i] == expected

    def test_provenance_is_stored_in_the_segmentation(
        self, scene: Scene, ct: Ct, result: Result, model: ModelDescription
    ) -> None:
        node = putResult(scene, result, ct, model).segmentation
        assert node.GetAttribute("DiffusionSegment.seed") == "4"
        assert '"sha256": "abc"' in node.GetAttribute("DiffusionSegment.report")

    def test_a_second_result_writes_into_the_same_nodes(
        self, scene: Scene, ct: Ct, result: Result, model: ModelDescription
    ) -> None:
        first = putResult(scene, result, ct, model)
        count = scene.GetNumberOfNodes()
        second = putResult(scene, result, ct, model, previous=first)
        assert scene.GetNumberOfNodes() == count
        assert second.segmentation is first.segmentation

    def test_a_removed_input_is_reported_and_nothing_is_added(
        self, scene: Scene, ct: Ct, result: Result, model: ModelDescription
    ) -> None:
        scene.RemoveNode(ct)
        count = scene.GetNumberOfNodes()
        with pytest.raises(DiffusionSegmentError, match="no longer in the scene"):
            putResult(scene, result, ct, model)
        assert scene.GetNumberOfNodes() == count

    def test_a_failure_while_adding_nodes_leaves_the_scene_unchanged(
        self, scene: Scene, ct: Ct, result: Result, model: ModelDescription, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def fail(*_: object, **__: object) -> None:
            raise RuntimeError("out of memory")

        before = scene.GetNumberOfNodes()
        monkeypatch.setattr("DiffusionSegmentLib.scene.result.putSegmentation", fail)
        with pytest.raises(RuntimeError):
            putResult(scene, result, ct, model)
        assert scene.GetNumberOfNodes() == before

    def test_maps_of_another_size_are_refused(
        self, scene: Scene, ct: Ct, result: Result, model: ModelDescription, tmp_path: Path
    ) -> None:
        from dataclasses import replace

        small = write_buffer(tmp_path / "small.raw", np.zeros((2, 3, 4), np.uint8), np.eye(4))
        with pytest.raises(DiffusionSegmentError) as caught:
            putResult(scene, replace(result, labels=small), ct, model)
        assert caught.value.code is ErrorCode.GEOMETRY


class TestOverlay:
    @pytest.fixture
    def shown(
        self, scene: Scene, ct: Ct, result: Result, model: ModelDescription, axialView: SliceView
    ) -> dict[OverlayKind, Ct]:
        put = putResult(scene, result, ct, model)
        put.segmentation.GetDisplayNode().SetVisibility(False)
        ct.GetDisplayNode().AutoWindowLevelOff()
        ct.GetDisplayNode().SetWindowLevelMinMax(-1000, 12000)
        bounds = [0.0] * 6
        ct.GetRASBounds(bounds)
        centre = [(bounds[2 * n] + bounds[2 * n + 1]) / 2 for n in range(3)]
        axialView.showAt((centre[0], centre[1], centre[2]), fieldOfView=60)
        showOverlay(scene, ct, put.overlays[OverlayKind.UNCERTAINTY], OverlayKind.UNCERTAINTY)
        return put.overlays

    @staticmethod
    def coloured(image: np.ndarray) -> int:
        return int((np.ptp(image[:, :220].astype(int), axis=2) > 25).sum())

    def test_uncertain_voxels_are_coloured_and_certain_ones_stay_grey(
        self, shown: dict[OverlayKind, Ct], axialView: SliceView
    ) -> None:
        image = axialView.grab()
        tissue = (image[:, :220].max(axis=2) > 10).sum()
        assert 0.3 * tissue < self.coloured(image) < 0.8 * tissue
        setThreshold(shown[OverlayKind.UNCERTAINTY], 0.9)
        assert self.coloured(axialView.grab()) < 0.02 * tissue

    def test_none_removes_overlay_and_legend(
        self, scene: Scene, ct: Ct, shown: dict[OverlayKind, Ct], axialView: SliceView
    ) -> None:
        axialView.grab()
        showOverlay(scene, ct, None, OverlayKind.NONE)
        image = axialView.grab()
        assert self.coloured(image) == 0
        assert np.ptp(image[:, 240:].astype(int), axis=2).max() == 0

    def test_the_legend_is_drawn_in_the_maps_own_colours(
        self, shown: dict[OverlayKind, Ct], axialView: SliceView
    ) -> None:
        strip = axialView.grab()[:, 240:].reshape(-1, 3).astype(int)
        for colour in ((252, 247, 140), (140, 31, 128)):
            assert np.abs(strip - colour).max(axis=1).min() < 25

    def test_each_kind_shows_its_own_legend_only(
        self, scene: Scene, ct: Ct, shown: dict[OverlayKind, Ct], axialView: SliceView
    ) -> None:
        kind = OverlayKind.BODY_INFERIOR_SUPERIOR
        showOverlay(scene, ct, shown[kind], kind)
        count = scene.GetNumberOfNodesByClass("vtkMRMLColorLegendDisplayNode")
        legends = [scene.GetNthNodeByClass(n, "vtkMRMLColorLegendDisplayNode") for n in range(count)]
        assert [n.GetTitleText() for n in legends if n.GetVisibility()] == ["Inferior - superior (mm)"]
