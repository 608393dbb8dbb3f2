"""The record of what readers changed, in the report that a segmentation keeps; saved and loaded with it."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import slicer
from DiffusionSegmentBackend.errors import DiffusionSegmentError, ErrorCode
from DiffusionSegmentBackend.imaging.label_changes import record_correction
from DiffusionSegmentBackend.schema.correction_record import (
    CorrectionKind,
    CorrectionRecord,
    corrections_of,
    with_corrections,
)

from .correction_maps import resultLabels
from .label_map import readLabels
from .segmented_scan import SegmentedScan, readReport
from .volumes import ijkToLPS


def keptCorrections(segmentation: slicer.vtkMRMLSegmentationNode) -> tuple[CorrectionRecord, ...]:
    """The corrections that the report of a segmentation lists, oldest first.

    Raises:
        DiffusionSegmentError: INPUT_UNREADABLE when a saved scene was damaged.
    """
    try:
        return corrections_of(readReport(segmentation))
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise DiffusionSegmentError(
            ErrorCode.INPUT_UNREADABLE,
            f"The corrections kept with {segmentation.GetName()} are damaged.",
            hint="Segment the scan again.",
        ) from error


def withCorrection(
    report: dict[str, Any], scan: SegmentedScan, before: np.ndarray, after: np.ndarray, *, markedVoxels: int
) -> dict[str, Any]:
    """The report of a correction with all corrections so far and this one, from labels `before` to `after` (k, j, i).

    Raises:
        DiffusionSegmentError: as `keptCorrections`.
    """
    record = _record(scan, before, after, markedVoxels, CorrectionKind.MARKS)
    return with_corrections(report, [*keptCorrections(scan.segmentation), record])


def withEdits(report: dict[str, Any], scan: SegmentedScan, labels: np.ndarray) -> dict[str, Any]:
    """The report with what the reader has drawn since the last answer, which the model was not given, as a correction.

    A segmentation of which nothing is known to have been delivered has none.

    Raises:
        DiffusionSegmentError: as `keptCorrections`.
    """
    try:
        delivered = resultLabels(scan)
    except DiffusionSegmentError:
        return report
    count = int(np.count_nonzero(delivered != labels))
    if not count:
        return report
    record = _record(scan, delivered, labels, count, CorrectionKind.EDITS)
    return with_corrections(report, [*keptCorrections(scan.segmentation), record])


def carriedCorrections(
    report: dict[str, Any], scan: SegmentedScan, arriving: np.ndarray, settled: np.ndarray
) -> dict[str, Any]:
    """The report of a new run that meets an older segmentation, with the corrections of organs that it did not replace.

    What was drawn and not applied counts too: from now on it is delivered. To be called before the labels are written.

    `arriving` are the labels of the run, `settled` those after the merge.

    Raises:
        DiffusionSegmentError: as `keptCorrections`.
    """
    differs = arriving != settled
    values = {int(value) for part in (arriving[differs], settled[differs]) for value in np.unique(part)}
    names = {label.name for label in scan.labels if label.value in values}
    kept = (
        replace(record, organs=tuple(organ for organ in record.organs if organ.name in names))
        for record in corrections_of(withEdits(readReport(scan.segmentation), scan, readLabels(scan).labels))
    )
    return with_corrections(report, [record for record in kept if record.organs])


def _record(
    scan: SegmentedScan, before: np.ndarray, after: np.ndarray, markedVoxels: int, kind: CorrectionKind
) -> CorrectionRecord:
    return record_correction(
        before,
        after,
        organs=scan.labels,
        voxel_ml=float(abs(np.linalg.det(ijkToLPS(scan.input)[:3, :3]))) / 1000.0,
        marked_voxels=markedVoxels,
        kind=kind,
    )
