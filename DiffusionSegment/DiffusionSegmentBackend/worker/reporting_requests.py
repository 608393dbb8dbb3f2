"""Report and DICOM SEG for the panel: a request's maps in a temporary result folder, then as from the command line."""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from ..errors import DiffusionSegmentError, ErrorCode, one_line
from ..imaging.volume import Volume
from ..imaging.volume_io import write_volume
from ..pipeline.progress import Progress
from ..protocol.buffers import geometry_of, open_buffer
from ..protocol.messages import ExportDicom, WriteReport
from ..schema.dataclass_json import to_json
from ..schema.output_kinds import REPORT, SEGMENTATION, UNCERTAINTY
from ..schema.report import Report

_EDITED = "Edited by hand after the run; the volumes include the edits: {}."


def write_report_of(request: WriteReport, progress: Progress) -> Path:
    """Write the case report that a request asks for; its path.

    Raises:
        DiffusionSegmentError: as `write_case_report`.
    """
    from ..reporting.case_report import ReportHeader, write_case_report

    progress("report", 0, 2)
    with tempfile.TemporaryDirectory(prefix="report-") as name:
        folder = Path(name)
        _write_result(request, folder)
        review = folder / "review.json"
        review.write_text(json.dumps(to_json(request.review)), encoding="utf-8")
        scan = folder / "scan.nii"
        write_volume(Volume(np.asarray(open_buffer(request.volume)), geometry_of(request.volume)), scan)
        progress("report", 1, 2)
        write_case_report(
            folder,
            Path(request.path),
            scan=scan,
            review=review,
            header=ReportHeader(
                scan_name=one_line(request.scan_name),
                examination=request.examination,
                anonymous=request.anonymous,
            ),
        )
    return Path(request.path)


def export_dicom_of(request: ExportDicom, progress: Progress) -> Path:
    """Write the DICOM SEG that a request asks for; its path.

    Raises:
        DiffusionSegmentError: as `write_dicom_seg`.
    """
    from ..reporting.dicom_seg import write_dicom_seg

    progress("report", 0, 2)
    with tempfile.TemporaryDirectory(prefix="dicom-") as name:
        folder, series = Path(name) / "result", Path(name) / "series"
        folder.mkdir()
        series.mkdir()
        _write_result(request, folder)
        _gather(request.files, series)
        progress("report", 1, 2)
        write_dicom_seg(folder, Path(request.path), scan=series)
    return Path(request.path)


def with_volumes_now(report: Report, labels: Volume) -> Report:
    """The report with the volumes of `labels`, which the reader may have edited after the run.

    An interval is widened to hold the new volume, and a warning names the organs.

    Raises:
        DiffusionSegmentError: INPUT_UNREADABLE for an organ whose value is no label.
    """
    counts = np.bincount(np.asarray(labels.array).ravel(), minlength=256)
    organs, edited = [], []
    for organ in report.organs:
        if not 0 <= organ.value < len(counts):
            raise DiffusionSegmentError(
                ErrorCode.INPUT_UNREADABLE, "The report of the run is damaged.", hint="Segment the scan again."
            )
        volume = round(float(counts[organ.value]) * labels.voxel_ml, 2)
        # The run rounds to hundredths of a mL; less than that is no edit.
        if abs(volume - organ.volume_ml) > 0.011:
            low, high = organ.volume_interval_ml
            organ = replace(organ, volume_ml=volume, volume_interval_ml=(min(low, volume), max(high, volume)))
            edited.append(organ.title)
        organs.append(organ)
    warnings = (*report.warnings, *([_EDITED.format(", ".join(edited))] if edited else []))
    return replace(report, organs=tuple(organs), warnings=warnings)


def _write_result(request: WriteReport | ExportDicom, folder: Path) -> None:
    """The files of a result that the reporting reads."""
    labels = Volume(np.asarray(open_buffer(request.labels)), geometry_of(request.labels))
    if labels.array.dtype != np.uint8:
        raise DiffusionSegmentError(ErrorCode.PROTOCOL, f"Labels of {labels.array.dtype} are not supported.")
    uncertainty = Volume(np.asarray(open_buffer(request.uncertainty)), geometry_of(request.uncertainty))
    write_volume(labels, folder / SEGMENTATION)
    write_volume(uncertainty, folder / UNCERTAINTY)
    report = with_volumes_now(request.report, labels)
    (folder / REPORT).write_text(json.dumps(report.to_json(), allow_nan=False), encoding="utf-8")


def _gather(files: Sequence[str], folder: Path) -> None:
    """Only these files in one folder: beside them there may lie other series."""
    for number, file in enumerate(files):
        source, target = Path(file).resolve(), folder / f"{number:06d}.dcm"
        if not source.is_file():
            raise DiffusionSegmentError(
                ErrorCode.INPUT_MISSING, f"{source} does not exist.", hint="Import the series again."
            )
        try:
            os.symlink(source, target)
        except OSError:
            # Windows lets only some users make links.
            shutil.copyfile(source, target)
