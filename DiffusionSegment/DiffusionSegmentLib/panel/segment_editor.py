"""The embedded Segment Editor: bound to its node, to what is being corrected, and let go when the module is left."""

from typing import Any

import slicer

from ..scene.segment_editor_node import segmentEditorNode
from ..scene.segmented_scan import SegmentedScan


class SegmentEditor:
    """Drives a qMRMLSegmentEditorWidget as Slicer's own module does.

    The widget refuses every selection until it has its vtkMRMLSegmentEditorNode, and a scene that closes may take the
    node away: it is made sure of before each selection.
    """

    def __init__(self, widget: Any) -> None:
        self._widget = widget

    def enter(self) -> None:
        """The module is shown: its keys work."""
        self._bindNode()
        self._widget.installKeyboardShortcuts()
        self._widget.updateWidgetFromMRML()

    def exit(self) -> None:
        """The module is left: an active effect would go on taking clicks in the views, and its keys in the window."""
        self._widget.setActiveEffect(None)
        self._widget.uninstallKeyboardShortcuts()
        self._widget.removeViewObservations()

    def edit(self, scan: SegmentedScan) -> None:
        """Edit the segmentation of a scan."""
        self._bindNode()
        self._widget.setSegmentationNode(scan.segmentation)
        self._widget.setSourceVolumeNode(scan.input)

    def select(self, segmentId: str) -> None:
        """Choose the segment to edit, which exists."""
        self._widget.setCurrentSegmentID(segmentId)

    def close(self) -> None:
        """Edit nothing; an active effect would be left without a segmentation."""
        if self._widget.mrmlSegmentEditorNode() is not None:
            self._widget.setActiveEffect(None)
            self._widget.setSegmentationNode(None)

    def _bindNode(self) -> None:
        node = segmentEditorNode(slicer.mrmlScene)
        if self._widget.mrmlSegmentEditorNode() is not node:
            self._widget.setMRMLSegmentEditorNode(node)
