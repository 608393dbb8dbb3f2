"""Reports and exports of the panel, whose map of uncertainty is on the model's grid."""

from __future__ import annotations

import base64
import datetime
import io
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import pytest
from DiffusionSegmentBackend.errors import DiffusionSegmentError, ErrorCode
from DiffusionSegmentBackend.imaging.volume import Volume, model_grid
from DiffusionSegmentBackend.imaging.volume_io import write_volume
from DiffusionSegmentBackend.pipeline.restore import map_on_grid, restore_map
from DiffusionSegmentBackend.protocol.buffers import write_buffer
from DiffusionSegmentBackend.protocol.messages import ExportDicom, WriteReport
from DiffusionSegmentBackend.reporting.case import read_case
from DiffusionSegmentBackend.reporting.content import case_report
from DiffusionSegmentBackend.reporting.dicom_seg import write_dicom_seg
from DiffusionSegmentBackend.schema.output_kinds import REPORT, UNCERTAINTY
from DiffusionSegmentBackend.schema.report import Report
from DiffusionSegmentBackend.schema.review_state import ReviewState
from DiffusionSegmentBackend.worker.engine import PipelineEngine
from PIL import Image

from .test_dicom_seg import write_series

SPACING_MM = (9.0, 9.0, 9.0)
SHEAR = np.array([[1.0, 0, 0, 0], [0, 1.0, 0.3, 0], [0, 0, 1.0, 0], [0, 0, 0, 1.0]])


def maps_of(scan: Volume) -> tuple[Volume, Volume]:
    """A map on a coarse grid, and the same in the voxels of the scan."""
    grid = model_grid(scan, spacing=SPACING_MM)
    shape = tuple(n - 4 for n in grid.shape)
    values, offset = np.random.default_rng(2).random(shape, dtype=np.float32) * np.float32(0.4), (2, 2, 2)
    return map_on_grid(values, offset, grid), Volume(restore_map(values, offset, grid), scan.index_to_lps)


@pytest.fixture(params=["straight", "sheared"])
def shown(request: pytest.FixtureRequest, scan: Volume) -> Volume:
    """The scan of the result, also as if its slices had been shifted against each other."""
    return scan if request.param == "straight" else Volume(scan.array, scan.index_to_lps @ SHEAR)


Request = Callable[..., Any]


@pytest.fixture
def ask(finished: Path, tmp_path: Path) -> Request:
    """Send a request about the finished result to an engine."""
    labels = read_case(finished).labels.array

    def run(kind: type[WriteReport | ExportDicom], scan: Volume, uncertainty: Volume, name: str, **more: Any) -> Path:
        volumes = {"volume": scan, "labels": Volume(labels, scan.index_to_lps), "uncertainty": uncertainty}
        request = kind(
            id="1",
            output_folder=str(tmp_path),
            report=Report.from_json(json.loads((finished / REPORT).read_text(encoding="utf-8"))),
            path=str(tmp_path / name),
            **{
                field: write_buffer(tmp_path / f"{field}.raw", np.ascontiguousarray(one.array), one.index_to_lps)
                for field, one in volumes.items()
            },
            **more,
        )
        PipelineEngine()(request, lambda *_: None, lambda _: None)
        return tmp_path / name

    return run


def pictures(page: Path) -> list[np.ndarray]:
    """The pictures of a page, as arrays of 0..255."""
    encoded = re.findall(r"data:image/png;base64,([A-Za-z0-9+/=]+)", page.read_text(encoding="utf-8"))
    return [np.asarray(Image.open(io.BytesIO(base64.b64decode(one))).convert("RGB"), dtype=float) for one in encoded]


def test_the_report_shows_what_it_shows_of_a_map_in_the_voxels_of_the_scan(ask: Request, shown: Volume) -> None:
    on_grid, restored = maps_of(shown)
    nothing = Volume(np.zeros_like(restored.array), shown.index_to_lps)
    pages = [
        pictures(ask(WriteReport, shown, uncertainty, f"{n}.html", scan_name="CT", review=ReviewState()))
        for n, uncertainty in enumerate((on_grid, restored, nothing))
    ]
    assert len(pages[0]) == len(pages[1]) > 1
    for ours, theirs in zip(pages[0], pages[1], strict=True):
        assert np.abs(ours - theirs).mean() < 0.5
    assert max(np.abs(ours - none).mean() for ours, none in zip(pages[0], pages[2], strict=True)) > 5


def test_views_hold_the_interpolated_values(result: Path, scan: Volume) -> None:
    on_grid, restored = maps_of(scan)
    views = []
    for uncertainty in (on_grid, restored):
        write_volume(uncertainty, result / UNCERTAINTY)
        report = case_report(read_case(result), scan, scan_name="CT", date=datetime.date(2026, 5, 4))
        views.append([view for finding in report.findings for _, view in finding.views])
    for ours, theirs in zip(*views, strict=True):
        np.testing.assert_allclose(ours.uncertainty, theirs.uncertainty, atol=1e-4)
    assert max(view.uncertainty.max() for view in views[0]) > 0.2


def test_dicom_seg_is_the_same(ask: Request, finished: Path, scan: Volume, tmp_path: Path) -> None:
    series = write_series(tmp_path / "series", scan)
    files = tuple(str(file) for file in sorted(series.iterdir()))
    exported = pydicom.dcmread(ask(ExportDicom, scan, maps_of(scan)[0], "seg.dcm", files=files))
    write_dicom_seg(finished, tmp_path / "other.dcm", scan=series)
    assert exported.PixelData == pydicom.dcmread(tmp_path / "other.dcm").PixelData


def test_a_map_beside_the_scan_is_refused(ask: Request, scan: Volume, tmp_path: Path) -> None:
    on_grid, _ = maps_of(scan)
    moved = on_grid.index_to_lps.copy()
    moved[0, 3] += 3000.0
    beside = Volume(on_grid.array, moved)
    with pytest.raises(DiffusionSegmentError, match="lies outside the segmentation") as caught:
        ask(WriteReport, scan, beside, "page.html", scan_name="CT", review=ReviewState())
    assert caught.value.code is ErrorCode.GEOMETRY
    assert not (tmp_path / "page.html").exists()
