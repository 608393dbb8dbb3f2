"""Frames of a sequence as scans, and their segmentations as one sequence that plays in step with it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import slicer
from DiffusionSegmentBackend.errors import DiffusionSegmentError, ErrorCode
from DiffusionSegmentBackend.protocol.buffers import open_buffer
from DiffusionSegmentBackend.protocol.messages import Result

from .nodes import nodesOfClass
from .review import takeReport
from .segmentation import putSegmentation
from .terminology import ModelDescription
from .volumes import volumeBuffer

_RESULT_OF = "DiffusionSegment.segmentedSequence"


@dataclass(frozen=True)
class FrameSource:
    """A volume in the scene that shows the frames of a sequence one at a time, and the browser that drives it."""

    volume: slicer.vtkMRMLScalarVolumeNode
    sequence: slicer.vtkMRMLSequenceNode
    browser: slicer.vtkMRMLSequenceBrowserNode

    @property
    def count(self) -> int:
        """How many frames there are."""
        return int(self.sequence.GetNumberOfDataNodes())

    @property
    def present(self) -> bool:
        """Whether all of it is still in the scene."""
        return None not in (self.volume.GetScene(), self.sequence.GetScene(), self.browser.GetScene())

    def label(self, number: int) -> str:
        """Index of a frame in words, such as "time 2 s"."""
        parts = (self.sequence.GetIndexName(), self.sequence.GetNthIndexValue(number), self.sequence.GetIndexUnit())
        return " ".join(part for part in parts if part)

    def buffer(self, number: int) -> tuple[np.ndarray, np.ndarray]:
        """Voxels (k, j, i) of a frame, and its matrix to LPS mm under the parent transforms of the volume.

        What the reader sees does not change meanwhile.

        Raises:
            DiffusionSegmentError: INPUT_MISSING for nodes that are gone; as `volumeBuffer`.
        """
        return volumeBuffer(self.frame(number), placed=self.volume)

    def frame(self, number: int) -> slicer.vtkMRMLScalarVolumeNode:
        """The node of a frame, in the sequence's own scene.

        Raises:
            DiffusionSegmentError: INPUT_MISSING for nodes that are gone.
        """
        node = self.sequence.GetNthDataNode(number) if self.present else None
        if node is None:
            raise DiffusionSegmentError(
                ErrorCode.INPUT_MISSING, "The sequence is no longer in the scene.", hint="Load it again."
            )
        return node


def findFrames(node: slicer.vtkMRMLScalarVolumeNode) -> FrameSource | None:
    """The sequence whose frames this volume shows; None for a volume of its own."""
    scene = node.GetScene()
    for browser in nodesOfClass(scene, "vtkMRMLSequenceBrowserNode") if scene is not None else []:
        sequence = browser.GetSequenceNode(node) if browser.IsProxyNodeID(node.GetID()) else None
        if sequence is not None:
            return FrameSource(node, sequence, browser)
    return None


def putFrame(
    source: FrameSource,
    number: int,
    result: Result,
    model: ModelDescription,
    *,
    sequence: slicer.vtkMRMLSequenceNode | None = None,
) -> slicer.vtkMRMLSequenceNode:
    """Put a frame's segmentation into `sequence`, or into a new one that the browser plays in step with the scans.

    Each frame's node carries names, codes, provenance and its report. A frame that has none yet holds an empty one,
    without a report: a browser would show the frame before instead, over anatomy that is not its own.

    Raises:
        DiffusionSegmentError: INPUT_MISSING for nodes that are gone, GEOMETRY when the frame has changed its size,
            INPUT_UNREADABLE or PROTOCOL for a damaged answer; nothing is added then.
    """
    frame = source.frame(number)
    labels = open_buffer(result.labels)
    width, height, depth = frame.GetImageData().GetDimensions()
    if labels.shape != (depth, height, width):
        raise DiffusionSegmentError(
            ErrorCode.GEOMETRY, "The frame has changed since the click.", hint="Segment the sequence again."
        )
    # Made in a scene of its own: the reader's would show it for a moment, and tell every module of it.
    bench = slicer.vtkMRMLScene()
    provenance = result.report.get("provenance", {})
    name = f"{source.volume.GetName()} segmentation"
    node = putSegmentation(bench, labels, model.labels, frame, name, provenance=provenance)
    takeReport(node, result.report)
    if sequence is None or sequence.GetScene() is None:
        sequence = source.volume.GetScene().AddNewNodeByClass("vtkMRMLSequenceNode", name)
        emptyFrames(source, sequence)
    sequence.SetDataNodeAtValue(node, source.sequence.GetNthIndexValue(number))
    _play(source, sequence, number)
    return sequence


def findSequence(source: FrameSource) -> slicer.vtkMRMLSequenceNode | None:
    """The segmentations of these frames by an earlier run, in a loaded scene too."""
    sequences = nodesOfClass(source.volume.GetScene(), "vtkMRMLSequenceNode")
    return next((node for node in sequences if node.GetNodeReferenceID(_RESULT_OF) == source.sequence.GetID()), None)


def emptyFrames(source: FrameSource, sequence: slicer.vtkMRMLSequenceNode) -> None:
    """Make a sequence one of empty segmentations, with the index of the scans."""
    sequence.RemoveAllDataNodes()
    sequence.SetIndexName(source.sequence.GetIndexName())
    sequence.SetIndexUnit(source.sequence.GetIndexUnit())
    sequence.SetIndexType(source.sequence.GetIndexType())
    sequence.SetNodeReferenceID(_RESULT_OF, source.sequence.GetID())
    bench = slicer.vtkMRMLScene()
    node = bench.AddNewNodeByClass("vtkMRMLSegmentationNode", f"{source.volume.GetName()} segmentation")
    node.CreateDefaultDisplayNodes()
    for number in range(source.count):
        sequence.SetDataNodeAtValue(node, source.sequence.GetNthIndexValue(number))


def _play(source: FrameSource, sequence: slicer.vtkMRMLSequenceNode, number: int) -> None:
    """Let the browser show the sequence, where the scans lie, from its first frame on."""
    browser = source.browser
    if not browser.IsSynchronizedSequenceNodeID(sequence.GetID()):
        browser.AddSynchronizedSequenceNodeID(sequence.GetID())
    shown = browser.GetProxyNode(sequence)
    if shown is None:
        shown = browser.AddProxyNode(sequence.GetNthDataNode(number), sequence, True)
    shown.SetAndObserveTransformNodeID(source.volume.GetTransformNodeID())
