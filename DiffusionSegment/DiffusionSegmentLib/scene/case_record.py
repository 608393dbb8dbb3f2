"""What report and export need of a reviewed result: the maps as they are now, the review, the files it came from."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import slicer
from DiffusionSegmentBackend.errors import DiffusionSegmentError, ErrorCode
from slicer.util import arrayFromVolume

from .correction_trace import withEdits
from .label_map import readLabels
from .overlay import OverlayKind
from .result import SceneResult
from .review import ReviewList
from .segmented_scan import SegmentedScan, geometryOfRun, readReport
from .volumes import ijkToLPS

_INSTANCES_ATTRIBUTE = "DICOM.instanceUIDs"


@dataclass(frozen=True)
class CaseRecord:
    """Arrays (k, j, i) in the input's grid: the scan, its labels now (uint8), its uncertainty 0..1 (float32).

    The report lists as corrections also what was drawn and not applied. `reportToLPS` is the matrix to LPS mm of the
    report's points, `scanToLPS` the volume's own, as its files have it.
    """

    scan: np.ndarray
    labels: np.ndarray
    uncertainty: np.ndarray
    report: dict[str, Any]
    reportToLPS: np.ndarray
    scanToLPS: np.ndarray


def readCaseRecord(scan: SegmentedScan, result: SceneResult) -> CaseRecord:
    """The result with everything that the reader has drawn since.

    Raises:
        DiffusionSegmentError: INPUT_MISSING for deleted nodes or a result without report, GEOMETRY for another grid.
    """
    scan.check()
    labels = readLabels(scan).labels
    doubt = result.overlays.get(OverlayKind.UNCERTAINTY)
    if doubt is None or doubt.GetScene() is None or doubt.GetImageData() is None:
        raise DiffusionSegmentError(
            ErrorCode.INPUT_MISSING, "The uncertainty map is no longer in the scene.", hint="Segment the scan again."
        )
    report = readReport(scan.segmentation)
    if not report.get("organs"):
        raise DiffusionSegmentError(
            ErrorCode.INPUT_MISSING,
            f"{scan.segmentation.GetName()} has no record of the run that made it.",
            hint="Segment the scan again.",
        )
    uncertainty = arrayFromVolume(doubt)
    if uncertainty.shape != labels.shape:
        raise DiffusionSegmentError(
            ErrorCode.GEOMETRY, "The uncertainty map does not fit the scan.", hint="Segment the scan again."
        )
    return CaseRecord(
        arrayFromVolume(scan.input),
        labels,
        uncertainty,
        withEdits(report, scan, labels),
        geometryOfRun(scan),
        ijkToLPS(scan.input),
    )


def reviewRecord(scan: SegmentedScan) -> dict[str, Any]:
    """What the reader said, as the report's review.json has it: organs by Slicer's segment status, regions by the list.

    Raises:
        DiffusionSegmentError: INPUT_UNREADABLE when a saved scene was damaged.
    """
    logic = slicer.vtkSlicerSegmentationsModuleLogic
    words = {logic.InProgress: "needs work", logic.Completed: "accepted", logic.Flagged: "flagged"}
    segmentation = scan.segmentation.GetSegmentation()
    organs = {}
    for organ in readReport(scan.segmentation).get("organs", []):
        segment = segmentation.GetSegment(organ["name"])
        status = logic.GetSegmentStatus(segment) if segment is not None else logic.NotStarted
        if status in words:
            organs[organ["name"]] = words[status]
    regions = [
        {"index": region.number, "state": region.state.value} for region in ReviewList(scan.segmentation).regions
    ]
    return {"organs": organs, "regions": regions}


def seriesFiles(volume: slicer.vtkMRMLScalarVolumeNode) -> tuple[str, ...]:
    """The files of the DICOM series that a volume was loaded from.

    Raises:
        DiffusionSegmentError: INPUT_MISSING for a volume that is not from DICOM, or files that Slicer's DICOM database
            no longer knows.
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
