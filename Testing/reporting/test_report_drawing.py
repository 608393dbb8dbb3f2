"""Drawings of a report: the axial plane of a region in radiological orientation, and the PDF of one A4 page."""

from __future__ import annotations

import datetime
import re
from pathlib import Path

import numpy as np
import pytest
from DiffusionSegmentBackend.imaging.volume import Volume
from DiffusionSegmentBackend.reporting.case import read_case
from DiffusionSegmentBackend.reporting.case_report import ReportHeader, write_case_report
from DiffusionSegmentBackend.reporting.content import case_report
from DiffusionSegmentBackend.reporting.pdf_page import pdf_figure
from DiffusionSegmentBackend.reporting.views import SOFT_TISSUE_HU, axial_view

DATE = datetime.date(2026, 5, 4)


class TestView:
    def test_the_cross_is_at_the_voxel_in_radiological_orientation(self, finished: Path, scan: Volume) -> None:
        case = read_case(finished)
        k, j, i = (int(v) for v in np.argwhere(case.labels.array == 6)[5000])
        x, y, z, _ = scan.index_to_lps @ (i, j, k, 1)
        view = axial_view(scan, case.labels, case.uncertainty, centre_lps_mm=(x, y, z))
        column, row = (round(c / s) for c, s in zip(view.centre_mm, view.spacing_mm, strict=True))
        assert view.labels[row, column] == 6
        assert view.scan[row, column] == scan.array[k, j, i]
        assert view.height_mm == z
        whole = axial_view(scan, case.labels, case.uncertainty, centre_lps_mm=(x, y, z))
        assert np.argwhere(whole.labels == 6)[:, 1].mean() < whole.labels.shape[1] / 2

    def test_the_scans_orientation_does_not_change_the_picture(self, finished: Path, scan: Volume) -> None:
        case = read_case(finished)
        last = scan.array.shape[0] - 1
        old_from_new = np.array([[0, 1, 0, 0], [0, 0, 1, 0], [-1, 0, 0, last], [0, 0, 0, 1.0]])

        def turned(volume: Volume) -> Volume:
            return Volume(volume.array.transpose(1, 2, 0)[:, :, ::-1], volume.index_to_lps @ old_from_new)

        centre = case.regions[0].centroid_lps_mm
        plain = axial_view(scan, case.labels, case.uncertainty, centre_lps_mm=centre)
        other = axial_view(turned(scan), turned(case.labels), turned(case.uncertainty), centre_lps_mm=centre)
        np.testing.assert_array_equal(plain.labels, other.labels)
        np.testing.assert_array_equal(plain.scan, other.scan)
        np.testing.assert_allclose(plain.centre_mm, other.centre_mm)

    def test_the_window_of_mr_is_that_of_its_values(self, finished: Path, scan: Volume) -> None:
        case = read_case(finished)
        centre = case.regions[0].centroid_lps_mm
        plain = axial_view(scan, case.labels, case.uncertainty, centre_lps_mm=centre)
        assert plain.window == SOFT_TISSUE_HU
        mr = axial_view(scan, case.labels, case.uncertainty, centre_lps_mm=centre, window=None)
        assert mr.window == (np.percentile(mr.scan, 1), np.percentile(mr.scan, 99))


class TestPdf:
    def test_it_is_one_page_of_a4(self, finished: Path, scan_file: Path, tmp_path: Path) -> None:
        write_case_report(finished, tmp_path / "report.pdf", scan=scan_file, header=ReportHeader(date=DATE))
        data = (tmp_path / "report.pdf").read_bytes()
        assert data.startswith(b"%PDF-")
        assert len(re.findall(rb"/Type /Page\b", data)) == 1
        box = re.search(rb"/MediaBox \[([^]]*)]", data)
        assert box is not None
        np.testing.assert_allclose([float(v) for v in box[1].split()], [0, 0, 595.28, 841.89], atol=0.01)

    @pytest.mark.parametrize("pair", [False, True])
    def test_it_has_the_text_of_the_html_inside_the_page(self, finished: Path, scan: Volume, pair: bool) -> None:
        case = read_case(finished)
        report = case_report(case, scan, scan_name="ct.nii.gz", date=DATE, before=case if pair else None)
        figure = pdf_figure(report)
        figure.canvas.draw()
        words = " ".join(text.get_text() for text in figure.texts)
        for row in report.rows:
            assert all(
                part in words for part in (row.title, row.volume, row.interval, row.confidence, row.before or "")
            )
        for finding in report.findings:
            assert finding.sentence in words
        for _, value in (*report.facts, *report.provenance):
            assert value in words
        for warning in report.warnings:
            assert warning.split()[0] in words
        assert "Not for diagnosis." in words
        assert len([axes for axes in figure.axes if axes.images]) == (8 if pair else 4)
        page = figure.bbox
        for text in figure.texts:
            box = text.get_window_extent()
            assert box.x0 > 0
            assert box.x1 < page.x1, text.get_text()
            if re.match(r"[13]\. ", text.get_text()):
                assert box.x1 < page.x1 / 2, "a caption runs into the next picture's"
            assert box.y0 > 0
            assert box.y1 < page.y1, text.get_text()
