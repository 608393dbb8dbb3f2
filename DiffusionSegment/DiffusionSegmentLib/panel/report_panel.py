"""Report and export: a page about the case, and the organs as DICOM SEG."""

from collections.abc import Callable
from dataclasses import asdict
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

# Title, suggested name, kinds of files; gives the path, empty when the reader thought better of it.
ChooseFile = Callable[[str, str, str], str]


def askForFile(title: str, name: str, kinds: str) -> str:
    """Slicer's own dialog for saving; PythonQt gives the path alone."""
    return str(qt.QFileDialog.getSaveFileName(None, title, name, kinds) or "")


class ReportPanel:
    """Binds the section "Report and export" to the shown result."""

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
        """Enable what can be done now; what cannot says why."""
        why = wording.BUSY if self._client.running else "" if self._context.scan is not None else wording.NO_RESULT
        for button, tip in ((self._ui.reportFileButton, wording.REPORT_TIP), (self._ui.dicomButton, wording.DICOM_TIP)):
            offer(button, why, tip)

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
            maps={"labels": record.labels, "uncertainty": record.uncertainty},
            report=record.report,
            path=path,
            scan_name="" if anonymous else scan.input.GetName(),
            review=reviewRecord(scan),
            examination={} if anonymous else asdict(examinationOf(scan.input)),
            anonymous=anonymous,
        )

    def _dicom(self, scan: SegmentedScan, result: SceneResult) -> None:
        # Before the dialog: a reader should not choose a file for nothing.
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
            maps={"labels": record.labels, "uncertainty": record.uncertainty},
            report=record.report,
            path=path,
            files=files,
        )

    def _path(self, title: str, name: str, kinds: str, ending: str) -> str | None:
        """Where to write to; a name without an ending gets one."""
        chosen = self._chooseFile(title, name + ending, kinds)
        if not chosen:
            return None
        return chosen if Path(chosen).suffix else chosen + ending

    def onAnswer(self, answer: Written) -> None:
        """Tell where the file is."""
        self._context.say(wording.WRITTEN.format(path=answer.path))
