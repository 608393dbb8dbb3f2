"""The line below the input volume: patient, study date and series from DICOM."""

from typing import Any

from ..scene.examination import examinationOf
from . import wording
from .panel_context import PanelContext


class ScanHeader:
    """Fills the label `scanLabel`, which is hidden for a scan without DICOM data or when patient data are not shown."""

    def __init__(self, ui: Any, context: PanelContext) -> None:
        self._ui = ui
        self._context = context
        self.update()

    def update(self) -> None:
        """Show the header of the input volume."""
        text = self._text()
        self._ui.scanLabel.text = text
        self._ui.scanLabel.visible = bool(text)

    def _text(self) -> str:
        parameters = self._context.parameters
        if parameters is None or parameters.inputVolume is None or parameters.anonymous:
            return ""
        shown = examinationOf(parameters.inputVolume)
        parts = (
            shown.patient_name and wording.PATIENT.format(name=shown.patient_name),
            shown.patient_id and wording.PATIENT_ID.format(identifier=shown.patient_id),
            shown.study_date and wording.STUDY_DATE.format(date=shown.study_date),
            shown.series_description and wording.SERIES.format(description=shown.series_description),
        )
        return " · ".join(part for part in parts if part)
