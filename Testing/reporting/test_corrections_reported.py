"""Corrected organs are named as such in the report and in the DICOM SEG."""

from __future__ import annotations

import datetime
import json
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import pytest
from DiffusionSegmentBackend.errors import DiffusionSegmentError, ErrorCode
from DiffusionSegmentBackend.imaging.volume import Volume
from DiffusionSegmentBackend.protocol.buffers import write_buffer
from DiffusionSegmentBackend.protocol.messages import ExportDicom
from DiffusionSegmentBackend.reporting.case import read_case
from DiffusionSegmentBackend.reporting.content import CaseReport, case_report
from DiffusionSegmentBackend.reporting.dicom_seg import write_dicom_seg
from DiffusionSegmentBackend.reporting.html_page import html_page
from DiffusionSegmentBackend.reporting.pdf_page import pdf_figure
from DiffusionSegmentBackend.schema.output_kinds import REPORT
from DiffusionSegmentBackend.worker.engine import PipelineEngine

from .test_dicom_seg import write_series

DATE = datetime.date(2026, 5, 4)


def change_of(name: str, gained_ml: float, lost_ml: float) -> dict[str, Any]:
    voxels = {"gained_voxels": round(gained_ml * 10), "lost_voxels": round(lost_ml * 10)}
    return {"name": name, "title": name.replace("_", " ").capitalize(), **voxels} | {
        "gained_ml": gained_ml,
        "lost_ml": lost_ml,
    }


def correction(*organs: dict[str, Any], kind: str = "marks", time: str = "2026-05-03T09:30:12+00:00") -> dict[str, Any]:
    return {"time": time, "kind": kind, "marked_voxels": 40, "changed_voxels": 512, "organs": list(organs)}


def with_corrections(folder: Path, *corrections: dict[str, Any]) -> Path:
    report = json.loads((folder / REPORT).read_text(encoding="utf-8"))
    (folder / REPORT).write_text(json.dumps({**report, "corrections": corrections}), encoding="utf-8")
    return folder


def content(folder: Path, scan: Volume) -> CaseReport:
    return case_report(read_case(folder), scan, scan_name="ct.nii.gz", date=DATE)


def test_the_table_has_volume_changes_of_corrected_organs_only(result: Path, scan: Volume) -> None:
    first = correction(change_of("liver", 12.3, 0.4), change_of("spleen", 0.0, 2.0))
    second = correction(change_of("liver", 1.0, 0.0))
    report = content(with_corrections(result, first, second), scan)
    corrected = {row.title: row.corrected for row in report.rows if row.corrected}
    assert corrected == {"Liver": "+13.3 -0.4 mL", "Spleen": "-2.0 mL"}


def test_each_correction_is_listed_with_its_time(result: Path, scan: Volume) -> None:
    scribbled = correction(change_of("liver", 12.3, 0.4))
    edits = correction(change_of("spleen", 0.02, 0.0), kind="edits", time="2026-05-03T11:02:00+02:00")
    assert content(with_corrections(result, scribbled, edits), scan).corrections == (
        "2026-05-03 09:30 UTC: 40 voxels marked, 512 labels changed: liver +12.3 -0.4 mL.",
        "2026-05-03 11:02 +0200: drawn by hand, 512 labels changed: spleen < 0.1 mL.",
    )


def test_of_many_corrections_the_latest_are_listed_and_the_others_counted(result: Path, scan: Volume) -> None:
    organs = [change_of(name, volume, 0.0) for volume, name in enumerate(("a", "b", "c", "d", "e", "f", "g"), start=1)]
    lines = content(with_corrections(result, *[correction(*organs)] * 7), scan).corrections
    assert lines[0] == "3 earlier corrections."
    assert len(lines) == 5
    assert lines[-1].endswith(": g +7.0 mL; f +6.0 mL; e +5.0 mL; d +4.0 mL; c +3.0 mL; 2 more.")


def test_html_and_pdf_show_corrections(result: Path, scan: Volume) -> None:
    report = content(with_corrections(result, correction(change_of("liver", 12.3, 0.4))), scan)
    drawn = [text.get_text() for text in pdf_figure(report).texts]
    for words in ("corrected +12.3 -0.4 mL", "2026-05-03 09:30 UTC: 40 voxels marked"):
        assert html_page(report).count(words) == 1
        assert sum(words in text for text in drawn) == 1
    bare = content(with_corrections(result), scan)
    assert "<h2>Corrections</h2>" not in html_page(bare)
    assert "Corrections" not in [text.get_text() for text in pdf_figure(bare).texts]


def test_dicom_seg_calls_corrected_organs_semiautomatic(result: Path, scan: Volume, tmp_path: Path) -> None:
    with_corrections(result, correction(change_of("liver", 12.3, 0.4)))
    write_dicom_seg(result, tmp_path / "seg.dcm", scan=write_series(tmp_path / "series", scan))
    segments = pydicom.dcmread(tmp_path / "seg.dcm").SegmentSequence
    types = {segment.SegmentLabel: segment.SegmentAlgorithmType for segment in segments}
    assert types.pop("Liver") == "SEMIAUTOMATIC"
    assert set(types.values()) == {"AUTOMATIC"}


def test_the_export_of_the_panel_calls_corrected_organs_semiautomatic(
    result: Path, scan: Volume, tmp_path: Path
) -> None:
    case = read_case(with_corrections(result, correction(change_of("spleen", 1.0, 0.0), kind="edits")))
    series = write_series(tmp_path / "series", scan)
    maps = {"volume": scan.array, "labels": case.labels.array, "uncertainty": case.uncertainty.array}
    request = ExportDicom(
        id="1",
        output_folder=str(tmp_path),
        report=json.loads((result / REPORT).read_text(encoding="utf-8")),
        path=str(tmp_path / "seg.dcm"),
        files=tuple(str(file) for file in sorted(series.iterdir())),
        **{
            name: write_buffer(tmp_path / f"{name}.raw", np.ascontiguousarray(array), scan.index_to_lps)
            for name, array in maps.items()
        },
    )
    PipelineEngine()(request, lambda *_: None, lambda _: None)
    segments = pydicom.dcmread(tmp_path / "seg.dcm").SegmentSequence
    types = {segment.SegmentLabel: segment.SegmentAlgorithmType for segment in segments}
    assert types.pop("Spleen") == "SEMIAUTOMATIC"
    assert set(types.values()) == {"AUTOMATIC"}


@pytest.mark.parametrize("damage", [{"organs": 3}, {"time": None}, {"marked_voxels": "many"}])
def test_a_damaged_list_is_refused(damage: dict[str, Any], result: Path) -> None:
    with pytest.raises(DiffusionSegmentError, match="is damaged") as caught:
        read_case(with_corrections(result, {**correction(), **damage}))
    assert caught.value.code is ErrorCode.INPUT_UNREADABLE
