"""Patient, study and series are on the case report and in no other output; an anonymous report has none of them."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pydicom
import pytest
from DiffusionSegmentBackend.cli.main import main
from DiffusionSegmentBackend.imaging.dicom_examination import read_examination
from DiffusionSegmentBackend.imaging.volume import Volume
from DiffusionSegmentBackend.reporting.case import read_case
from DiffusionSegmentBackend.reporting.content import case_report
from DiffusionSegmentBackend.reporting.pdf_page import pdf_figure
from DiffusionSegmentBackend.schema.examination import Examination, iso_date, person_name
from DiffusionSegmentBackend.schema.output_kinds import REPORT

from .test_case_report import DATE, Page
from .test_dicom_seg import write_series

TAGS = {
    "PatientName": "Roe^Jane^^Dr",
    "PatientID": "MRN 4711",
    "StudyDate": "20260301",
    "SeriesDescription": "Abdomen <portal venous>",
}
SHOWN = ("Dr Roe, Jane", "MRN 4711", "2026-03-01", "Abdomen <portal venous>")


@pytest.fixture
def series(scan: Volume, tmp_path: Path) -> Path:
    """A series in a folder that is named after the patient, as in exports."""
    folder = write_series(tmp_path / "ROE_JANE", scan)
    for file in folder.iterdir():
        image = pydicom.dcmread(file)
        image.SpecificCharacterSet = "ISO_IR 192"
        for name, value in TAGS.items():
            setattr(image, name, value)
        image.save_as(file)
    return folder


@pytest.fixture
def page(result: Path, series: Path, tmp_path: Path) -> Callable[..., Page]:
    """The report as HTML, as the command line writes it for a result that names its series."""
    report = json.loads((result / REPORT).read_text(encoding="utf-8"))
    uid = pydicom.dcmread(next(series.iterdir())).SeriesInstanceUID
    report["provenance"] |= {
        "series": 'series 3 "Abdomen" (CT, 41 slices)',
        "series_uid": str(uid),
        "input": str(series),
    }
    (result / REPORT).write_text(json.dumps(report), encoding="utf-8")

    def write(*options: str) -> Page:
        file = tmp_path / "report.html"
        assert main(["report", str(result), "--scan", str(series), "-o", str(file), *options]) == 0
        return Page(file.read_text(encoding="utf-8"))

    return write


def test_the_report_of_a_dicom_series_names_patient_study_and_series(page: Callable[..., Page], series: Path) -> None:
    words = page().words
    for name, value in zip(("Patient", "Patient ID", "Study date", "Series"), SHOWN, strict=True):
        assert f"{name}: {value}" in words
    assert series.name in words


def test_an_anonymous_report_names_none_of_them(page: Callable[..., Page], series: Path) -> None:
    words = page("--anonymous").words
    uid = str(pydicom.dcmread(next(series.iterdir())).SeriesInstanceUID)
    for secret in (*SHOWN, "Roe", series.name, "Patient", "Series", uid, 'series 3 "Abdomen"'):
        assert secret not in words
    assert "Liver" in words


def test_no_patient_data_is_written_into_the_result(series: Path, tmp_path: Path) -> None:
    folder = tmp_path / "out"
    run = ["segment", str(series), "-o", str(folder), "--samples", "1", "--steps", "1", "--device", "cpu"]
    assert main(run) == 0
    written = (folder / REPORT).read_text(encoding="utf-8")
    for secret in ("Roe", "Jane", "MRN 4711", "2026-03-01", "20260301"):
        assert secret not in written.replace(str(series), "")


def test_the_pdf_has_patient_and_study_date(finished: Path, scan: Volume) -> None:
    report = case_report(
        read_case(finished), scan, scan_name="ct", date=DATE, examination=Examination(*SHOWN[:3], "x" * 200)
    )
    words = [text.get_text() for text in pdf_figure(report).texts]
    assert any("Patient: Dr Roe, Jane" in line and "Study date: 2026-03-01" in line for line in words)
    assert max(len(line) for line in words) < 160


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        ("Doe^John", "Doe, John"),
        ("Doe^John^Q^Prof^MD", "Prof Doe, John Q, MD"),
        ("Yamada^Tarou=山田^太郎=やまだ^たろう", "Yamada, Tarou (山田, 太郎)"),
        ("=山田^太郎", "山田, 太郎"),
        ("ANON", "ANON"),
        ("^^^^^^", ""),
        ("", ""),
    ],
)
def test_a_person_name_is_formatted_for_reading(value: str, shown: str) -> None:
    assert person_name(value) == shown


@pytest.mark.parametrize(
    ("value", "shown"), [("20260504", "2026-05-04"), ("1997.04.22", "1997-04-22"), ("unknown", "unknown"), ("", "")]
)
def test_a_date_is_shown_as_an_iso_date(value: str, shown: str) -> None:
    assert iso_date(value) == shown


@pytest.mark.parametrize("values", [{}, {"patient_name": 7}, {"patient_id": None, "other": "x"}])
def test_missing_attributes_are_empty(values: dict[str, Any]) -> None:
    assert Examination.of_dicom(values) == Examination()


def test_control_and_direction_characters_are_replaced() -> None:
    shown = Examination.of_dicom({"patient_name": "Doe\u202e^Jo\nhn", "series_description": "a\x1b[31mb"})
    assert shown == Examination(patient_name="Doe?, Jo hn", series_description="a?[31mb")


def test_a_file_without_a_header_gives_an_empty_examination(tmp_path: Path) -> None:
    (tmp_path / "noise.dcm").write_bytes(bytes(range(256)) * 4)
    assert read_examination(tmp_path / "noise.dcm") == Examination()
    assert read_examination(tmp_path / "nowhere.dcm") == Examination()
