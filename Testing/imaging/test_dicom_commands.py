"""DICOM on the command line: the series that was read is printed, can be chosen, and is stored in the provenance."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from DiffusionSegmentBackend.cli.main import main
from DiffusionSegmentBackend.imaging.volume import Volume
from DiffusionSegmentBackend.imaging.volume_io import read_volume, write_volume
from DiffusionSegmentBackend.phantom.phantom import make_phantom
from fixtures.dicom_files import ROOT, slices, small_ct, write


@pytest.fixture(scope="module")
def phantom() -> Volume:
    made = make_phantom(seed=3, spacing_mm=(5.0, 5.0, 5.0))
    return Volume(np.clip(made.image, -1024, 3000).astype(np.int16), made.index_to_lps)


@pytest.fixture(scope="module")
def folder(phantom: Volume, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Series 3 "venous" is the phantom, series 4 "empty" is air."""
    path = tmp_path_factory.mktemp("scans")
    write(slices(phantom, "3", SeriesDescription="venous"), path, "a{:03d}.dcm")
    air = Volume(np.full_like(phantom.array, -1000), phantom.index_to_lps)
    write(slices(air, "4", SeriesDescription="empty"), path, "b{:03d}.dcm")
    return path


def error_line(capfd: pytest.CaptureFixture[str], code: str) -> str:
    out, err = capfd.readouterr()
    (line,) = err.strip().splitlines()
    assert out == ""
    assert line.startswith(f"{code}: ")
    return line


def test_two_series_are_refused_with_their_names(
    folder: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    assert main(["segment", str(folder), "-o", str(tmp_path / "out"), "-q"]) == 2
    line = error_line(capfd, "OPTION")
    assert '[1] series 3 "venous" (CT' in line
    assert '[2] series 4 "empty" (CT' in line
    assert not (tmp_path / "out").exists()


def test_a_chosen_series_is_printed_and_stored_in_the_provenance(
    folder: Path, phantom: Volume, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    options = ["--samples", "1", "--steps", "1", "--device", "cpu", "--force"]
    assert main(["segment", str(folder), "--series", "3", "-o", str(out), *options]) == 0
    title = f'series 3 "venous" (CT, {len(phantom.array)} slices)'
    assert f"Read {title}." in capfd.readouterr().out
    provenance = json.loads((out / "report.json").read_text(encoding="utf-8"))["provenance"]
    assert (provenance["series"], provenance["series_uid"]) == (title, f"{ROOT}3")
    result = read_volume(out / "segmentation.nii.gz")
    np.testing.assert_allclose(result.index_to_lps, phantom.index_to_lps, atol=1e-3)

    assert main(["report", str(out), "--scan", str(folder), "-o", str(tmp_path / "report.html")]) == 0
    assert "venous" in (tmp_path / "report.html").read_text(encoding="utf-8")
    assert main(["export-dicom", str(out), "--scan", str(folder), "-o", str(tmp_path / "seg.dcm")]) == 0

    scribbles = np.zeros(result.array.shape, np.uint8)
    scribbles[tuple(np.argwhere(result.array == 6)[0])] = 1
    write_volume(Volume(scribbles, result.index_to_lps), tmp_path / "scribbles.nii.gz")
    again = ["correct", str(out), "--corrections", str(tmp_path / "scribbles.nii.gz"), "-o", str(tmp_path / "out2")]
    capfd.readouterr()
    assert main(again) == 0
    assert f"Read {title}." in capfd.readouterr().out


def test_a_ct_without_hu_is_refused_with_force_as_the_hint(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    scan = write(slices(small_ct(), RescaleType="MGML"), tmp_path / "scan")
    assert main(["segment", str(scan), "-o", str(tmp_path / "out"), "-q"]) == 2
    line = error_line(capfd, "MODALITY")
    assert "000.dcm has RescaleType MGML" in line
    assert "--force" in line
    assert main(["features", str(scan), "-o", str(tmp_path / "out"), "-q"]) == 2
    error_line(capfd, "MODALITY")


def test_an_mr_is_refused_with_its_modality(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    scan = write(slices(small_ct(), Modality="MR", SOPClassUID="1.2.840.10008.5.1.4.1.1.4"), tmp_path / "scan")
    assert main(["segment", str(scan), "-o", str(tmp_path / "out"), "-q"]) == 2
    assert "This is MR" in error_line(capfd, "MODALITY")
