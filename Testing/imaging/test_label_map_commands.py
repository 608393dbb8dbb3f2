"""Label maps in commands: the order of axes in a file changes no result, and a map on another grid is refused."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from DiffusionSegmentBackend.cli.main import main
from DiffusionSegmentBackend.imaging.volume import Volume
from DiffusionSegmentBackend.imaging.volume_io import read_volume, write_volume
from DiffusionSegmentBackend.phantom.phantom import make_phantom
from fixtures.tiny_model import SPACING_MM, write_tiny_model


def phantom() -> tuple[Volume, Volume]:
    """A coarse scan and its first three organs."""
    made = make_phantom(seed=3, spacing_mm=SPACING_MM)
    labels = np.where(made.labels <= 3, made.labels, 0).astype(np.uint8)
    return Volume(np.asarray(made.image), made.index_to_lps), Volume(labels, made.index_to_lps)


def rows_reversed(volume: Volume) -> Volume:
    matrix = volume.index_to_lps.copy()
    matrix[:3, 3] += matrix[:3, 1] * (volume.array.shape[1] - 1)
    matrix[:3, 1] *= -1
    return Volume(volume.array[:, ::-1], matrix)


def axes_turned(volume: Volume) -> Volume:
    return Volume(volume.array.transpose(1, 2, 0), volume.index_to_lps[:, [2, 0, 1, 3]])


def as_floats(volume: Volume) -> Volume:
    return Volume(volume.array.astype(np.float32) * 0.9999, volume.index_to_lps)


def cropped(volume: Volume) -> Volume:
    matrix = volume.index_to_lps.copy()
    matrix[:3, 3] += matrix[:3, 2] * 3
    return Volume(volume.array[3:], matrix)


def with_another_value(volume: Volume) -> Volume:
    return Volume(np.where(volume.array == 2, 99, volume.array), volume.index_to_lps)


@pytest.fixture(scope="module")
def workspace(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    folder = tmp_path_factory.mktemp("labels")
    write_tiny_model(folder)
    scan, labels = phantom()
    write_volume(scan, folder / "scan.nii")
    write_volume(labels, folder / "truth.nii")
    run = [
        "segment",
        str(folder / "scan.nii"),
        "-o",
        str(folder / "result"),
        "--model",
        str(folder / "tiny"),
        "--force",
    ]
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("DIFFUSION_SEGMENT_MODELS", str(folder))
        assert main(run) == 0
        yield folder


def evaluated(workspace: Path, folder: Path, labels: Volume) -> Path:
    """The result file of `evaluate` for the scan with these labels."""
    for name in ("images", "labels"):
        (folder / name).mkdir(parents=True)
    write_volume(read_volume(workspace / "scan.nii"), folder / "images" / "a.nii")
    write_volume(labels, folder / "labels" / "a.nii")
    output = folder / "metrics.json"
    call = ["evaluate", "--images", str(folder / "images"), "--labels", str(folder / "labels"), "-o", str(output)]
    main([*call, "--model", str(workspace / "tiny")])
    return output


@pytest.mark.parametrize("change", [rows_reversed, axes_turned, as_floats])
def test_evaluate_gives_the_same_dice_for_any_axes_and_data_type_of_the_truth(
    workspace: Path, tmp_path: Path, change: Callable[[Volume], Volume]
) -> None:
    truth = read_volume(workspace / "truth.nii")
    (straight, changed) = (
        json.loads(evaluated(workspace, tmp_path / name, labels).read_text(encoding="utf-8"))
        for name, labels in (("straight", truth), ("changed", change(truth)))
    )
    assert straight["mean_dice"]["ensemble"] > 0
    assert changed["mean_dice"] == straight["mean_dice"]
    assert changed["surface_dice_2mm"] == straight["surface_dice_2mm"]


@pytest.mark.parametrize(
    ("change", "reason"), [(cropped, "does not cover the whole scan"), (with_another_value, r"\[99\]")]
)
def test_evaluate_refuses_a_truth_on_another_grid_or_with_unknown_labels(
    workspace: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], change: Callable[[Volume], Volume], reason: str
) -> None:
    output = evaluated(workspace, tmp_path, change(read_volume(workspace / "truth.nii")))
    error = capsys.readouterr().err.strip().splitlines()[-1]
    assert error.startswith("TRAINING_DATA: Case a: ")
    assert reason.replace("\\", "") in error
    assert not output.exists()


def scribbles_for(workspace: Path) -> Volume:
    scan = read_volume(workspace / "scan.nii")
    scribbles = np.zeros(scan.array.shape, np.uint8)
    scribbles[10:14, 8:12, 6:12] = 2
    return Volume(scribbles, scan.index_to_lps)


@pytest.mark.parametrize("change", [rows_reversed, axes_turned, as_floats])
def test_correct_applies_scribbles_with_any_axes_and_data_type(
    workspace: Path, tmp_path: Path, change: Callable[[Volume], Volume]
) -> None:
    scribbles = scribbles_for(workspace)
    write_volume(change(scribbles), tmp_path / "scribbles.nii")
    call = [
        "correct",
        str(workspace / "result"),
        "--corrections",
        str(tmp_path / "scribbles.nii"),
        "-o",
        str(tmp_path / "new"),
    ]
    assert main(call) == 0
    labels = read_volume(tmp_path / "new" / "segmentation.nii.gz").array
    assert (labels[scribbles.array == 2] == 1).all()


def test_correct_runs_on_the_same_scan_with_reversed_rows(workspace: Path, tmp_path: Path) -> None:
    scribbles = scribbles_for(workspace)
    write_volume(scribbles, tmp_path / "scribbles.nii")
    write_volume(rows_reversed(read_volume(workspace / "scan.nii")), tmp_path / "scan.nii")
    call = [
        "correct",
        str(workspace / "result"),
        "--corrections",
        str(tmp_path / "scribbles.nii"),
        "-o",
        str(tmp_path / "new"),
    ]
    assert main([*call, "--scan", str(tmp_path / "scan.nii")]) == 0
    labels = read_volume(tmp_path / "new" / "segmentation.nii.gz").array
    assert (labels[:, ::-1][scribbles.array == 2] == 1).all()


def test_a_sheared_scan_can_be_segmented_corrected_and_reported(workspace: Path, tmp_path: Path) -> None:
    scan = read_volume(workspace / "scan.nii")
    matrix = scan.index_to_lps.copy()
    matrix[1, 2] += 4.0
    write_volume(Volume(scan.array, matrix), tmp_path / "scan.nii")
    run = ["segment", str(tmp_path / "scan.nii"), "-o", str(tmp_path / "result"), "--model", str(workspace / "tiny")]
    assert main([*run, "--force"]) == 0
    result = tmp_path / "result"
    assert "straight grid" in " ".join(json.loads((result / "report.json").read_text(encoding="utf-8"))["warnings"])
    segmentation = read_volume(result / "segmentation.nii.gz")
    axes = segmentation.index_to_lps[:3, :3] / segmentation.spacing
    np.testing.assert_allclose(axes.T @ axes, np.eye(3), atol=1e-6)
    scribbles = np.zeros_like(segmentation.array)
    scribbles[10:14, 10:14, 6:12] = 2
    write_volume(Volume(scribbles, segmentation.index_to_lps), tmp_path / "scribbles.nii.gz")
    call = ["correct", str(result), "--corrections", str(tmp_path / "scribbles.nii.gz"), "-o", str(tmp_path / "new")]
    assert main(call) == 0
    assert (read_volume(tmp_path / "new" / "segmentation.nii.gz").array[scribbles == 2] == 1).all()
    report = ["report", str(tmp_path / "new"), "--scan", str(tmp_path / "scan.nii"), "-o", str(tmp_path / "r.html")]
    assert main(report) == 0
