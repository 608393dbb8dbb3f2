"""The result of a series as DICOM objects: the worker segments it, writes the DICOM SEG and the report."""

from __future__ import annotations

import os
import shutil
from collections.abc import Sequence
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

from ..errors import DiffusionSegmentError, ErrorCode
from ..models.manifest import find_model, is_installed
from ..protocol.messages import ExportDicom, Result, Segment, WriteReport
from ..reporting.encapsulated_pdf import write_encapsulated_pdf
from ..schema.provenance import Source
from ..schema.report import Report
from ..schema.review_state import ReviewState
from ..schema.run_options import RunOptions
from .series_reading import SeriesVolume, read_series
from .worker_process import WorkerProcess

SEGMENTATION_FILE, REPORT_FILE = "segmentation.dcm", "report.dcm"
_INCOMPLETE = "The series may be incomplete: {} images had arrived when it was segmented."
_REPLACES = "Replaces an earlier result of fewer images of this series."


class ResultWriter:
    """Turns the images of a series into DICOM objects, with a worker process and a time limit for each step in s."""

    def __init__(self, worker: WorkerProcess, options: RunOptions, *, run_s: float) -> None:
        self._worker = worker
        self._options = options
        self._run_s = run_s
        model = find_model(options.model)
        # Of a model that is not installed, the DICOM SEG needs to know where its codes are.
        self._model_folder = None if is_installed(model) else str(model.resolve())

    def write(
        self, scan: Path, folder: Path, *, job_id: str, incomplete: bool = False, replaces: bool = False
    ) -> tuple[Path, ...]:
        """Segment the series in `scan`; returns the files of the result, which appear in `folder` all or none.

        Raises:
            DiffusionSegmentError: whatever is wrong with series, model or computer.
        """
        working = folder / "working"
        shutil.rmtree(working, ignore_errors=True)
        working.mkdir(mode=0o700)
        try:
            series = read_series(scan, working, force=self._options.force, seconds=self._run_s)
            result = self._segment(series, working, job_id)
            files = sorted(scan.iterdir())
            notes = (
                *series.notes,
                *([_INCOMPLETE.format(len(files))] if incomplete else []),
                *([_REPLACES] if replaces else []),
            )
            objects = working / "objects"
            objects.mkdir()
            self._write_objects(result, self._complete(result.report, series, notes), files, series, objects)
            shutil.rmtree(folder / "objects", ignore_errors=True)
            os.replace(objects, folder / "objects")
        finally:
            shutil.rmtree(working, ignore_errors=True)
        return result_files(folder)

    def _segment(self, series: SeriesVolume, working: Path, job_id: str) -> Result:
        values = {item.name: getattr(self._options, item.name) for item in fields(RunOptions)}
        task = Segment(id=job_id, output_folder=str(working), volume=series.volume, **values)
        answer = self._worker.run(task, seconds=self._run_s)
        if not isinstance(answer, Result):
            raise DiffusionSegmentError(ErrorCode.PROTOCOL, f"The worker answered with '{answer.type}'.")
        return answer

    def _complete(self, report: Report, series: SeriesVolume, notes: Sequence[str]) -> Report:
        """The report of a run with its notes and its source."""
        source = Source(series=series.series, series_uid=series.key, model_folder=self._model_folder)
        return replace(
            report, warnings=(*notes, *report.warnings), provenance=replace(report.provenance, source=source)
        )

    def _write_objects(
        self, result: Result, report: Report, files: Sequence[Path], series: SeriesVolume, folder: Path
    ) -> None:
        common: dict[str, Any] = {
            "output_folder": str(folder.parent),
            "volume": series.volume,
            "labels": result.labels,
            "uncertainty": result.uncertainty,
            "report": report,
        }
        segmentation, pdf = folder / SEGMENTATION_FILE, folder.parent / "report.pdf"
        self._worker.run(
            ExportDicom(
                id=f"{result.id}-seg", path=str(segmentation), files=tuple(str(file) for file in files), **common
            ),
            seconds=self._run_s,
        )
        self._worker.run(
            WriteReport(
                id=f"{result.id}-report",
                path=str(pdf),
                scan_name=series.series,
                review=ReviewState(),
                examination=series.examination,
                **common,
            ),
            seconds=self._run_s,
        )
        write_encapsulated_pdf(pdf, segmentation, folder / REPORT_FILE)


def result_files(folder: Path) -> tuple[Path, ...]:
    """The DICOM objects of a finished result in the folder of its job."""
    return tuple(folder / "objects" / name for name in (SEGMENTATION_FILE, REPORT_FILE))
