"""An input volume with its segmentation and the label definitions of the model."""

from __future__ import annotations

import json
from dataclasses import dataclass

import numpy as np
import slicer
from DiffusionSegmentBackend.errors import DiffusionSegmentError, ErrorCode
from DiffusionSegmentBackend.schema.report import Report
from numpy.typing import NDArray

from .box import Box
from .terminology import LabelDefinition
from .volumes import ijkToLPS, parentToWorld

REPORT_ATTRIBUTE = "DiffusionSegment.report"
GEOMETRY_ATTRIBUTE = "DiffusionSegment.geometry"


@dataclass(frozen=True)
class SegmentedScan:
    """Input volume and segmentation, both in one scene, and the meaning of the label values."""

    input: slicer.vtkMRMLScalarVolumeNode
    segmentation: slicer.vtkMRMLSegmentationNode
    labels: tuple[LabelDefinition, ...]

    @property
    def scene(self) -> slicer.vtkMRMLScene:
        """The scene of both nodes."""
        return self.segmentation.GetScene()

    @property
    def box(self) -> Box:
        """The whole input volume."""
        width, height, depth = self.input.GetImageData().GetDimensions()
        return Box.ofShape((depth, height, width))

    def label(self, name: str) -> LabelDefinition | None:
        """The label of that name; None where the model has none."""
        return next((label for label in self.labels if label.name == name), None)

    def check(self) -> None:
        """Check that both nodes are in one scene, not empty, and under the same transforms.

        Raises:
            DiffusionSegmentError: INPUT_MISSING for a deleted node; GEOMETRY for a moved or empty one.
        """
        for node, name in ((self.input, "input volume"), (self.segmentation, "segmentation")):
            if node.GetScene() is None:
                raise DiffusionSegmentError(
                    ErrorCode.INPUT_MISSING, f"The {name} is no longer in the scene.", hint="Segment the scan again."
                )
        if self.input.GetScene() is not self.segmentation.GetScene():
            raise DiffusionSegmentError(
                ErrorCode.INPUT_MISSING, "Volume and segmentation are in two scenes.", hint="Segment the scan again."
            )
        if self.input.GetImageData() is None:
            raise DiffusionSegmentError(
                ErrorCode.GEOMETRY, f"{self.input.GetName()} is empty.", hint="Load the volume again."
            )
        if not np.allclose(parentToWorld(self.input), parentToWorld(self.segmentation), atol=1e-4):
            raise DiffusionSegmentError(
                ErrorCode.GEOMETRY,
                "The segmentation and its volume are under different transforms.",
                hint="Put both under the same transform.",
            )


def readReport(segmentation: slicer.vtkMRMLSegmentationNode) -> Report:
    """The report of the run that made the segmentation; an empty one where none is stored.

    Raises:
        DiffusionSegmentError: INPUT_UNREADABLE when a saved scene was damaged.
    """
    try:
        return Report.from_partial_json(json.loads(segmentation.GetAttribute(REPORT_ATTRIBUTE) or "{}"))
    except ValueError as error:
        raise DiffusionSegmentError(
            ErrorCode.INPUT_UNREADABLE,
            f"The report stored with {segmentation.GetName()} is damaged.",
            hint="Segment the scan again.",
        ) from error


def keepGeometry(segmentation: slicer.vtkMRMLSegmentationNode, gridToLPS: NDArray[np.float64]) -> None:
    """Store the 4x4 matrix from (i, j, k, 1) to LPS mm in which the report of a run gives its points."""
    segmentation.SetAttribute(GEOMETRY_ATTRIBUTE, json.dumps(np.asarray(gridToLPS).ravel().tolist()))


def pointInVolume(scan: SegmentedScan, lps: tuple[float, float, float]) -> NDArray[np.float64]:
    """A point of the report as RAS mm of the input volume, without its parent transforms.

    The points of the report refer to the position of the volume during the run; it may have been moved since.
    """
    x, y, z = (ijkToLPS(scan.input) @ np.linalg.inv(geometryOfRun(scan)) @ (*lps, 1.0))[:3]
    return np.array([-x, -y, z])


def geometryOfRun(scan: SegmentedScan) -> NDArray[np.float64]:
    """The 4x4 matrix from (i, j, k, 1) to LPS mm of the report's points; that of the volume where none is stored."""
    stored = scan.segmentation.GetAttribute(GEOMETRY_ATTRIBUTE)
    return np.array(json.loads(stored)).reshape(4, 4) if stored else ijkToLPS(scan.input)
