"""Report and export in the panel: the worker writes the files from the present segmentation and review."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pydicom
import pytest
import slicer
from DiffusionSegmentBackend.imaging.volume import Volume
from DiffusionSegmentBackend.protocol.buffers import write_buffer
from DiffusionSegmentBackend.protocol.messages import Result
from fixtures.dicom_seg import label_values, segment_name
from headless.slicer_picture import putVolume
from highdicom.seg import segread
from pythonqt.panel_stub import PanelStub
from pythonqt.slicer_application import Application
from reporting.test_dicom_seg import write_series

ENGINE = [sys.executable, "-u", str(Path(__file__).parent / "engine_process.py")]
MODEL = Path(__file__).resolve().parents[2] / "DiffusionSegment" / "Resources" / "Models" / "abdomen-ct"
LIVER, SPLEEN = 6, 1


class Dialog:
    """A file dialog that returns `path`."""

    def __init__(self) -> None:
        self.path = ""
        self.asked: list[tuple[str, str, str]] = []

    def __call__(self, title: str, name: str, kinds: str) -> str:
        self.asked.append((title, name, kinds))
        return self.path


@pytest.fixture
def dialog() -> Dialog:
    return Dialog()


@pytest.fixture
def stub(application: Application, dialog: Dialog) -> Iterator[PanelStub]:
    created = PanelStub(application, ENGINE)
    from DiffusionSegmentLib.panel.report_panel import ReportPanel

    created.part = ReportPanel(created.ui, created.client, created, dialog)
    yield created
    created.close()


@pytest.fixture
def body() -> Volume:
    return Volume(np.zeros((12, 20, 24), np.int16), np.diag([1.5, 1.5, 2.5, 1.0]))


@pytest.fixture
def labels(body: Volume) -> np.ndarray:
    array = np.zeros(body.array.shape, np.uint8)
    array[3:8, 4:14, 3:11] = LIVER
    array[3:8, 4:10, 14:19] = SPLEEN
    return array


def reported(labels: np.ndarray, voxelMl: float) -> dict[str, Any]:
    """The report of a run."""
    organs = []
    for value, name in ((LIVER, "liver"), (SPLEEN, "spleen")):
        volume = round(np.count_nonzero(labels == value) * voxelMl, 2)
        organ = {"name": name, "title": name.capitalize(), "value": value, "volume_ml": volume, "confidence": 0.9}
        organs.append({**organ, "volume_interval_ml": [volume - 0.2, volume + 0.2]})
    region = {
        "organ": "liver",
        "competing_organ": "background",
        "centroid_lps_mm": [9.0, 12.0, 12.5],
        "volume_ml": 1.0,
        "score": 1.0,
        "sentence": "Liver or background? 1.0 mL.",
    }
    provenance = {"software": "DiffusionSegment 0", "model": "abdomen-ct", "version": "1", "sha256": "abc"}
    provenance |= {"seed": 1, "samples": 4, "steps": 2}
    return {"organs": organs, "review": [region], "warnings": [], "provenance": provenance}


@pytest.fixture
def shown(stub: PanelStub, body: Volume, labels: np.ndarray, tmp_path: Path) -> PanelStub:
    """The stub with a result."""
    from DiffusionSegmentLib.scene.result import putResult
    from DiffusionSegmentLib.scene.segmented_scan import SegmentedScan
    from DiffusionSegmentLib.scene.terminology import readModelDescription

    ct = putVolume(slicer.mrmlScene, body, "CT of Somebody")
    uncertainty = np.full(labels.shape, 0.25, np.float32)
    maps = {"labels": labels, "uncertainty": uncertainty, "mutual_information": uncertainty}
    references = {name: write_buffer(tmp_path / f"{name}.raw", a, body.index_to_lps) for name, a in maps.items()}
    model = readModelDescription(MODEL)
    stub.result = putResult(
        slicer.mrmlScene, Result(id="1", report=reported(labels, body.voxel_ml), **references), ct, model
    )
    stub.scan = SegmentedScan(ct, stub.result.segmentation, model.labels)
    stub.update()
    return stub


@pytest.fixture
def series(shown: PanelStub, body: Volume, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The DICOM series behind the scan, in Slicer's database; another, longer one lies in the same folder."""
    folder = write_series(tmp_path / "series", body)
    files = {str(pydicom.dcmread(file).SOPInstanceUID): str(file) for file in sorted(folder.iterdir())}
    longer = write_series(tmp_path / "longer", Volume(np.zeros((14, 20, 24), np.int16), body.index_to_lps))
    for file in sorted(longer.iterdir()):
        file.rename(folder / f"other-{file.name}")
    database = SimpleNamespace(fileForInstance=lambda uid: files.get(uid, ""))
    monkeypatch.setattr(slicer, "dicomDatabase", database, raising=False)
    shown.scan.input.SetAttribute("DICOM.instanceUIDs", " ".join(files))
    return folder


def test_without_a_result_the_disabled_buttons_show_the_reason(stub: PanelStub) -> None:
    for button in (stub.ui.reportFileButton, stub.ui.dicomButton):
        assert (button.enabled, button.toolTip) == (False, "There is no result to show yet.")


def test_a_report_is_written(shown: PanelStub, dialog: Dialog, tmp_path: Path) -> None:
    dialog.path = str(tmp_path / "case.pdf")
    shown.click(shown.ui.reportFileButton)
    shown.rest()
    assert shown.messages == [f"Written to {dialog.path}."]
    assert (tmp_path / "case.pdf").read_bytes().startswith(b"%PDF")
    assert dialog.asked[0][:2] == ("Case report", "report.html")


def test_the_report_contains_review_and_edits(
    shown: PanelStub, dialog: Dialog, labels: np.ndarray, body: Volume, tmp_path: Path
) -> None:
    from DiffusionSegmentLib.scene.label_map import writeLabels
    from DiffusionSegmentLib.scene.review import ReviewList

    review = ReviewList(shown.scan.segmentation)
    review.select(0)
    review.flag()
    edited = labels.copy()
    edited[9:11, 4:14, 3:11] = LIVER
    writeLabels(shown.scan, edited)
    dialog.path = str(tmp_path / "case")
    shown.click(shown.ui.reportFileButton)
    shown.rest()
    page = (tmp_path / "case.html").read_text(encoding="utf-8")
    assert '<span class="state flagged">' in page, "the region's state"
    assert '<td class="state flagged">' in page, "the organ's"
    assert "CT of Somebody" in page
    assert "Edited by hand after the run; the volumes include the edits: Liver." in page
    assert f"{np.count_nonzero(edited == LIVER) * body.voxel_ml:.1f}" in page


@pytest.mark.parametrize("anonymous", [False, True])
def test_the_report_names_the_patient_unless_anonymous(
    shown: PanelStub, dialog: Dialog, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, anonymous: bool
) -> None:
    tags = {"0010,0010": "Roe^Jane", "0010,0020": "MRN 4711", "0008,0020": "20260301", "0008,103E": "Portal venous"}
    database = SimpleNamespace(instanceValue=lambda uid, tag: tags.get(tag, ""))
    monkeypatch.setattr(slicer, "dicomDatabase", database, raising=False)
    shown.scan.input.SetAttribute("DICOM.instanceUIDs", "1.1")
    shown.parameters.anonymous = anonymous
    dialog.path = str(tmp_path / "case.html")
    shown.click(shown.ui.reportFileButton)
    shown.rest()
    page = (tmp_path / "case.html").read_text(encoding="utf-8")
    for words in ("Patient: Roe, Jane", "MRN 4711", "2026-03-01", "Portal venous", "CT of Somebody"):
        assert (words in page) is not anonymous


def test_closing_the_dialog_writes_nothing(shown: PanelStub) -> None:
    shown.click(shown.ui.reportFileButton)
    assert not shown.client.running
    assert shown.messages == []


@pytest.mark.parametrize(
    ("name", "words"),
    [("case.docx", "OPTION: case.docx is neither HTML nor PDF."), ("a file/case.html", "OUTPUT_UNWRITABLE: ")],
)
def test_a_file_that_cannot_be_written_is_reported(
    shown: PanelStub, dialog: Dialog, tmp_path: Path, name: str, words: str
) -> None:
    (tmp_path / "a file").write_text("not a folder", encoding="utf-8")
    dialog.path = str(tmp_path / name)
    shown.click(shown.ui.reportFileButton)
    shown.rest()
    assert shown.messages[0].startswith(words)
    assert not Path(dialog.path).exists()


def test_dicom_seg_refers_only_to_the_series_of_the_scan(
    shown: PanelStub, series: Path, dialog: Dialog, labels: np.ndarray, tmp_path: Path
) -> None:
    dialog.path = str(tmp_path / "seg.dcm")
    shown.click(shown.ui.dicomButton)
    shown.rest()
    assert shown.messages == [f"Written to {dialog.path}."]
    written = pydicom.dcmread(dialog.path)
    images = {pydicom.dcmread(file).SeriesInstanceUID for file in series.glob("[0-9]*.dcm")}
    assert {item.SeriesInstanceUID for item in written.ReferencedSeriesSequence} == images
    read = segread(dialog.path)
    titles = [read.get_segment_description(number).segment_label for number in read.segment_numbers]
    assert titles == ["Liver", "Spleen"]
    names = [segment_name(read, number) for number in read.segment_numbers]
    values = dict(zip(names, (LIVER, SPLEEN), strict=True))
    # Slices without an organ are left out of the file.
    stored = read.get_volume(combine_segments=True).flip_spatial(0).array
    np.testing.assert_array_equal(label_values(read, stored, values), labels[3:8])


def test_a_scan_that_is_not_from_dicom_is_reported_before_any_dialog(shown: PanelStub, dialog: Dialog) -> None:
    shown.click(shown.ui.dicomButton)
    assert "was not loaded from DICOM" in shown.messages[0]
    assert dialog.asked == []


def test_a_missing_file_of_the_series_is_reported(
    shown: PanelStub, series: Path, dialog: Dialog, tmp_path: Path
) -> None:
    dialog.path = str(tmp_path / "seg.dcm")
    next(series.glob("[0-9]*.dcm")).unlink()
    shown.click(shown.ui.dicomButton)
    shown.rest()
    assert shown.messages[0].startswith("INPUT_MISSING: ")
    assert not Path(dialog.path).exists()
