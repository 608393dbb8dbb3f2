"""Input of the case report and of DICOM export: the current labels, the review, the DICOM files of the scan."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import slicer
from DiffusionSegmentBackend.errors import DiffusionSegmentError, ErrorCode
from DiffusionSegmentBackend.schema.report import Report
from DiffusionSegmentBackend.schema.review_state import OrganState, RegionDecision, ReviewState
from numpy.typing import NDArray
from slicer.util import arrayFromVolume

from .correction_trace import withEdits
from .label_map import readLabels
from .overlay import OverlayKind
from .overlay_maps import toVoxelsOf
from .result import SceneResult
from .review import ReviewList
from .segmented_scan import SegmentedScan, geometryOfRun, readReport
from .volumes import ijkToLPS

_INSTANCES_ATTRIBUTE = "DICOM.instanceUIDs"


@dataclass(frozen=True)
class CaseRecord:
    """Scan and current labels (uint8) on the grid of the input (k, j, i); uncertainty 0..1 (float32) on its own grid.

    `uncertaintyToScan` is the matrix from the indices (i, j, k, 1) of the uncertainty to those of the scan. The report
    lists edits that were not applied as corrections too. `reportToLPS` is the matrix from (i, j, k, 1) of the scan to
    LPS mm in which the report gives its points, `scanToLPS` that of the volume, as in its files.
    """

    scan: NDArray[Any]
    labels: NDArray[np.uint8]
    uncertainty: NDArray[np.float32]
    uncertaintyToScan: NDArray[np.float64]
    report: Report
    reportToLPS: NDArray[np.float64]
    scanToLPS: NDArray[np.float64]


def readCaseRecord(scan: SegmentedScan, result: SceneResult) -> CaseRecord:
    """The result with all edits made since.

    Raises:
        DiffusionSegmentError: INPUT_MISSING for deleted nodes or a result without report, GEOMETRY for another grid.
    """
    scan.check()
    labels = readLabels(scan).labels
    uncertaintyNode = result.overlays.get(OverlayKind.UNCERTAINTY)
    if uncertaintyNode is None or uncertaintyNode.GetScene() is None or uncertaintyNode.GetImageData() is None:
        raise DiffusionSegmentError(
            ErrorCode.INPUT_MISSING, "The uncertainty map is no longer in the scene.", hint="Segment the scan again."
        )
    report = readReport(scan.segmentation)
    if not report.organs:
        raise DiffusionSegmentError(
            ErrorCode.INPUT_MISSING,
            f"{scan.segmentation.GetName()} has no report of the run that made it.",
            hint="Segment the scan again.",
        )
    return CaseRecord(
        arrayFromVolume(scan.input),
        labels,
        arrayFromVolume(uncertaintyNode),
        toVoxelsOf(scan.input, uncertaintyNode),
        withEdits(report, scan, labels),
        geometryOfRun(scan),
        ijkToLPS(scan.input),
    )


def reviewRecord(scan: SegmentedScan) -> ReviewState:
    """The review as in review.json: organs by the status of their segments, regions by the review list.

    Raises:
        DiffusionSegmentError: INPUT_UNREADABLE when a saved scene was damaged.
    """
    logic = slicer.vtkSlicerSegmentationsModuleLogic
    states = {
        logic.InProgress: OrganState.NEEDS_WORK,
        logic.Completed: OrganState.ACCEPTED,
        logic.Flagged: OrganState.FLAGGED,
    }
    segmentation = scan.segmentation.GetSegmentation()
    organs = {}
    for organ in readReport(scan.segmentation).organs:
        segment = segmentation.GetSegment(organ.name)
        status = logic.GetSegmentStatus(segment) if segment is not None else logic.NotStarted
        if status in states:
            organs[organ.name] = states[status]
    regions = ReviewList(scan.segmentation).regions
    return ReviewState(organs, tuple(RegionDecision(region.number, region.state) for region in regions))


def seriesFiles(volume: slicer.vtkMRMLScalarVolumeNode) -> tuple[str, ...]:
    """Files of the DICOM series that a volume was loaded from.

    Raises:
        DiffusionSegmentError: INPUT_MISSING for a volume that is not from DICOM, or files that Slicer's DICOM database
            no longer contains.
    """
    instances = (volume.GetAttribute(_INSTANCES_ATTRIBUTE) or "").split()
    if not instances:
        raise DiffusionSegmentError(
            ErrorCode.INPUT_MISSING,
            f"{volume.GetName()} was not loaded from DICOM, so there are no images that a DICOM SEG could refer to.",
            hint="Load the series with Slicer's DICOM module, or save the segmentation as .seg.nrrd.",
        )
    files = [str(slicer.dicomDatabase.fileForInstance(instance) or "") for instance in instances]
    lacking = files.count("")
    if lacking:
        raise DiffusionSegmentError(
            ErrorCode.INPUT_MISSING,
            f"{lacking} of {len(files)} images of {volume.GetName()} are no longer in Slicer's DICOM database.",
            hint="Import the series again.",
        )
    return tuple(files)
