"""The four views of a result in a real MRML scene."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import slicer
from DiffusionSegmentBackend.imaging.volume import Volume
from DiffusionSegmentBackend.imaging.volume_io import read_volume
from DiffusionSegmentLib.scene.overlay import OverlayKind, setThreshold, showOverlay, styleOverlay
from DiffusionSegmentLib.scene.segmentation import putSegmentation, showSurfaces
from DiffusionSegmentLib.scene.terminology import readModelDescription
from DiffusionSegmentLib.scene.volumes import RAS_FROM_LPS, toMatrix
from slicer.util import updateVolumeFromArray

from .host import HeadlessSlicer
from .slice_selection import selectSlices
from .views import SliceView, ThreeDView

_OUTLINE_WIDTH = 3
_LEGEND_SHARE = 0.06
_MARGIN = 1.06
_TISSUE_HU = -200
_TISSUE_SHARE = 0.06
_NORMAL = {"Sagittal": 0, "Coronal": 1, "Axial": 2}


def putVolume(scene: slicer.vtkMRMLScene, volume: Volume, name: str) -> slicer.vtkMRMLScalarVolumeNode:
    """A scalar volume node of an array (k, j, i) with its geometry."""
    node = scene.AddNewNodeByClass("vtkMRMLScalarVolumeNode", name)
    updateVolumeFromArray(node, np.ascontiguousarray(volume.array))
    node.SetIJKToRASMatrix(toMatrix(RAS_FROM_LPS @ volume.index_to_lps))
    node.CreateDefaultDisplayNodes()
    return node


def slicerViews(
    ct: Path, result: Path, model: Path, *, size: tuple[int, int], window: tuple[float, float]
) -> dict[str, np.ndarray]:
    """RGB arrays (height, width, 3) named Axial, Coronal, Sagittal and 3D."""

    host = HeadlessSlicer()
    scan = read_volume(ct)
    labels = read_volume(result / "segmentation.nii.gz").array
    uncertainty = read_volume(result / "uncertainty.nii.gz").array
    views = {name: SliceView(host, name, name, size=size) for name in ("Axial", "Coronal", "Sagittal")}
    solid = ThreeDView(host, size=size)
    node = putVolume(host.scene, scan, "CT")
    node.GetDisplayNode().AutoWindowLevelOff()
    node.GetDisplayNode().SetWindowLevelMinMax(*window)
    segmentation = putSegmentation(host.scene, labels, readModelDescription(model).labels, node, "Organs")
    display = segmentation.GetDisplayNode()
    display.SetOpacity2DFill(0.18)
    display.SetSliceIntersectionThickness(_OUTLINE_WIDTH)
    showSurfaces(segmentation)
    overlay = putVolume(host.scene, Volume(uncertainty, scan.index_to_lps), "Uncertainty")
    styleOverlay(overlay, OverlayKind.UNCERTAINTY)
    setThreshold(overlay, 0.2)
    showOverlay(host.scene, node, overlay, OverlayKind.UNCERTAINTY)
    legendOnlyIn(views["Axial"], slicer.vtkSlicerColorLogic.GetColorLegendDisplayNode(overlay))
    k, j, i = selectSlices(labels)
    point = (RAS_FROM_LPS @ scan.index_to_lps @ (i, j, k, 1))[:3]
    low, high = _bodyBox(scan)
    drawn = {}
    for name, view in views.items():
        normal = _NORMAL[name]
        centre = np.where(np.arange(3) == normal, point, (low + high) / 2)
        width = _fieldOfView(high - low, normal, size)
        if name == "Axial":
            centre[0] -= _LEGEND_SHARE * width
        view.showAt((float(centre[0]), float(centre[1]), float(centre[2])), fieldOfView=width)
        drawn[name] = view.grab()
    drawn["3D"] = solid.grab()
    return drawn


def legendOnlyIn(view: SliceView, legend: slicer.vtkMRMLColorLegendDisplayNode) -> None:
    """One legend is enough for four views."""
    legend.SetViewNodeIDs([view.node.GetID()])
    legend.GetLabelTextProperty().SetFontSize(14)
    legend.GetTitleTextProperty().SetFontSize(16)


def _bodyBox(scan: Volume) -> tuple[np.ndarray, np.ndarray]:
    """Lowest and highest RAS corner of the planes that show more than a little tissue."""
    tissue = scan.array > _TISSUE_HU
    ranges = []
    for axis in range(3):
        share = tissue.mean(axis=tuple(a for a in range(3) if a != axis))
        shown = np.flatnonzero(share > _TISSUE_SHARE)
        ranges.append((shown[0], shown[-1]) if len(shown) else (0, tissue.shape[axis] - 1))
    corners = np.array([(i, j, k, 1) for k in ranges[0] for j in ranges[1] for i in ranges[2]])
    ras = (corners @ (RAS_FROM_LPS @ scan.index_to_lps).T)[:, :3]
    return ras.min(axis=0), ras.max(axis=0)


def _fieldOfView(extent: np.ndarray, normal: int, size: tuple[int, int]) -> float:
    """Width in mm that shows a box of `extent` (R, A, S) in a view of `size` pixels along `normal`."""
    across, up = (axis for axis in range(3) if axis != normal)
    return float(max(extent[across], extent[up] * size[0] / size[1])) * _MARGIN
