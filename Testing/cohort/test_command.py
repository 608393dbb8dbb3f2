"""The command with the real worker and a small model: NIfTI and DICOM, result folders, DICOM SEG, page."""

from __future__ import annotations

import json
from pathlib import Path

import nibabel
import numpy as np
import pydicom
import pytest
from DiffusionSegmentBackend.cli.main import main
from DiffusionSegmentBackend.cohort import executors
from DiffusionSegmentBackend.cohort.executor import cuda_environment
from DiffusionSegmentBackend.cohort.resources import Resources, choose_resources, cpu_count
from DiffusionSegmentBackend.cohort.worker_process import WorkerSettings
from DiffusionSegmentBackend.errors import DiffusionSegmentError, ErrorCode
from DiffusionSegmentBackend.imaging.volume_io import write_volume
from fixtures.cohorts import read_rows, rows_by_name
from fixtures.dicom_files import slices, write
from fixtures.tiny_model import coarse_phantom, write_tiny_model


@pytest.fixture(scope="module")
def cohort(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a cohort `out` of a NIfTI file, a damaged one, and two DICOM series of one patient."""
    folder = tmp_path_factory.mktemp("cohort")
    model = write_tiny_model(folder / "models")
    scans = folder / "scans"
    scans.mkdir()
    write_volume(coarse_phantom(1), scans / "ct.nii.gz")
    (scans / "damaged.nii.gz").write_text("no image")
    write(slices(coarse_phantom(2), "2"), scans / "patient" / "study")
    write(slices(coarse_phantom(3), "3", Modality="MR"), scans / "patient" / "other")
    status = main(
        [
            *("cohort", str(scans), "-o", str(folder / "out"), "--model", str(model), "--identifiers", "--dicom-seg"),
            *("--executor", "processes", "--workers", "2", "--device", "cpu", "--quiet", "--samples", "1"),
        ]
    )
    assert status == 1
    return folder


def test_every_scan_has_its_row_and_what_is_fit_its_result_folder(cohort: Path) -> None:
    rows = rows_by_name(cohort / "out")
    found = {name: (row["status"], row["code"]) for name, row in rows.items()}
    assert found == {
        "ct.nii": ("done", ""),
        "damaged.nii": ("failed", "INPUT_UNREADABLE"),
        "study": ("done", ""),
        "other": ("not_fit", "MODALITY"),
    }
    for name, seed in (("ct.nii", 1), ("study", 2)):
        folder = cohort / "out" / "scans" / rows[name]["scan_id"]
        labels = nibabel.load(folder / "segmentation.nii.gz")
        shape = coarse_phantom(seed).shape_ijk
        assert labels.shape == shape
        assert tuple(int(rows[name][f"size_{axis}"]) for axis in "ijk") == shape
        report = json.loads((folder / "report.json").read_text())
        assert report["provenance"]["sha256"] == rows[name]["model_sha256"]
        assert (cohort / "out" / "thumbnails" / f"{rows[name]['scan_id']}.png").read_bytes()[:4] == b"\x89PNG"


def test_a_result_equals_that_of_the_command_segment(cohort: Path, tmp_path: Path) -> None:
    model, scan = str(cohort / "models" / "tiny"), str(cohort / "scans" / "ct.nii.gz")
    assert main(["segment", scan, "-o", str(tmp_path / "one"), "--model", model, "--device", "cpu", "-q"]) == 0
    folder = cohort / "out" / "scans" / rows_by_name(cohort / "out")["ct.nii"]["scan_id"]
    for name in ("segmentation", "uncertainty", "regions"):
        one, other = (nibabel.load(path / f"{name}.nii.gz").get_fdata() for path in (tmp_path / "one", folder))
        np.testing.assert_array_equal(one, other)


def test_a_dicom_series_has_a_dicom_seg_and_a_file_has_none(cohort: Path) -> None:
    rows = rows_by_name(cohort / "out")
    (path,) = (cohort / "out" / "dicom-seg").glob("*.dcm")
    assert path.stem == rows["study"]["scan_id"]
    segmentation = pydicom.dcmread(path)
    assert segmentation.Modality == "SEG"
    series = segmentation.ReferencedSeriesSequence[0].SeriesInstanceUID
    assert series == rows["study"]["series_uid"]


def test_organs_have_codes_and_rows_of_scans_with_a_result_alone(cohort: Path) -> None:
    organs = read_rows(cohort / "out" / "organs.csv")
    assert {row["code_scheme"] for row in organs} == {"SCT"}
    done = {row["scan_id"] for row in read_rows(cohort / "out" / "scans.csv") if row["status"] == "done"}
    assert {row["scan_id"] for row in organs} == done


def test_without_identifiers_the_reports_state_no_path(cohort: Path, tmp_path: Path) -> None:
    model, scan = str(cohort / "models" / "tiny"), cohort / "scans" / "ct.nii.gz"
    call = ["cohort", str(scan), "-o", str(tmp_path / "out"), "--model", model, "--executor", "processes", "-q"]
    assert main([*call, "--device", "cpu"]) == 0
    (report,) = (tmp_path / "out" / "scans").glob("*/report.json")
    assert "input" not in json.loads(report.read_text())["provenance"]
    assert str(cohort) not in report.read_text()


@pytest.mark.parametrize(
    ("more", "code"),
    [
        (("--workers", "0"), ErrorCode.OPTION),
        (("--gpus-per-worker", "-1"), ErrorCode.OPTION),
        (("--time-limit", "0"), ErrorCode.OPTION),
        (("--model", "none"), ErrorCode.MODEL_UNKNOWN),
        (("--organs", "tail"), ErrorCode.OPTION),
        (("--executor", "processes", "--address", "127.0.0.1:1"), ErrorCode.OPTION),
    ],
)
def test_a_wrong_option_is_one_line_and_nothing_is_written(
    more: tuple[str, ...], code: ErrorCode, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "scan.nii").touch()
    status = main(["cohort", str(tmp_path / "scan.nii"), "-o", str(tmp_path / "out"), *more])
    lines = capsys.readouterr().err.splitlines()
    assert status in (2, 3)
    assert len(lines) == 1
    assert lines[0].startswith(code.value)
    assert not (tmp_path / "out").exists()


def test_an_input_that_does_not_exist_is_one_line_and_nothing_is_written(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["cohort", str(tmp_path / "none"), "-o", str(tmp_path / "out")]) == 2
    assert capsys.readouterr().err.startswith("INPUT_MISSING:")
    assert not (tmp_path / "out").exists()


def test_without_ray_processes_are_used_after_one_line_and_ray_itself_is_refused(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    monkeypatch.setattr(executors, "find_spec", lambda name: None)
    executor = executors.executor_starter("auto", None)(Resources(workers=2, threads=1), WorkerSettings(), tmp_path)
    executor.close()
    assert executor.workers == 2
    assert capsys.readouterr().err.count("\n") == 1
    for kind, address in (("ray", None), ("auto", "127.0.0.1:1")):
        with pytest.raises(DiffusionSegmentError) as caught:
            executors.executor_starter(kind, address)
        assert caught.value.code is ErrorCode.PACKAGE_MISSING


def test_a_folder_without_scans_is_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "in").mkdir()
    assert main(["cohort", str(tmp_path / "in"), "-o", str(tmp_path / "out"), "--executor", "processes"]) == 2
    assert capsys.readouterr().err.startswith("INPUT_MISSING: There are no scans in")


def test_the_default_is_a_worker_for_each_processor_as_far_as_the_memory_allows(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    from DiffusionSegmentBackend.cohort import resources

    monkeypatch.setattr(resources, "visible_cards", list)
    monkeypatch.setattr(resources, "cpu_count", lambda: 16)
    monkeypatch.setattr(resources, "free_bytes", lambda: 10 * 10**9)
    chosen = choose_resources(workers=None, threads=0, gpus_per_worker=None)
    assert (chosen.workers, chosen.threads, chosen.gpus_per_worker) == (3, 5, 0.0)
    monkeypatch.setattr(resources, "visible_cards", lambda: ["0", "1"])
    chosen = choose_resources(workers=None, threads=1, gpus_per_worker=0.5)
    assert (chosen.workers, chosen.gpus_per_worker) == (3, 0.5)
    with pytest.raises(DiffusionSegmentError):
        choose_resources(workers=1000, threads=0, gpus_per_worker=None)
    (tmp_path / "cpu.max").write_text("150000 100000\n")
    assert cpu_count(tmp_path) == 1


def test_workers_without_ray_share_the_cards_that_are_visible() -> None:
    seen = [cuda_environment(n, 0.5, ["3", "5"])["CUDA_VISIBLE_DEVICES"] for n in range(6)]
    assert seen == ["3", "3", "5", "5", "3", "3"]
    assert cuda_environment(1, 2.0, ["0", "1", "2", "3"]) == {"CUDA_VISIBLE_DEVICES": "2,3"}
    assert cuda_environment(0, 1.0, []) == cuda_environment(0, 0.0, ["0"]) == {}
