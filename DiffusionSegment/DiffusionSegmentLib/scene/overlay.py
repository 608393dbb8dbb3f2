"""Overlays in the slice views with their legends: uncertainty, mutual information, body coordinates."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

import slicer
import vtk
from DiffusionSegmentBackend.schema.uncertainty_colours import (
    UNCERTAINTY_HIGH,
    UNCERTAINTY_LOW,
    UNCERTAINTY_STOPS,
)

from .nodes import nodesOfClass

_UNCERTAINTY_COLOURS_NAME = "DiffusionSegment uncertainty"
_BODY_COLOURS_NAME = "DiffusionSegment body coordinates"
_OPACITY = 0.7


class OverlayKind(Enum):
    """Kinds of overlays. Saved scenes contain the names of the members, which are never renamed."""

    NONE = "None"
    UNCERTAINTY = "Uncertainty"
    MUTUAL_INFORMATION = "Mutual information"
    BODY_RIGHT_LEFT = "Body: right to left"
    BODY_ANTERIOR_POSTERIOR = "Body: anterior to posterior"
    BODY_INFERIOR_SUPERIOR = "Body: inferior to superior"

    def label(self) -> str:
        """The text in the panel, in the language of the application."""
        from slicer.i18n import tr as _

        texts: dict[OverlayKind, str] = {
            OverlayKind.NONE: _("None"),
            OverlayKind.UNCERTAINTY: _("Uncertainty"),
            OverlayKind.MUTUAL_INFORMATION: _("Mutual information"),
            OverlayKind.BODY_RIGHT_LEFT: _("Body: right to left"),
            OverlayKind.BODY_ANTERIOR_POSTERIOR: _("Body: anterior to posterior"),
            OverlayKind.BODY_INFERIOR_SUPERIOR: _("Body: inferior to superior"),
        }
        return texts[self]

    def legendTitle(self) -> str:
        """Quantity and unit or range, in the language of the application; empty for NONE."""
        from slicer.i18n import tr as _

        texts: dict[OverlayKind, str] = {
            OverlayKind.NONE: "",
            OverlayKind.UNCERTAINTY: _("Uncertainty (0 to 1)"),
            OverlayKind.MUTUAL_INFORMATION: _("Mutual information (0 to 1)"),
            OverlayKind.BODY_RIGHT_LEFT: _("Right - left (mm)"),
            OverlayKind.BODY_ANTERIOR_POSTERIOR: _("Anterior - posterior (mm)"),
            OverlayKind.BODY_INFERIOR_SUPERIOR: _("Inferior - superior (mm)"),
        }
        return texts[self]


@dataclass(frozen=True)
class OverlayStyle:
    """Displayed range, threshold below which voxels are transparent (None: no threshold), format of legend labels."""

    low: float
    high: float
    threshold: float | None
    labelFormat: str


STYLES = {
    OverlayKind.UNCERTAINTY: OverlayStyle(0.0, UNCERTAINTY_HIGH, UNCERTAINTY_LOW, "%.2f"),
    OverlayKind.MUTUAL_INFORMATION: OverlayStyle(0.0, 0.1, 0.01, "%.2f"),
    OverlayKind.BODY_RIGHT_LEFT: OverlayStyle(-200.0, 200.0, None, "%.0f"),
    OverlayKind.BODY_ANTERIOR_POSTERIOR: OverlayStyle(-150.0, 150.0, None, "%.0f"),
    OverlayKind.BODY_INFERIOR_SUPERIOR: OverlayStyle(-250.0, 250.0, None, "%.0f"),
}
_BODY_STOPS = ((0.0, 0.10, 0.25, 0.65), (0.5, 0.93, 0.93, 0.93), (1.0, 0.75, 0.15, 0.15))


def styleOverlay(node: slicer.vtkMRMLScalarVolumeNode, kind: OverlayKind) -> None:
    """Set colours, displayed range and threshold of an overlay."""
    style, scene = STYLES[kind], node.GetScene()
    if style.threshold is not None:
        colours = colourNode(scene, _UNCERTAINTY_COLOURS_NAME, UNCERTAINTY_STOPS)
    else:
        colours = colourNode(scene, _BODY_COLOURS_NAME, _BODY_STOPS)
    applyStyle(node, style, colours)


def applyStyle(
    node: slicer.vtkMRMLScalarVolumeNode, style: OverlayStyle, colours: slicer.vtkMRMLProceduralColorNode
) -> None:
    """Set style and colours of an overlay."""
    node.CreateDefaultDisplayNodes()
    display = node.GetDisplayNode()
    wasModified = display.StartModify()
    display.SetAndObserveColorNodeID(colours.GetID())
    display.AutoWindowLevelOff()
    display.SetWindowLevelMinMax(style.low, style.high)
    display.SetInterpolate(1)
    if style.threshold is not None:
        setThreshold(node, style.threshold)
    display.EndModify(wasModified)


def setThreshold(node: slicer.vtkMRMLScalarVolumeNode, threshold: float) -> None:
    """Make voxels below `threshold` transparent."""
    display = node.GetDisplayNode()
    display.AutoThresholdOff()
    display.SetThreshold(threshold, 1e30)
    display.ApplyThresholdOn()


def showOverlay(
    scene: slicer.vtkMRMLScene,
    background: slicer.vtkMRMLScalarVolumeNode | None,
    overlay: slicer.vtkMRMLScalarVolumeNode | None,
    kind: OverlayKind,
    *,
    opacity: float = _OPACITY,
) -> None:
    """Show `overlay` over `background` in every slice view, with only its legend; None removes the overlay."""
    showForeground(scene, background, overlay, STYLES.get(kind), legendTitle=kind.legendTitle(), opacity=opacity)


def showForeground(
    scene: slicer.vtkMRMLScene,
    background: slicer.vtkMRMLScalarVolumeNode | None,
    overlay: slicer.vtkMRMLScalarVolumeNode | None,
    style: OverlayStyle | None,
    *,
    legendTitle: str,
    opacity: float = _OPACITY,
) -> None:
    """As `showOverlay`, for an overlay with another style; without a style there is no legend."""
    for composite in nodesOfClass(scene, "vtkMRMLSliceCompositeNode"):
        if background is not None:
            composite.SetBackgroundVolumeID(background.GetID())
        composite.SetForegroundVolumeID(overlay.GetID() if overlay is not None else None)
        composite.SetForegroundOpacity(opacity if overlay is not None else 0.0)
    for legend in nodesOfClass(scene, "vtkMRMLColorLegendDisplayNode"):
        legend.SetVisibility(overlay is not None and legend.GetDisplayableNode() is overlay)
    if overlay is not None and style is not None:
        _showLegend(overlay, style, legendTitle)


def _showLegend(node: slicer.vtkMRMLScalarVolumeNode, style: OverlayStyle, title: str) -> None:
    legend = slicer.vtkSlicerColorLogic.GetColorLegendDisplayNode(node)
    if legend is None:
        legend = slicer.vtkSlicerColorLogic.AddDefaultColorLegendDisplayNode(node)
    legend.SetTitleText(title)
    legend.SetLabelFormat(style.labelFormat)
    legend.SetMaxNumberOfColors(256)
    legend.SetNumberOfLabels(4)
    legend.SetPosition(0.97, 0.5)
    legend.SetSize(0.12, 0.5)
    legend.VisibilityOn()


def colourNode(
    scene: slicer.vtkMRMLScene, name: str, stops: tuple[tuple[float, float, float, float], ...]
) -> slicer.vtkMRMLProceduralColorNode:
    """The colour node of that name, created from `stops` (value 0..1, red, green, blue) where it is missing."""
    node = scene.GetFirstNode(name, "vtkMRMLProceduralColorNode")
    if node is None:
        node = scene.AddNewNodeByClass("vtkMRMLProceduralColorNode", name)
        function = vtk.vtkDiscretizableColorTransferFunction()
        for stop in stops:
            function.AddRGBPoint(*stop)
        node.SetAndObserveColorTransferFunction(function)
    return node
