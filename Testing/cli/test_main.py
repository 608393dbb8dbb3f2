"""The command line as a process with real files: exit status and one line on stderr."""

from __future__ import annotations

import json
import resource
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from DiffusionSegmentBackend.imaging.volume import Volume
from DiffusionSegmentBackend.imaging.volume_io import read_volume, write_volume
from DiffusionSegmentBackend.models.manifest import list_models

PACKAGE = Path(__file__).resolve().parents[2] / "DiffusionSegment" / "DiffusionSegmentBackend"


def run(*arguments: object, limit: Callable[[], None] | None = None) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(PACKAGE / "__main__.py"), *map(str, arguments)]
    return subprocess.run(command, capture_output=True, encoding="utf-8", check=False, preexec_fn=limit, timeout=300)


@pytest.fixture(scope="module")
def scan(tmp_path_factory: pytest.TempPathFactory, phantom_ct: Volume) -> Path:
    path = tmp_path_factory.mktemp("scan") / "ct.nii.gz"
    write_volume(phantom_ct, path)
    return path


def test_segment_writes_every_file_in_the_scans_geometry(scan: Path, tmp_path: Path) -> None:
    done = run("segment", scan, "-o", tmp_path / "out", "--samples", 1, "--steps", 1, "--bodypart", "--device", "cpu")
    assert done.returncode == 0, done.stderr
    assert "Liver" in done.stdout
    names = {p.name for p in (tmp_path / "out").iterdir()}
    assert names == {
        "segmentation.nii.gz",
        "uncertainty.nii.gz",
        "mutual_information.nii.gz",
        "regions.nii.gz",
        "bodypart.nii.gz",
        "report.json",
    }
    source = read_volume(scan)
    for name in ("segmentation", "uncertainty", "mutual_information", "regions"):
        written = read_volume(tmp_path / "out" / f"{name}.nii.gz")
        assert written.array.shape == source.array.shape
        np.testing.assert_allclose(written.index_to_lps, source.index_to_lps, atol=1e-3)
    assert read_volume(tmp_path / "out" / "segmentation.nii.gz").array.dtype == np.uint8
    report = json.loads((tmp_path / "out" / "report.json").read_text(encoding="utf-8"))
    assert {"organs", "review", "warnings", "timings_s", "peak_memory_mb", "provenance"} <= set(report)


def refused(done: subprocess.CompletedProcess[str], status: int, code: str) -> None:
    assert done.returncode == status, done.stderr
    *stages, line = done.stderr.strip().splitlines()
    assert all(stage.startswith("[") for stage in stages), done.stderr
    assert line.startswith(code + ": ")
    assert "Traceback" not in done.stderr


def test_a_missing_scan(tmp_path: Path) -> None:
    refused(run("segment", tmp_path / "none.nii", "-o", tmp_path / "out"), 2, "INPUT_MISSING")
    assert not (tmp_path / "out").exists()


def test_an_unknown_model_and_an_unknown_option(scan: Path, tmp_path: Path) -> None:
    refused(run("segment", scan, "-o", tmp_path / "out", "--model", "brain"), 3, "MODEL_UNKNOWN")
    refused(run("segment", scan, "-o", tmp_path / "out", "--colour"), 2, "OPTION")
    refused(run("segment", scan, "-o", tmp_path / "out", "--organs", "heart"), 2, "OPTION")
    assert list(tmp_path.iterdir()) == []


def test_a_missing_device(scan: Path, tmp_path: Path) -> None:
    import torch

    if torch.cuda.is_available():
        pytest.skip("this machine has a CUDA device")
    refused(run("segment", scan, "-o", tmp_path / "out", "--device", "cuda"), 3, "NO_DEVICE")


@pytest.mark.parametrize("output", ["/proc/nowhere/out", "file/out", "file"])
def test_a_folder_that_cannot_be_written(scan: Path, tmp_path: Path, output: str) -> None:
    (tmp_path / "file").write_text("kept")
    refused(run("segment", scan, "-o", tmp_path / output), 2, "OUTPUT_UNWRITABLE")
    assert (tmp_path / "file").read_text(encoding="utf-8") == "kept"


def test_a_full_disk_leaves_no_incomplete_file(scan: Path, tmp_path: Path) -> None:
    def small_files_only() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000))

    done = run("segment", scan, "-o", tmp_path / "out", "--samples", 1, "--steps", 1, limit=small_files_only)
    refused(done, 2, "DISK_FULL")
    assert list(tmp_path.iterdir()) == []


def test_an_earlier_result_is_kept_after_a_failed_run(scan: Path, tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    old = '{"organs": [], "review": [], "provenance": {}}'
    (tmp_path / "out" / "report.json").write_text(old)
    bad = tmp_path / "bad.nii.gz"
    bad.write_text("text")
    refused(run("segment", bad, "-o", tmp_path / "out"), 2, "INPUT_UNREADABLE")
    assert (tmp_path / "out" / "report.json").read_text(encoding="utf-8") == old


def test_changed_weights_are_refused(scan: Path, tmp_path: Path) -> None:
    import shutil

    copy = tmp_path / "model"
    shutil.copytree(PACKAGE.parent / "Resources" / "Models" / "abdomen-ct", copy)
    probe = copy / "probe.safetensors"
    probe.write_bytes(probe.read_bytes()[:-1] + b"\0")
    refused(run("segment", scan, "-o", tmp_path / "out", "--model", copy), 3, "WEIGHTS_CORRUPT")
    probe.unlink()
    refused(run("segment", scan, "-o", tmp_path / "out", "--model", copy), 3, "WEIGHTS_MISSING")
    (copy / "model.json").write_text('{"name": 3')
    refused(run("segment", scan, "-o", tmp_path / "out", "--model", copy), 3, "WEIGHTS_CORRUPT")


def test_the_commands_models_check_and_phantom(tmp_path: Path) -> None:
    assert "abdomen-ct" in run("models").stdout
    assert json.loads(run("check").stdout)["models"] == dict.fromkeys(list_models(), "ok")
    assert run("phantom", "-o", tmp_path / "phantom", "--seed", 1).returncode == 0
    assert {p.name for p in (tmp_path / "phantom").iterdir()} == {"ct.nii.gz", "labels.nii.gz"}


def test_evaluate_scores_each_stage_on_labelled_scans(tmp_path: Path, phantom_ct: Volume) -> None:
    from DiffusionSegmentBackend.phantom.phantom import make_phantom

    phantom = make_phantom(seed=3, spacing_mm=(3.0, 3.0, 3.0))
    for name, array in (("images", phantom.image), ("labels", phantom.labels)):
        (tmp_path / name).mkdir()
        write_volume(Volume(array, phantom.index_to_lps), tmp_path / name / "case.nii.gz")
    done = run(
        "evaluate",
        "--images",
        tmp_path / "images",
        "--labels",
        tmp_path / "labels",
        "-o",
        tmp_path / "metrics.json",
        "--samples",
        1,
        "--steps",
        1,
        "--protocol",
        "vox2vec",
    )
    assert done.returncode == 0, done.stderr
    assert "liver" in done.stdout
    metrics = json.loads((tmp_path / "metrics.json").read_text(encoding="utf-8"))
    assert set(metrics["mean_dice"]) == {"probe", "refiner", "ensemble"}
    assert metrics["cases"] == 1
    assert metrics["organ_dice"]["ensemble"]["liver"] > 0.3
    assert 0 <= metrics["islands"]["mostly the organ"] <= metrics["islands"]["taken out"]
    assert 0.3 < metrics["by_case"]["case"]["variants"]["ensemble"]["liver"]["dice_1x1x2mm"] < 1
    assert (tmp_path / "metrics.csv").is_file()
