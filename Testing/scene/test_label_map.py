"""The segmentation as one label map, whatever layers it is kept in, and boxes of labels written back."""

from __future__ import annotations

import time
from collections.abc import Callable

import numpy as np
import pytest
import slicer
import vtk
from DiffusionSegmentBackend.errors import DiffusionSegmentError, ErrorCode
from DiffusionSegmentBackend.imaging.volume import Volume
from DiffusionSegmentLib.scene.box import Box, boxAround, boxOfGrid
from DiffusionSegmentLib.scene.label_map import readLabels, userSegmentMask, writeLabels
from DiffusionSegmentLib.scene.layers import BINARY
from DiffusionSegmentLib.scene.segmentation import putSegmentation, showSurfaces
from DiffusionSegmentLib.scene.segmented_scan import SegmentedScan
from DiffusionSegmentLib.scene.terminology import ModelDescription
from headless.slicer_picture import putVolume
from slicer.util import arrayFromVolume
from vtk.util.numpy_support import vtk_to_numpy

Scene = slicer.vtkMRMLScene
LIVER, SPLEEN, STOMACH = 6, 1, 7


@pytest.fixture
def scan(
    scene: Scene, ct: slicer.vtkMRMLScalarVolumeNode, labels: np.ndarray, model: ModelDescription
) -> SegmentedScan:
    return SegmentedScan(ct, putSegmentation(scene, labels, model.labels, ct, "Organs"), model.labels)


def drawUser(scan: SegmentedScan, mask: np.ndarray, name: str = "tumour") -> None:
    """A segment of the reader's, drawn as Segment Editor does: into the shared layer where it overlaps nothing."""
    scan.segmentation.GetSegmentation().AddEmptySegment(name, name)
    drawAs(scan, name, mask)


def drawAs(scan: SegmentedScan, name: str, mask: np.ndarray, *, start: tuple[int, int, int] = (0, 0, 0)) -> None:
    """Set one segment by Slicer's own logic; overlaps with others are allowed and make layers."""
    image = slicer.vtkOrientedImageData()
    matrix = vtk.vtkMatrix4x4()
    scan.input.GetIJKToRASMatrix(matrix)
    box = Box.ofShape(mask.shape, start)
    image.SetExtent(*(n for a, b in zip(box.start[::-1], box.stop[::-1], strict=True) for n in (a, b - 1)))
    image.AllocateScalars(vtk.VTK_UNSIGNED_CHAR, 1)
    image.SetGeometryFromImageToWorldMatrix(matrix)
    vtk_to_numpy(image.GetPointData().GetScalars()).reshape(mask.shape)[:] = mask
    logic = slicer.vtkSlicerSegmentationsModuleLogic
    assert logic.SetBinaryLabelmapToSegment(image, scan.segmentation, name, logic.MODE_REPLACE)


def userVoxels(scan: SegmentedScan, name: str = "tumour") -> np.ndarray:
    labelmap = scan.scene.AddNewNodeByClass("vtkMRMLLabelMapVolumeNode")
    names = vtk.vtkStringArray()
    names.InsertNextValue(name)
    logic = slicer.vtkSlicerSegmentationsModuleLogic
    assert logic.ExportSegmentsToLabelmapNode(scan.segmentation, names, labelmap, scan.input)
    return arrayFromVolume(labelmap) > 0


class TestReading:
    def test_labels_that_were_put_are_read(self, scan: SegmentedScan, labels: np.ndarray) -> None:
        np.testing.assert_array_equal(readLabels(scan).labels, labels)

    def test_a_box_gives_its_part_of_the_labels(self, scan: SegmentedScan, labels: np.ndarray) -> None:
        box = Box((6, 3, 2), (10, 20, 18))
        np.testing.assert_array_equal(readLabels(scan, box=box).labels, labels[box.slices])

    def test_segments_of_the_reader_are_not_read(self, scan: SegmentedScan, labels: np.ndarray) -> None:
        mask = np.zeros(labels.shape, bool)
        mask[0:3, 0:3, 0:3] = True
        drawUser(scan, mask)
        np.testing.assert_array_equal(readLabels(scan).labels, labels)
        np.testing.assert_array_equal(userSegmentMask(scan), mask)

    def test_separate_cropped_and_hidden_layers_make_no_difference(
        self, scan: SegmentedScan, labels: np.ndarray
    ) -> None:
        segmentation = scan.segmentation.GetSegmentation()
        segmentation.SeparateSegmentLabelmap("liver")
        small = (labels == LIVER)[5:12, 6:14, 4:12]
        drawAs(scan, "liver", small, start=(5, 6, 4))
        scan.segmentation.GetDisplayNode().SetSegmentVisibility("spleen", False)
        assert segmentation.GetNumberOfLayers(BINARY) == 2
        assert segmentation.GetSegment("liver").GetRepresentation(BINARY).GetNumberOfPoints() < labels.size
        np.testing.assert_array_equal(readLabels(scan).labels, labels)

    def test_label_values_of_layers_may_differ_from_those_of_the_model(
        self, scan: SegmentedScan, labels: np.ndarray, saveAndLoad: Callable[[], SegmentedScan]
    ) -> None:
        scan.segmentation.SetName("CT segmentation")
        scan.segmentation.GetSegmentation().CollapseBinaryLabelmaps(True)
        loaded = saveAndLoad()
        np.testing.assert_array_equal(readLabels(loaded).labels, labels)

    def test_overlaps_and_voxels_outside_are_counted(self, scan: SegmentedScan, labels: np.ndarray) -> None:
        drawAs(scan, "spleen", (labels == SPLEEN) | (labels == LIVER))
        assert readLabels(scan).overlapping == np.count_nonzero(labels == LIVER)
        drawAs(scan, "spleen", np.ones((3, 2, 2), bool), start=(18, 0, 0))
        assert readLabels(scan).outside == 4

    def test_an_empty_segmentation_is_background(self, scan: SegmentedScan, labels: np.ndarray) -> None:
        scan.segmentation.GetSegmentation().RemoveAllSegments()
        assert not readLabels(scan).labels.any()

    def test_another_grid_is_refused(self, scene: Scene, scan: SegmentedScan, model: ModelDescription) -> None:
        finer = np.diag([-0.5, -0.5, 2.0, 1.0])
        other = putVolume(scene, Volume(np.zeros((20, 24, 28), np.int16), finer), "Other")
        with pytest.raises(DiffusionSegmentError, match="another geometry") as caught:
            readLabels(SegmentedScan(other, scan.segmentation, model.labels))
        assert caught.value.code is ErrorCode.GEOMETRY

    def test_a_segmentation_that_was_moved_is_refused(self, scene: Scene, scan: SegmentedScan) -> None:
        shift = scene.AddNewNodeByClass("vtkMRMLLinearTransformNode")
        matrix = vtk.vtkMatrix4x4()
        matrix.SetElement(0, 3, 5.0)
        shift.SetMatrixTransformToParent(matrix)
        scan.segmentation.SetAndObserveTransformNodeID(shift.GetID())
        with pytest.raises(DiffusionSegmentError, match="different transforms"):
            readLabels(scan)

    def test_surfaces_as_source_are_refused(self, scan: SegmentedScan) -> None:
        showSurfaces(scan.segmentation)
        name = slicer.vtkSegmentationConverter.GetSegmentationClosedSurfaceRepresentationName()
        scan.segmentation.GetSegmentation().SetSourceRepresentationName(name)
        with pytest.raises(DiffusionSegmentError, match="surfaces"):
            readLabels(scan)

    @pytest.mark.parametrize("gone", ["input", "segmentation"])
    def test_a_deleted_node_is_reported(self, scene: Scene, scan: SegmentedScan, gone: str) -> None:
        scene.RemoveNode(getattr(scan, gone))
        with pytest.raises(DiffusionSegmentError, match="no longer in the scene") as caught:
            readLabels(scan)
        assert caught.value.code is ErrorCode.INPUT_MISSING


class TestWriting:
    def test_only_the_box_changes(self, scan: SegmentedScan, labels: np.ndarray) -> None:
        box = Box((6, 7, 5), (9, 12, 20))
        writeLabels(scan, np.full(box.shape, SPLEEN, np.uint8), box=box)
        expected = labels.copy()
        expected[box.slices] = SPLEEN
        np.testing.assert_array_equal(readLabels(scan).labels, expected)

    def test_the_node_sends_one_event(self, scan: SegmentedScan, labels: np.ndarray) -> None:
        scan.segmentation.GetSegmentation().SeparateSegmentLabelmap("liver")
        reported: list[str] = []
        event = slicer.vtkSegmentation.SourceRepresentationModified
        scan.segmentation.AddObserver(event, lambda *_: reported.append("changed"))
        box = Box((4, 5, 3), (17, 15, 25))
        writeLabels(scan, np.zeros(box.shape, np.uint8), box=box)
        assert reported == ["changed"]

    def test_equal_labels_send_no_event(self, scan: SegmentedScan, labels: np.ndarray) -> None:
        reported: list[str] = []
        scan.segmentation.AddObserver(vtk.vtkCommand.AnyEvent, lambda *_: reported.append("changed"))
        writeLabels(scan, labels)
        assert reported == []

    def test_new_organs_get_the_terminology_of_the_model(self, scan: SegmentedScan, labels: np.ndarray) -> None:
        box = Box((0, 0, 0), (3, 3, 3))
        writeLabels(scan, np.full(box.shape, STOMACH, np.uint8), box=box)
        stomach = scan.segmentation.GetSegmentation().GetSegment("stomach")
        assert stomach.GetName() == "Stomach"
        value = vtk.reference("")
        assert stomach.GetTag(slicer.vtkSegment.GetTerminologyEntryTagName(), value)
        assert "Stomach" in str(value)
        assert np.count_nonzero(readLabels(scan).labels == STOMACH) == 27

    def test_removed_organs_stay_as_empty_segments(self, scan: SegmentedScan, labels: np.ndarray) -> None:
        writeLabels(scan, np.where(labels == LIVER, 0, labels).astype(np.uint8))
        assert scan.segmentation.GetSegmentation().GetSegment("liver") is not None
        assert not (readLabels(scan).labels == LIVER).any()

    def test_a_segment_of_the_reader_in_the_same_layer_keeps_its_voxels(
        self, scan: SegmentedScan, labels: np.ndarray
    ) -> None:
        mask = np.zeros(labels.shape, bool)
        mask[13:18, 1:5, 1:5] = True
        drawUser(scan, mask)
        box = Box((12, 0, 0), (19, 6, 6))
        writeLabels(scan, np.full(box.shape, LIVER, np.uint8), box=box)
        np.testing.assert_array_equal(userVoxels(scan), mask)
        assert (readLabels(scan).labels[box.slices] == LIVER).all()

    def test_clearing_all_labels_keeps_a_segment_of_the_reader(self, scan: SegmentedScan, labels: np.ndarray) -> None:
        mask = np.zeros(labels.shape, bool)
        mask[4:14, 2:4, 2:20] = True
        drawUser(scan, mask)
        writeLabels(scan, np.zeros(labels.shape, np.uint8))
        np.testing.assert_array_equal(userVoxels(scan), mask)
        assert not readLabels(scan).labels.any()

    def test_a_cropped_layer_grows_as_needed(self, scan: SegmentedScan, labels: np.ndarray) -> None:
        scan.segmentation.GetSegmentation().SeparateSegmentLabelmap("liver")
        drawAs(scan, "liver", np.ones((2, 2, 2), bool), start=(5, 6, 4))
        writeLabels(scan, labels)
        np.testing.assert_array_equal(readLabels(scan).labels, labels)

    def test_it_fills_a_segmentation_without_segments(self, scan: SegmentedScan, labels: np.ndarray) -> None:
        scan.segmentation.GetSegmentation().RemoveAllSegments()
        writeLabels(scan, labels)
        np.testing.assert_array_equal(readLabels(scan).labels, labels)

    def test_surfaces_are_updated(self, scan: SegmentedScan, labels: np.ndarray) -> None:
        showSurfaces(scan.segmentation)
        before = scan.segmentation.GetClosedSurfaceInternalRepresentation("liver").GetBounds()
        box = Box((12, 6, 4), (18, 14, 12))
        writeLabels(scan, np.full(box.shape, LIVER, np.uint8), box=box)
        after = scan.segmentation.GetClosedSurfaceInternalRepresentation("liver").GetBounds()
        assert after[5] > before[5] + 5

    @pytest.mark.parametrize("box", [Box((0, 0, 0), (3, 3, 4)), Box((18, 0, 0), (21, 3, 3))])
    def test_labels_that_do_not_fit_the_box_are_refused(self, scan: SegmentedScan, box: Box) -> None:
        with pytest.raises(ValueError, match="fit"):
            writeLabels(scan, np.zeros((3, 3, 3), np.uint8), box=box)

    @pytest.mark.slow
    def test_a_box_of_a_clinical_scan_is_written_in_a_tenth_of_a_second(
        self, scene: Scene, model: ModelDescription
    ) -> None:
        shape = (300, 512, 512)
        geometry = np.diag([0.8, 0.8, 1.0, 1.0])
        ct = putVolume(scene, Volume(np.zeros(shape, np.int16), geometry), "CT")
        labels = np.zeros(shape, np.uint8)
        labels[100:200, 100:300, 100:300] = LIVER
        scan = SegmentedScan(ct, putSegmentation(scene, labels, model.labels, ct, "Organs"), model.labels)
        box = Box((120, 150, 150), (216, 246, 246))
        seconds = []
        for value in (SPLEEN, LIVER, 0, SPLEEN):
            start = time.perf_counter()
            writeLabels(scan, np.full(box.shape, value, np.uint8), box=box)
            seconds.append(time.perf_counter() - start)
        print(f"box write-back: {min(seconds[1:]):.3f} s")
        assert min(seconds[1:]) < 0.1


class TestBox:
    def test_the_smallest_box_around_a_mask(self) -> None:
        mask = np.zeros((5, 6, 7), bool)
        mask[1, 2, 3] = mask[3, 4, 3] = True
        assert boxAround(mask) == Box((1, 2, 3), (4, 5, 4))
        assert boxAround(np.zeros((2, 2, 2), bool)) is None

    def test_the_box_of_a_crop_follows_from_its_matrix(self, oblique: Volume) -> None:
        crop = oblique.index_to_lps.copy()
        crop[:3, 3] = (oblique.index_to_lps @ (3, 5, 2, 1))[:3]
        assert boxOfGrid((4, 6, 8), crop, oblique.index_to_lps, what="It") == Box((2, 5, 3), (6, 11, 11))

    @pytest.mark.parametrize("shift", [(0.3, 0, 0), (0, 0, 0.5)])
    def test_half_a_voxel_is_another_geometry(self, oblique: Volume, shift: tuple[float, ...]) -> None:
        crop = oblique.index_to_lps.copy()
        crop[:3, 3] = (oblique.index_to_lps @ (*shift, 1))[:3]
        with pytest.raises(DiffusionSegmentError, match="another geometry"):
            boxOfGrid((4, 6, 8), crop, oblique.index_to_lps, what="It")
