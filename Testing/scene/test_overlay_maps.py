"""Maps of uncertainty on the model's grid as volumes over the scan: place, displayed values, undo, earlier scenes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest
import slicer
import vtk
from DiffusionSegmentBackend.errors import DiffusionSegmentError, ErrorCode
from DiffusionSegmentBackend.imaging.volume import Volume, model_grid
from DiffusionSegmentBackend.pipeline.restore import map_on_grid, restore_map
from DiffusionSegmentBackend.protocol.buffers import write_buffer
from DiffusionSegmentBackend.protocol.messages import Corrected, Result
from DiffusionSegmentBackend.schema.report import OrganResult, Report
from DiffusionSegmentLib.scene.case_record import readCaseRecord
from DiffusionSegmentLib.scene.corrections import applyCorrected, findCorrections
from DiffusionSegmentLib.scene.history import History, StepName, snapshot
from DiffusionSegmentLib.scene.label_map import readLabels, writeLabels
from DiffusionSegmentLib.scene.overlay import OverlayKind, showOverlay
from DiffusionSegmentLib.scene.result import SceneResult, findResult, putResult
from DiffusionSegmentLib.scene.segmented_scan import SegmentedScan
from DiffusionSegmentLib.scene.terminology import ModelDescription
from DiffusionSegmentLib.scene.volumes import RAS_FROM_LPS, ijkToLPS, toMatrix, volumeBuffer
from headless.host import HeadlessSlicer
from headless.slicer_picture import putVolume
from headless.views import SliceView
from scipy.spatial.transform import Rotation
from slicer.util import arrayFromVolume
from vtk.util.numpy_support import vtk_to_numpy

UNCERTAINTY, INFORMATION = OverlayKind.UNCERTAINTY, OverlayKind.MUTUAL_INFORMATION
SHAPE = (20, 24, 28)
ROTATION = Rotation.from_euler("xyz", (9, -14, 31), degrees=True).as_matrix()
TILT = np.array([[1.0, 0, 0], [0, np.cos(0.35), 0], [0, np.sin(0.35), 1.0]])
TURNED = np.array([[0, 0, 1.0], [-1.0, 0, 0], [0, 1.0, 0]])
AXES = {
    "oblique": ROTATION * (0.8, 1.1, 2.5),
    "flipped": np.diag([-0.8, -1.1, 2.5]),
    "turned and oblique": (ROTATION @ TURNED) * (1.4, 0.9, 2.0),
    "sheared": TILT * (0.9, 1.0, 2.5),
}


@dataclass(frozen=True)
class GridMap:
    """A map on the grid of a scan, and the same in the voxels of the scan as files have it."""

    scan: Volume
    onGrid: Volume
    restored: np.ndarray


def gridMap(axes: np.ndarray, *, spacing: float = 3.0, margin: int = 1, seed: int = 0) -> GridMap:
    matrix = np.eye(4)
    matrix[:3, :3] = axes
    matrix[:3, 3] = (40.0, -12.0, 300.0)
    scan = Volume(np.zeros(SHAPE, np.int16), matrix)
    grid = model_grid(scan, spacing=(spacing, spacing, spacing))
    shape = tuple(n - margin for n in grid.shape)
    values, offset = np.random.default_rng(seed).random(shape, dtype=np.float32), (0, margin, 0)
    return GridMap(scan, map_on_grid(values, offset, grid), restore_map(values, offset, grid))


def answerWith(result: Result, uncertainty: Volume, folder: Path) -> Result:
    """A result with other maps of uncertainty."""
    written = (
        write_buffer(folder / f"{name}.raw", values, uncertainty.index_to_lps)
        for name, values in (("grid-a", uncertainty.array), ("grid-b", uncertainty.array / 2))
    )
    return replace(result, **dict(zip(("uncertainty", "mutual_information"), written, strict=True)))


def displayed(view: SliceView, node: slicer.vtkMRMLScalarVolumeNode, k: int) -> np.ndarray:
    """What a slice view interpolates in the foreground at the voxels of plane k of a volume of SHAPE, in the world."""
    toRAS = RAS_FROM_LPS @ volumeBuffer(node)[1]
    rows, columns = SHAPE[1:]
    spacing = np.linalg.norm(toRAS[:3, :3], axis=0)
    slice_ = toRAS @ np.diag([*(1 / spacing), 1.0])
    slice_[:3, 3] = (toRAS @ (columns / 2, rows / 2, k, 1.0))[:3]
    view.node.GetSliceToRAS().DeepCopy(toMatrix(slice_))
    view.node.SetDimensions(columns, rows, 1)
    view.node.SetFieldOfView(columns * spacing[0], rows * spacing[1], spacing[2])
    view.node.UpdateMatrices()
    view.logic.UpdatePipeline()
    reslice = view.logic.GetForegroundLayer().GetReslice()
    reslice.Update()
    shown: np.ndarray = vtk_to_numpy(reslice.GetOutput().GetPointData().GetScalars()).reshape(rows, columns)
    return shown


@pytest.fixture(scope="module")
def view(host: HeadlessSlicer) -> SliceView:
    return SliceView(host, "Maps", "Axial", size=(SHAPE[2], SHAPE[1]))


def put(scene: slicer.vtkMRMLScene, one: GridMap, model: ModelDescription, folder: Path) -> SceneResult:
    """A result with the map in the scene."""
    folder.mkdir(exist_ok=True)
    labels = write_buffer(folder / "labels.raw", np.zeros(SHAPE, np.uint8), one.scan.index_to_lps)
    report = {"provenance": {"model": "abdomen-ct", "seed": 4, "sha256": "abc"}}
    result = Result(
        id="1", report=Report.from_partial_json(report), labels=labels, uncertainty=labels, mutual_information=labels
    )
    ct = scene.GetFirstNode("CT", "vtkMRMLScalarVolumeNode") or putVolume(scene, one.scan, "CT")
    return putResult(scene, answerWith(result, one.onGrid, folder), ct, model)


@pytest.mark.parametrize("name", AXES)
@pytest.mark.parametrize(("spacing", "margin"), [(3.0, 1), (3.0, 0), (0.7, 1)])
def test_the_displayed_values_are_those_of_the_map_in_the_voxels_of_the_scan(
    scene: slicer.vtkMRMLScene,
    view: SliceView,
    model: ModelDescription,
    tmp_path: Path,
    name: str,
    spacing: float,
    margin: int,
) -> None:
    """Coarser and finer grids, inside and at the edge of the grid."""
    one = gridMap(AXES[name], spacing=spacing, margin=margin)
    shown = put(scene, one, model, tmp_path)
    ct = scene.GetFirstNode("CT", "vtkMRMLScalarVolumeNode")
    showOverlay(scene, ct, shown.overlays[UNCERTAINTY], UNCERTAINTY)
    for k in (0, 7, SHAPE[0] - 1):
        np.testing.assert_allclose(displayed(view, ct, k), one.restored[k], atol=2e-4)


@pytest.mark.parametrize("name", AXES)
def test_values_at_random_points_of_the_world(
    scene: slicer.vtkMRMLScene, model: ModelDescription, tmp_path: Path, name: str
) -> None:
    """Voxel centres of the scan, looked up in the node by RAS and interpolated by VTK."""
    one = gridMap(AXES[name])
    node = put(scene, one, model, tmp_path).overlays[UNCERTAINTY]
    interpolator = vtk.vtkImageInterpolator()
    interpolator.SetInterpolationModeToLinear()
    # As in a slice view, a voxel extends half a step beyond its centre.
    interpolator.SetTolerance(0.5)
    interpolator.Initialize(node.GetImageData())
    toIJK = np.linalg.inv(RAS_FROM_LPS @ ijkToLPS(node))
    for k, j, i in np.random.default_rng(1).integers(0, SHAPE, (300, 3)):
        ras = RAS_FROM_LPS @ one.scan.index_to_lps @ (i, j, k, 1.0)
        index = (toIJK @ ras)[:3]
        value = interpolator.Interpolate(*index, 0) if interpolator.CheckBoundsIJK(index) else 0.0
        assert value == pytest.approx(one.restored[k, j, i], abs=2e-4)


def test_the_map_follows_its_scan_under_a_transform(
    scene: slicer.vtkMRMLScene, view: SliceView, model: ModelDescription, tmp_path: Path
) -> None:
    """The scan was moved after the request had been sent."""
    one = gridMap(AXES["oblique"])
    ct = putVolume(scene, one.scan, "CT")
    transform = scene.AddNewNodeByClass("vtkMRMLLinearTransformNode")
    turn = vtk.vtkTransform()
    turn.RotateZ(25)
    turn.Translate(30, -20, 11)
    transform.SetMatrixTransformToParent(turn.GetMatrix())
    ct.SetAndObserveTransformNodeID(transform.GetID())
    shown = put(scene, one, model, tmp_path)
    showOverlay(scene, ct, shown.overlays[INFORMATION], INFORMATION)
    np.testing.assert_allclose(displayed(view, ct, 9), one.restored[9] / 2, atol=2e-4)


ORGANS = (OrganResult(name="liver", title="", value=6, volume_ml=0, volume_interval_ml=(0, 0), confidence=0),)


class TestEarlierScenes:
    """Scenes of earlier versions have the maps in the voxels of the scan, as the fixture `shown` does."""

    @pytest.fixture
    def reviewed(self, reviewed: Result) -> Result:
        return replace(reviewed, report=replace(reviewed.report, organs=ORGANS))

    @pytest.fixture
    def loaded(self, shown: SceneResult, saveAndLoad: Callable[[], SegmentedScan]) -> SegmentedScan:
        assert arrayFromVolume(shown.overlays[UNCERTAINTY]).shape == SHAPE
        return saveAndLoad()

    @pytest.fixture
    def answer(self, oblique: Volume, reviewed: Result, tmp_path: Path) -> Corrected:
        """Nothing changes but the maps, which are on a grid."""
        one = gridMap(oblique.index_to_lps[:3, :3])
        geometry = oblique.index_to_lps
        maps = {
            name: write_buffer(tmp_path / f"corrected-{name}.raw", one.onGrid.array * scale, one.onGrid.index_to_lps)
            for name, scale in (("uncertainty", np.float32(1)), ("mutual_information", np.float32(0.5)))
        }
        return Corrected(
            id="4",
            labels=write_buffer(tmp_path / "corrected.raw", np.full((2, 2, 2), 6, np.uint8), geometry),
            regions=write_buffer(tmp_path / "corrected-regions.raw", np.zeros(SHAPE, np.uint8), geometry),
            report=reviewed.report,
            **maps,
        )

    def test_they_are_reported(self, loaded: SegmentedScan, oblique: Volume) -> None:
        record = readCaseRecord(loaded, findResult(loaded.segmentation))
        assert record.uncertainty.shape == SHAPE
        np.testing.assert_allclose(record.uncertaintyToScan, np.eye(4), atol=1e-6)
        np.testing.assert_allclose(record.reportToLPS, oblique.index_to_lps, atol=1e-4)

    def test_a_correction_replaces_voxels_and_geometry_and_undo_restores_both(
        self, loaded: SegmentedScan, view: SliceView, answer: Corrected, oblique: Volume
    ) -> None:
        shown = findResult(loaded.segmentation)
        nodes = [shown.overlays[kind] for kind in (UNCERTAINTY, INFORMATION)]
        earlier = [(arrayFromVolume(node).copy(), ijkToLPS(node)) for node in nodes]
        before = snapshot(loaded).withMaps(nodes)
        writeLabels(loaded, np.where(readLabels(loaded).labels == 0, 6, 0).astype(np.uint8))
        applyCorrected(loaded, answer, findCorrections(loaded), shown)
        history = History()
        history.record(StepName.APPLY_CORRECTIONS, loaded, before)

        one = gridMap(oblique.index_to_lps[:3, :3])
        later = [one.restored, one.restored / 2]
        for _ in range(2):
            for node, kind, values in zip(nodes, (UNCERTAINTY, INFORMATION), later, strict=True):
                showOverlay(loaded.scene, loaded.input, node, kind)
                np.testing.assert_allclose(displayed(view, loaded.input, 6), values[6], atol=2e-4)
            history.undo(loaded)
            for node, (values, matrix) in zip(nodes, earlier, strict=True):
                np.testing.assert_array_equal(arrayFromVolume(node), values)
                np.testing.assert_allclose(ijkToLPS(node), matrix, atol=1e-9)
            history.redo(loaded)

    def test_a_corrected_scene_is_saved_and_reported(
        self, loaded: SegmentedScan, answer: Corrected, oblique: Volume
    ) -> None:
        shown = findResult(loaded.segmentation)
        writeLabels(loaded, np.where(readLabels(loaded).labels == 0, 6, 0).astype(np.uint8))
        applied = applyCorrected(loaded, answer, findCorrections(loaded), shown)
        record = readCaseRecord(loaded, applied.result)
        one = gridMap(oblique.index_to_lps[:3, :3])
        np.testing.assert_array_equal(record.uncertainty, one.onGrid.array)
        toLPS = record.reportToLPS @ record.uncertaintyToScan
        np.testing.assert_allclose(toLPS, one.onGrid.index_to_lps, atol=1e-3)


def test_a_map_that_is_no_volume_is_refused_and_changes_nothing(
    scene: slicer.vtkMRMLScene, result: Result, ct: slicer.vtkMRMLScalarVolumeNode, model: ModelDescription
) -> None:
    several = replace(result.uncertainty, shape=(*result.uncertainty.shape[:2], 14, 2))
    count = scene.GetNumberOfNodes()
    with pytest.raises(DiffusionSegmentError) as caught:
        putResult(scene, replace(result, uncertainty=several), ct, model)
    assert caught.value.code is ErrorCode.GEOMETRY
    assert scene.GetNumberOfNodes() == count
