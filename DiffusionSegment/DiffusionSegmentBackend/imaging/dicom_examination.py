"""Patient, study and series in the header of a DICOM file, for the case report."""

from __future__ import annotations

from pathlib import Path

from pydicom import dcmread

from ..schema.examination import Examination
from .dicom_values import DAMAGE, lenient, text

_TAGS = {
    "patient_name": "PatientName",
    "patient_id": "PatientID",
    "study_date": "StudyDate",
    "series_description": "SeriesDescription",
}


def read_examination(path: Path) -> Examination:
    """The examination in the file's header; empty where not stated, or if the file cannot be read."""
    with lenient():
        try:
            tags = ["SpecificCharacterSet", *_TAGS.values()]
            header = dcmread(path, stop_before_pixels=True, force=True, specific_tags=list(tags))
        except DAMAGE:
            return Examination()
        return Examination.of_dicom({name: text(header, tag) for name, tag in _TAGS.items()})
