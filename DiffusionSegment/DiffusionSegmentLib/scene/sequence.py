"""Frames of a sequence as scans, and their segmentations as a sequence that is synchronized with it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import slicer
from DiffusionSegmentBackend.errors import DiffusionSegmentError, ErrorCode
from DiffusionSegmentBackend.protocol.buffers import open_buffer
from DiffusionSegmentBackend.protocol.messages import Result
from numpy.typing import NDArray

from .nodes import nodesOfClass
from .review import storeReport
from .segmentation import putSegmentation
from .terminology import ModelDescription
from .volumes import volumeBuffer

_RESULT_OF = "DiffusionSegment.segmentedSequence"


@dataclass(frozen=True)
class FrameSource:
    """A volume that shows one frame of a sequence at a time, the sequence and its browser."""

    volume: slicer.vtkMRMLScalarVolumeNode
    sequence: slicer.vtkMRMLSequenceNode
    browser: slicer.vtkMRMLSequenceBrowserNode

    @property
    def count(self) -> int:
        """Number of frames."""
        return int(self.sequence.GetNumberOfDataNodes())

    @property
    def present(self) -> bool:
        """Whether all nodes are still in the scene."""
        return None not in (self.volume.GetScene(), self.sequence.GetScene(), self.browser.GetScene())

    def label(self, number: int) -> str:
        """Index of a frame, such as "time 2 s"."""
        parts = (self.sequence.GetIndexName(), self.sequence.GetNthIndexValue(number), self.sequence.GetIndexUnit())
        return " ".join(part for part in parts if part)

    def buffer(self, number: int) -> tuple[NDArray[Any], NDArray[np.float64]]:
        """Voxels (k, j, i) of a frame, and its matrix to LPS mm under the parent transforms of the volume.

        The displayed frame does not change.

        Raises:
            DiffusionSegmentError: INPUT_MISSING for deleted nodes; as `volumeBuffer`.
        """
        return volumeBuffer(self.frame(number), transformed=self.volume)

    def frame(self, number: int) -> slicer.vtkMRMLScalarVolumeNode:
        """The node of a frame, in the sequence's own scene.

        Raises:
            DiffusionSegmentError: INPUT_MISSING for deleted nodes.
        """
        node = self.sequence.GetNthDataNode(number) if self.present else None
        if node is None:
            raise DiffusionSegmentError(
                ErrorCode.INPUT_MISSING, "The sequence is no longer in the scene.", hint="Load it again."
            )
        return node


def findFrames(node: slicer.vtkMRMLScalarVolumeNode) -> FrameSource | None:
    """The sequence whose frames this volume shows; None for a single volume."""
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
    """Put the segmentation of a frame into `sequence`, or into a new one that is synchronized with the scans.

    The node of each frame has names, codes, provenance and its report. Frames without a result get an empty
    segmentation without a report: otherwise the browser would show the segmentation of the previous frame.

    Raises:
        DiffusionSegmentError: INPUT_MISSING for deleted nodes, GEOMETRY when the frame has changed its size,
            INPUT_UNREADABLE or PROTOCOL for a damaged answer; nothing is added then.
    """
    frame = source.frame(number)
    labels = open_buffer(result.labels)
    width, height, depth = frame.GetImageData().GetDimensions()
    if labels.shape != (depth, height, width):
        raise DiffusionSegmentError(
            ErrorCode.GEOMETRY, "The frame has changed since the click.", hint="Segment the sequence again."
        )
    # Created in a temporary scene, so that views and modules do not react to it.
    temporaryScene = slicer.vtkMRMLScene()
    name = f"{source.volume.GetName()} segmentation"
    node = putSegmentation(temporaryScene, labels, model.labels, frame, name, provenance=result.report.provenance)
    storeReport(node, result.report)
    if sequence is None or sequence.GetScene() is None:
        sequence = source.volume.GetScene().AddNewNodeByClass("vtkMRMLSequenceNode", name)
        emptyFrames(source, sequence)
    sequence.SetDataNodeAtValue(node, source.sequence.GetNthIndexValue(number))
    _synchronize(source, sequence, number)
    return sequence


def findSequence(source: FrameSource) -> slicer.vtkMRMLSequenceNode | None:
    """The sequence of segmentations of an earlier run on these frames, also in a loaded scene."""
    sequences = nodesOfClass(source.volume.GetScene(), "vtkMRMLSequenceNode")
    return next((node for node in sequences if node.GetNodeReferenceID(_RESULT_OF) == source.sequence.GetID()), None)


def emptyFrames(source: FrameSource, sequence: slicer.vtkMRMLSequenceNode) -> None:
    """Fill a sequence with empty segmentations, with the index of the scans."""
    sequence.RemoveAllDataNodes()
    sequence.SetIndexName(source.sequence.GetIndexName())
    sequence.SetIndexUnit(source.sequence.GetIndexUnit())
    sequence.SetIndexType(source.sequence.GetIndexType())
    sequence.SetNodeReferenceID(_RESULT_OF, source.sequence.GetID())
    temporaryScene = slicer.vtkMRMLScene()
    node = temporaryScene.AddNewNodeByClass("vtkMRMLSegmentationNode", f"{source.volume.GetName()} segmentation")
    node.CreateDefaultDisplayNodes()
    for number in range(source.count):
        sequence.SetDataNodeAtValue(node, source.sequence.GetNthIndexValue(number))


def _synchronize(source: FrameSource, sequence: slicer.vtkMRMLSequenceNode, number: int) -> None:
    """Let the browser show the sequence in step with the scans, with their transform."""
    browser = source.browser
    if not browser.IsSynchronizedSequenceNodeID(sequence.GetID()):
        browser.AddSynchronizedSequenceNodeID(sequence.GetID())
    shown = browser.GetProxyNode(sequence)
    if shown is None:
        shown = browser.AddProxyNode(sequence.GetNthDataNode(number), sequence, True)
    shown.SetAndObserveTransformNodeID(source.volume.GetTransformNodeID())
