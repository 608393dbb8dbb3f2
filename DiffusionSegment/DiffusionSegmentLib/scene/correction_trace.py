"""The list of corrections in the report that is stored with a segmentation."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import slicer
from DiffusionSegmentBackend.errors import DiffusionSegmentError
from DiffusionSegmentBackend.imaging.label_changes import record_correction
from DiffusionSegmentBackend.schema.correction_record import CorrectionKind, CorrectionRecord
from DiffusionSegmentBackend.schema.report import Report
from numpy.typing import NDArray

from .correction_maps import resultLabels
from .label_map import readLabels
from .segmented_scan import SegmentedScan, readReport
from .volumes import ijkToLPS


def keptCorrections(segmentation: slicer.vtkMRMLSegmentationNode) -> tuple[CorrectionRecord, ...]:
    """The corrections that the report of a segmentation lists, oldest first.

    Raises:
        DiffusionSegmentError: INPUT_UNREADABLE when a saved scene was damaged.
    """
    return readReport(segmentation).corrections


def withCorrection(
    report: Report,
    scan: SegmentedScan,
    before: NDArray[np.uint8],
    after: NDArray[np.uint8],
    *,
    markedVoxels: int,
) -> Report:
    """The report with all earlier corrections and this one, which changed labels `before` to `after`, both (k, j, i).

    Raises:
        DiffusionSegmentError: as `keptCorrections`.
    """
    record = _record(scan, before, after, markedVoxels, CorrectionKind.MARKS)
    return replace(report, corrections=(*keptCorrections(scan.segmentation), record))


def withEdits(report: Report, scan: SegmentedScan, labels: NDArray[np.uint8]) -> Report:
    """The report with the edits since the last result, which were not sent to the model, as a correction.

    A segmentation without stored result labels has no edits.

    Raises:
        DiffusionSegmentError: as `keptCorrections`.
    """
    try:
        result = resultLabels(scan)
    except DiffusionSegmentError:
        return report
    count = int(np.count_nonzero(result != labels))
    if not count:
        return report
    record = _record(scan, result, labels, count, CorrectionKind.EDITS)
    return replace(report, corrections=(*keptCorrections(scan.segmentation), record))


def carriedCorrections(
    report: Report, scan: SegmentedScan, arriving: NDArray[np.uint8], settled: NDArray[np.uint8]
) -> Report:
    """The report of a run whose labels are merged into a segmentation, with the corrections of organs that stay.

    Edits that were not applied count too, because they become part of the stored result. Call it before the labels are
    written.

    Args:
        report: the report of the run.
        scan: the scan and the segmentation before the merge.
        arriving: labels of the run, (k, j, i).
        settled: labels after the merge, (k, j, i).

    Raises:
        DiffusionSegmentError: as `keptCorrections`.
    """
    differs = arriving != settled
    values = {int(value) for part in (arriving[differs], settled[differs]) for value in np.unique(part)}
    names = {label.name for label in scan.labels if label.value in values}
    kept = (
        replace(record, organs=tuple(organ for organ in record.organs if organ.name in names))
        for record in withEdits(readReport(scan.segmentation), scan, readLabels(scan).labels).corrections
    )
    return replace(report, corrections=tuple(record for record in kept if record.organs))


def _record(
    scan: SegmentedScan, before: NDArray[np.uint8], after: NDArray[np.uint8], markedVoxels: int, kind: CorrectionKind
) -> CorrectionRecord:
    return record_correction(
        before,
        after,
        organs=scan.labels,
        voxel_ml=float(abs(np.linalg.det(ijkToLPS(scan.input)[:3, :3]))) / 1000.0,
        marked_voxels=markedVoxels,
        kind=kind,
    )
