"""An MR from its series to report and DICOM SEG: no text names CT or HU, and the SEG references MR images."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import pytest
from DiffusionSegmentBackend.cli.main import main
from DiffusionSegmentBackend.imaging.volume import Volume
from DiffusionSegmentBackend.imaging.volume_io import read_volume
from DiffusionSegmentBackend.models.folders import bundled_models_folder
from DiffusionSegmentBackend.models.manifest import read_manifest
from DiffusionSegmentBackend.reporting.case import read_case
from DiffusionSegmentBackend.reporting.case_report import ReportHeader, write_case_report
from DiffusionSegmentBackend.reporting.content import case_report
from DiffusionSegmentBackend.reporting.views import axial_view
from DiffusionSegmentBackend.schema.output_kinds import SEGMENTATION
from fixtures.dicom_files import ROOT, slices, write
from fixtures.dicom_seg import labels_on_scan, segment_name
from fixtures.segmenter_model import CLASSES, anisotropic_phantom, write_segmenter_model
from highdicom.color import CIELabColor
from highdicom.seg import segread
from pydicom.uid import MRImageStorage

from .test_case_report import DATE

NAME = "tiny-mr"
LABELS = read_manifest(bundled_models_folder().parent / "Manifests" / "abdomen-mr.json").raw["labels"][: CLASSES - 1]
NOT_OF_MR = re.compile(r"\b(?:CT|HU|Hounsfield)\b")


@pytest.fixture(scope="module")
def series(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One file a slice, without a rescale slope, as MR scanners write them."""
    phantom = anisotropic_phantom()
    values = np.clip(phantom.image + 200, 0, 1000).astype(np.int16)
    # `slices` adds 1024 to what it stores.
    stored = Volume(values - 1024, phantom.index_to_lps)
    tags: dict[str, Any] = {"RescaleIntercept": None, "RescaleSlope": None, "RescaleType": None, "Modality": "MR"}
    tags |= {"SOPClassUID": MRImageStorage, "SeriesDescription": "t2 spir"}
    return write(slices(stored, "7", **tags), tmp_path_factory.mktemp("series") / "mr")


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    folder = tmp_path_factory.mktemp("models")
    described = {"modality": "MR", "window": [0.5, 99.5], "window_unit": "percentile", "labels": LABELS}
    write_segmenter_model(folder, name=NAME, title="Tiny MR", **described)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("DIFFUSION_SEGMENT_MODELS", str(folder))
        yield folder


@pytest.fixture(scope="module")
def result(series: Path, models: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("mr") / "result"
    assert main(["segment", str(series), "-o", str(folder), "--model", NAME, "--device", "cpu"]) == 0
    return folder


def test_the_dicom_seg_references_the_mr_images(
    result: Path, series: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    assert main(["export-dicom", str(result), "--scan", str(series), "-o", str(tmp_path / "seg.dcm")]) == 0
    output = capfd.readouterr()
    assert output.err == ""
    assert not NOT_OF_MR.search(output.out.replace(str(tmp_path), ""))
    file = pydicom.dcmread(tmp_path / "seg.dcm")
    assert (file.Modality, file.SegmentationType) == ("SEG", "BINARY")
    (referenced,) = file.ReferencedSeriesSequence
    assert referenced.SeriesInstanceUID == f"{ROOT}7"
    assert {image.ReferencedSOPClassUID for image in referenced.ReferencedInstanceSequence} == {MRImageStorage}
    values = {label["name"]: label["value"] for label in LABELS}
    labels = read_volume(result / SEGMENTATION).array
    np.testing.assert_array_equal(labels_on_scan(tmp_path / "seg.dcm", series, values), labels)
    known = {label["name"]: label for label in LABELS}
    segmentation = segread(tmp_path / "seg.dcm")
    assert segmentation.number_of_segments == len(np.unique(labels)) - 1 >= 2
    for number in segmentation.segment_numbers:
        segment, label = segmentation.get_segment_description(number), known[segment_name(segmentation, number)]
        code = segment.segmented_property_type
        assert {"scheme": code.scheme_designator, "value": code.value, "meaning": code.meaning} == label["code"]
        colour = CIELabColor.from_dicom_value(tuple(segment.RecommendedDisplayCIELabValue)).to_rgb()
        assert np.abs(np.array(colour) - label["colour"]).max() <= 1


def test_the_report_names_mr_and_neither_ct_nor_hu(result: Path, series: Path, tmp_path: Path) -> None:
    for name in ("report.html", "report.pdf"):
        write_case_report(result, tmp_path / name, scan=series, header=ReportHeader(date=DATE))
    page = re.sub(r"data:[^\"')]+|<style>.*?</style>", "", (tmp_path / "report.html").read_text(encoding="utf-8"))
    assert "MR, 1st to 99th percentile" in page
    assert "Liver" in page
    assert not NOT_OF_MR.search(page)
    report = case_report(read_case(result), read_volume(series), scan_name="mr", date=DATE)
    assert report.window == "MR, 1st to 99th percentile"


def test_without_the_model_ct_and_mr_are_distinguished_by_values(
    result: Path, series: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """A few values below zero, as after filtering, do not make an MR a CT."""
    monkeypatch.setenv("DIFFUSION_SEGMENT_MODELS", str(tmp_path))
    scan, case = read_volume(series), read_case(result)
    assert case.model is None
    ringing = scan.array.astype(np.float32)
    ringing[0, 0, :5] = -80.0
    for array, words in ((ringing, "MR, 1st"), (ringing - 1024, "CT, -160")):
        report = case_report(case, Volume(array, scan.index_to_lps), scan_name="mr", date=DATE)
        assert report.window.startswith(words)


def test_the_window_follows_the_scale_of_gray_values(result: Path, series: Path) -> None:
    scan, case = read_volume(series), read_case(result)
    centre = case.regions[0].centroid_lps_mm
    for gain in (1.0, 1e-4):
        faint = Volume(scan.array * np.float32(gain), scan.index_to_lps)
        view = axial_view(faint, case.labels, case.uncertainty, centre_lps_mm=centre, window=None)
        np.testing.assert_allclose(view.window, np.percentile(view.scan, (1, 99)), rtol=1e-4)
