"""The section "Report and export": case report and DICOM SEG."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import qt
from DiffusionSegmentBackend.protocol.messages import ExportDicom, WriteReport, Written

from ..scene.case_record import readCaseRecord, reviewRecord, seriesFiles
from ..scene.examination import examinationOf
from ..scene.result import SceneResult
from ..scene.segmented_scan import SegmentedScan
from ..worker.client import WorkerClient
from . import wording
from .panel_context import PanelContext, offer

# Arguments: title, suggested name, file filter. Returns the path, empty when the dialog was cancelled.
ChooseFile = Callable[[str, str, str], str]


def askForFile(title: str, name: str, fileFilter: str) -> str:
    """Show a file dialog; PythonQt returns only the path."""
    return str(qt.QFileDialog.getSaveFileName(None, title, name, fileFilter) or "")


class ReportPanel:
    """Connects the section "Report and export" to the shown result."""

    def __init__(
        self, ui: Any, client: WorkerClient, context: PanelContext, chooseFile: ChooseFile = askForFile
    ) -> None:
        self._ui = ui
        self._client = client
        self._context = context
        self._chooseFile = chooseFile
        ui.reportFileButton.clicked.connect(self.onReport)
        ui.dicomButton.clicked.connect(self.onDicom)
        self.update()

    def update(self) -> None:
        """Update which buttons are enabled."""
        reason = wording.BUSY if self._client.running else "" if self._context.scan is not None else wording.NO_RESULT
        for button, tip in ((self._ui.reportFileButton, wording.REPORT_TIP), (self._ui.dicomButton, wording.DICOM_TIP)):
            offer(button, reason, tip)

    def onReport(self) -> None:
        """Write the case report."""
        self._start(self._report)

    def onDicom(self) -> None:
        """Write the DICOM SEG."""
        self._start(self._dicom)

    def _start(self, action: Callable[[SegmentedScan, SceneResult], None]) -> None:
        scan, result = self._context.scan, self._context.result
        if scan is not None and result is not None and not self._client.running:
            self._context.guard(lambda: action(scan, result))
        self._context.update()

    def _report(self, scan: SegmentedScan, result: SceneResult) -> None:
        record = readCaseRecord(scan, result)
        path = self._path(wording.REPORT_TITLE, "report", wording.REPORT_FILES, ".html")
        if path is None:
            return
        anonymous = self._context.parameters is not None and self._context.parameters.anonymous
        self._context.begin(wording.WRITING)
        self._client.request(
            WriteReport,
            record.scan,
            record.reportToLPS,
            maps={"labels": record.labels},
            placed={"uncertainty": (record.uncertainty, record.reportToLPS @ record.uncertaintyToScan)},
            report=record.report,
            path=path,
            scan_name="" if anonymous else scan.input.GetName(),
            review=reviewRecord(scan),
            examination=None if anonymous else examinationOf(scan.input),
            anonymous=anonymous,
        )

    def _dicom(self, scan: SegmentedScan, result: SceneResult) -> None:
        # Before the dialog, so that errors come before a file is chosen.
        files = seriesFiles(scan.input)
        record = readCaseRecord(scan, result)
        path = self._path(wording.DICOM_TITLE, "segmentation", wording.DICOM_FILES, ".dcm")
        if path is None:
            return
        self._context.begin(wording.WRITING)
        self._client.request(
            ExportDicom,
            record.scan,
            record.scanToLPS,
            maps={"labels": record.labels},
            placed={"uncertainty": (record.uncertainty, record.scanToLPS @ record.uncertaintyToScan)},
            report=record.report,
            path=path,
            files=files,
        )

    def _path(self, title: str, name: str, fileFilter: str, suffix: str) -> str | None:
        """The chosen path; `suffix` is added to a name without one."""
        chosen = self._chooseFile(title, name + suffix, fileFilter)
        if not chosen:
            return None
        return chosen if Path(chosen).suffix else chosen + suffix

    def onAnswer(self, answer: Written) -> None:
        """Show the path of the file."""
        self._context.say(wording.WRITTEN.format(path=answer.path))
