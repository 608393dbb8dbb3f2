"""Centre all slice views on a region, zoomed to its size, with an overlay."""

from __future__ import annotations

import numpy as np
import slicer

from .box import boxAround
from .overlay import OverlayKind, showOverlay
from .packed_array import PackedArray
from .review import Region
from .segmented_scan import SegmentedScan, pointInVolume
from .volumes import ijkToLPS, parentToWorld

_SHARE_OF_VIEW = 1 / 3
_SMALLEST_VIEW_MM = 40.0


def jumpToRegion(
    scan: SegmentedScan,
    region: Region,
    *,
    regions: PackedArray | None = None,
    overlay: slicer.vtkMRMLScalarVolumeNode | None = None,
    kind: OverlayKind = OverlayKind.UNCERTAINTY,
    opacity: float = 0.7,
) -> tuple[float, float, float]:
    """Jump to a region so that it fills about a third of every slice view.

    Args:
        scan: the segmented scan.
        region: the region.
        regions: map (k, j, i) with n + 1 in region n, which gives its size; default: that of a ball of its volume.
        overlay: shown over the input volume, if it is still in the scene.
        kind: what the overlay shows.
        opacity: of the overlay, 0..1.

    Returns:
        The centre of the views, RAS mm in the world.

    Raises:
        DiffusionSegmentError: INPUT_MISSING or GEOMETRY when the nodes do not belong together.
    """
    scan.check()
    size = _extentMm(scan, region, regions) or _ballMm(region)
    local = pointInVolume(scan, region.centroidLPS)
    x, y, z = (float(value) for value in (parentToWorld(scan.input) @ (*local, 1.0))[:3])
    if overlay is not None and overlay.GetScene() is not None:
        showOverlay(scan.scene, scan.input, overlay, kind, opacity=opacity)
    jumpTo(scan.scene, (x, y, z), sizeMm=size)
    return x, y, z


def jumpTo(scene: slicer.vtkMRMLScene, ras: tuple[float, float, float], *, sizeMm: float) -> None:
    """Centre every slice view on `ras` (mm, world), zoomed so that `sizeMm` is a third of its shorter side."""
    wanted = max(sizeMm / _SHARE_OF_VIEW, _SMALLEST_VIEW_MM)
    for number in range(scene.GetNumberOfNodesByClass("vtkMRMLSliceNode")):
        node = scene.GetNthNodeByClass(number, "vtkMRMLSliceNode")
        width, height, depth = node.GetFieldOfView()
        shorter = min(width, height)
        wasModified = node.StartModify()
        if shorter > 0:
            scale = wanted / shorter
            node.SetFieldOfView(width * scale, height * scale, depth)
        node.SetXYZOrigin(0.0, 0.0, 0.0)
        node.JumpSliceByCentering(*ras)
        node.EndModify(wasModified)


def _extentMm(scan: SegmentedScan, region: Region, regions: PackedArray | None) -> float | None:
    """The longest side of the region's box, mm."""
    if regions is None or regions.shape != scan.box.shape:
        return None
    box = boxAround(regions.unpack() == region.number + 1)
    if box is None:
        return None
    spacing = np.linalg.norm(ijkToLPS(scan.input)[:3, :3], axis=0)
    return float(np.max(np.array(box.shape[::-1]) * spacing))


def _ballMm(region: Region) -> float:
    """Diameter of a ball of the region's volume, mm."""
    return float((6.0 * max(region.volumeMl, 0.0) * 1000.0 / np.pi) ** (1 / 3))
