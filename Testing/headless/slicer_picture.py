"""The four views of a result in a real MRML scene."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import slicer
from DiffusionSegmentBackend.volume import Volume
from DiffusionSegmentBackend.volume_io import read_volume
from DiffusionSegmentLib.scene.overlay import OverlayKind, setThreshold, showOverlay, styleOverlay
from DiffusionSegmentLib.scene.segmentation import putSegmentation, showSurfaces
from DiffusionSegmentLib.scene.terminology import readModelDescription
from DiffusionSegmentLib.scene.volumes import RAS_FROM_LPS, toMatrix, updateScalarVolume
from slicer.util import updateVolumeFromArray

from .host import HeadlessSlicer
from .views import SliceView, ThreeDView

_OUTLINE_WIDTH = 3
_LEGEND_MM = 30.0


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
    from .picture import focus

    host = HeadlessSlicer()
    scan = read_volume(ct)
    labels = read_volume(result / "segmentation.nii.gz").array
    doubt = read_volume(result / "uncertainty.nii.gz").array
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
    overlay = updateScalarVolume(host.scene, doubt, node, "Uncertainty")
    styleOverlay(overlay, OverlayKind.UNCERTAINTY)
    setThreshold(overlay, 0.2)
    showOverlay(host.scene, node, overlay, OverlayKind.UNCERTAINTY)
    _onlyIn(views["Axial"], slicer.vtkSlicerColorLogic.GetColorLegendDisplayNode(overlay))
    k, j, i = focus(labels)
    ras = (RAS_FROM_LPS @ scan.index_to_lps @ (i, j, k, 1))[:3]
    drawn = {}
    for name, view in views.items():
        view.showAt(_centred(ras, node, name), fieldOfView=_fieldOfView(node, name, size))
        drawn[name] = view.grab()
    drawn["3D"] = solid.grab()
    return drawn


def _onlyIn(view: SliceView, legend: slicer.vtkMRMLColorLegendDisplayNode) -> None:
    """One legend is enough for four views."""
    legend.SetViewNodeIDs([view.node.GetID()])
    legend.GetLabelTextProperty().SetFontSize(14)
    legend.GetTitleTextProperty().SetFontSize(16)


def _bounds(node: slicer.vtkMRMLScalarVolumeNode) -> list[float]:
    bounds = [0.0] * 6
    node.GetRASBounds(bounds)
    return bounds


def _centred(ras: np.ndarray, node: slicer.vtkMRMLScalarVolumeNode, orientation: str) -> tuple[float, float, float]:
    """The slice through `ras`, the middle of the scan in the other two directions; room for the legend when axial."""
    bounds = _bounds(node)
    if orientation == "Axial":
        bounds[0], bounds[1] = bounds[0] - _LEGEND_MM, bounds[1] - _LEGEND_MM
    normal = {"Sagittal": 0, "Coronal": 1, "Axial": 2}[orientation]
    r, a, s = (float(ras[n]) if n == normal else (bounds[2 * n] + bounds[2 * n + 1]) / 2 for n in range(3))
    return r, a, s


def _fieldOfView(node: slicer.vtkMRMLScalarVolumeNode, orientation: str, size: tuple[int, int]) -> float:
    """Width in mm that shows the whole scan in a view of `size` pixels."""
    bounds = _bounds(node)
    extent = [bounds[2 * n + 1] - bounds[2 * n] for n in range(3)]
    across, up = {"Axial": (0, 1), "Coronal": (0, 2), "Sagittal": (1, 2)}[orientation]
    return max(extent[across], extent[up] * size[0] / size[1])
