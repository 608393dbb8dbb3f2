"""`review --presegmenter` segments with the model of another program first; its errors are one line and no result."""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from DiffusionSegmentBackend.cli.main import main
from DiffusionSegmentBackend.imaging.volume_io import read_volume
from DiffusionSegmentBackend.presegmenters import run
from fixtures.command_line import Workspace, make_workspace
from fixtures.correction_cases import labels_of, report_of
from fixtures.dicom_files import slices, write
from fixtures.presegmenter_models import RIB_HU, SPLEEN_HU, write_bundle, write_nnunet_folder


@pytest.fixture(scope="module")
def workspace(tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    return make_workspace(tmp_path_factory.mktemp("presegmenter"))


@pytest.fixture(autouse=True)
def temporary_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "temporary"
    folder.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    return folder


def arguments(workspace: Workspace, model: str, output: Path, *more: str) -> list[str]:
    options = ["--model", str(workspace.model), "--force", "--device", "cpu"]
    return ["review", str(workspace.scan), "--presegmenter", model, "-o", str(output), *options, *more]


def test_the_segmentation_of_a_monai_bundle_is_reviewed(
    workspace: Workspace, tmp_path: Path, temporary_files: Path
) -> None:
    bundle = write_bundle(tmp_path / "bundle")
    assert main(arguments(workspace, f"monai-bundle:{bundle}", tmp_path / "out")) == 0
    scan = read_volume(workspace.scan).array
    np.testing.assert_array_equal(labels_of(tmp_path / "out"), (scan > SPLEEN_HU) & (scan < RIB_HU))
    report = report_of(tmp_path / "out")
    assert report["reviewed"]["source"] == f"monai-bundle:{bundle}"
    assert [(match["segment"], match["reason"]) for match in report["reviewed"]["matches"]] == [("spleen", "name")]
    assert [other["name"] for other in report["reviewed"]["unmatched"]] == ["rib"]
    assert report["timings_s"]["presegmenter"] > 0
    assert not list(temporary_files.iterdir())
    assert not (bundle / "eval").exists()


def test_a_prediction_on_another_grid_is_resampled(workspace: Workspace, tmp_path: Path) -> None:
    """Without the inverse of its spacing, the prediction of a bundle lies on voxels of its own."""
    steps: list[dict[str, Any]] = [
        {"_target_": "LoadImaged", "keys": "image"},
        {"_target_": "EnsureChannelFirstd", "keys": "image"},
        {"_target_": "Spacingd", "keys": "image", "pixdim": [8.0, 8.0, 8.0]},
    ]
    after = {"_target_": "Compose", "transforms": [{"_target_": "AsDiscreted", "keys": "pred", "argmax": True}]}
    bundle = write_bundle(
        tmp_path / "bundle", preprocessing={"_target_": "Compose", "transforms": steps}, postprocessing=after
    )
    assert main(arguments(workspace, f"monai-bundle:{bundle}", tmp_path / "out")) == 0
    scan, labels = read_volume(workspace.scan).array, labels_of(tmp_path / "out")
    expected = (scan > SPLEEN_HU) & (scan < RIB_HU)
    overlap = 2 * np.count_nonzero(expected & (labels == 1))
    assert overlap / (np.count_nonzero(expected) + np.count_nonzero(labels == 1)) > 0.7
    assert any("it was resampled" in warning for warning in report_of(tmp_path / "out")["warnings"])


def check_failure(
    command: list[str], words: tuple[str, ...], capsys: pytest.CaptureFixture[str], folders: tuple[Path, Path]
) -> None:
    """One line with the words; neither a result nor temporary files."""
    assert main(command) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("PRESEGMENTER_FAILED")
    assert all(word in line for word in words), line
    output, temporary = folders
    assert not output.exists()
    assert not list(temporary.iterdir())


def test_an_error_of_a_bundle_is_one_line_and_leaves_nothing(
    workspace: Workspace, tmp_path: Path, temporary_files: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    bundle = write_bundle(tmp_path / "bundle", preprocessing="$1 / 0")
    command = arguments(workspace, f"monai-bundle:{bundle}", tmp_path / "out", "--quiet")
    words = ("failed with status 1", "ZeroDivisionError: division by zero", "--segmentation")
    check_failure(command, words, capsys, (tmp_path / "out", temporary_files))


@pytest.mark.parametrize(
    ("script", "words"),
    [
        ("print('begun', flush=True); import os; os._exit(7)", ("failed with status 7; it printed last: begun.",)),
        ("import time; print('tile 3 of 9', flush=True); time.sleep(60)", ("0.05 min; it printed last: tile 3",)),
        ("import os; os.abort()", ("was stopped by the system (signal 6)", "memory")),
        ("print('done')", ("wrote no label map; it printed last: done",)),
    ],
    ids=["exit", "hang", "abort", "no output"],
)
def test_a_process_that_does_not_end_well_is_one_line_and_leaves_nothing(
    workspace: Workspace,
    tmp_path: Path,
    temporary_files: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    script: str,
    words: tuple[str, ...],
) -> None:
    """Any process in the place of the child, which could end in these ways."""
    monkeypatch.setattr(run, "child_command", lambda request: [sys.executable, "-c", script])
    model = f"monai-bundle:{write_bundle(tmp_path / 'bundle')}"
    command = arguments(workspace, model, tmp_path / "out", "--quiet", "--time-limit", "0.05")
    check_failure(command, words, capsys, (tmp_path / "out", temporary_files))


def test_a_presegmenter_of_another_modality_is_refused(
    workspace: Workspace, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    series = write(slices(read_volume(workspace.scan)), tmp_path / "series")
    bundle = write_bundle(tmp_path / "bundle", modality="MR")
    for scan in (workspace.scan, series):
        command = arguments(workspace, f"monai-bundle:{bundle}", tmp_path / "out", "--quiet")
        command[1] = str(scan)
        command.remove("--force")
        assert main(command) == 2
        (line,) = capsys.readouterr().err.splitlines()
        assert line.startswith("MODALITY")
        assert "trained on MR" in line
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("more", "words"),
    [
        (["--presegmenter", "nnunet:none"], "INPUT_MISSING"),
        (["--presegmenter", "none"], "OPTION"),
        (["--presegmenter", "nnunet:none", "--time-limit", "0"], "time limit"),
        (["--segmentation", "none.nii.gz", "--time-limit", "5"], "is for a presegmenter"),
        (["--segmentation", "a.nii.gz", "--presegmenter", "nnunet:none"], "not allowed with"),
        ([], "one of the arguments"),
    ],
)
def test_wrong_options_are_refused(
    workspace: Workspace, tmp_path: Path, capsys: pytest.CaptureFixture[str], more: list[str], words: str
) -> None:
    try:
        status = main(["review", str(workspace.scan), "-o", str(tmp_path / "out"), *more])
    except SystemExit as exit_:
        status = exit_.code  # type: ignore[assignment]
    assert status == 2
    assert words in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_an_nnunet_folder_without_the_package_names_the_command_that_installs_it(
    workspace: Workspace, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("DiffusionSegmentBackend.presegmenters.registry.find_spec", lambda name: None)
    folder = write_nnunet_folder(tmp_path / "model")
    assert main(arguments(workspace, f"nnunet:{folder}", tmp_path / "out")) == 3
    assert 'pip install "diffusion-segment[nnunet]"' in capsys.readouterr().err
