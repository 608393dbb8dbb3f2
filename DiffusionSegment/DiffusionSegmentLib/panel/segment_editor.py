"""The embedded Segment Editor: its node, its segmentation, entering and leaving the module."""

from typing import Any

import slicer

from ..scene.segment_editor_node import segmentEditorNode
from ..scene.segmented_scan import SegmentedScan


class SegmentEditor:
    """Drives a qMRMLSegmentEditorWidget as Slicer's own module does.

    The widget rejects every selection until it has a vtkMRMLSegmentEditorNode, and closing a scene may remove the node:
    it is set before each selection.
    """

    def __init__(self, widget: Any) -> None:
        self._widget = widget
        self._entered = False
        self._shortcuts = True

    def enter(self) -> None:
        """The module is entered: install its keyboard shortcuts."""
        self._bindNode()
        self._entered = True
        if self._shortcuts:
            self._widget.installKeyboardShortcuts()
        self._widget.updateWidgetFromMRML()

    def exit(self) -> None:
        """The module is left: otherwise an active effect would still take clicks in the views, and its keys."""
        self._entered = False
        self._widget.setActiveEffect(None)
        self._widget.uninstallKeyboardShortcuts()
        self._widget.removeViewObservations()

    def enableShortcuts(self, enabled: bool) -> None:
        """Whether its keys, such as the digits that choose effects, work while the module is entered."""
        if enabled == self._shortcuts:
            return
        self._shortcuts = enabled
        if self._entered and enabled:
            self._widget.installKeyboardShortcuts()
        elif self._entered:
            self._widget.uninstallKeyboardShortcuts()

    def edit(self, scan: SegmentedScan) -> None:
        """Edit the segmentation of a scan."""
        self._bindNode()
        self._widget.setSegmentationNode(scan.segmentation)
        self._widget.setSourceVolumeNode(scan.input)

    def select(self, segmentId: str) -> None:
        """Select an existing segment."""
        self._widget.setCurrentSegmentID(segmentId)

    def close(self) -> None:
        """Edit nothing, and deactivate the effect, which would have no segmentation."""
        if self._widget.mrmlSegmentEditorNode() is not None:
            self._widget.setActiveEffect(None)
            self._widget.setSegmentationNode(None)

    def _bindNode(self) -> None:
        node = segmentEditorNode(slicer.mrmlScene)
        if self._widget.mrmlSegmentEditorNode() is not node:
            self._widget.setMRMLSegmentEditorNode(node)
