"""`diffusion-segment correct`: a result folder and a label map of scribbles become a corrected result folder."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from DiffusionSegmentBackend.cli.main import main
from DiffusionSegmentBackend.imaging.volume import Volume
from DiffusionSegmentBackend.imaging.volume_io import read_volume, write_volume

SIDE = 64


@pytest.fixture(scope="module")
def folder(phantom_ct: Volume, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with ct.nii.gz, one tile of the phantom, and its result."""
    folder = tmp_path_factory.mktemp("correct")
    start = [(n - SIDE) // 2 for n in phantom_ct.array.shape]
    matrix = phantom_ct.index_to_lps.copy()
    matrix[:3, 3] += matrix[:3, :3] @ np.array(start[::-1])
    part = phantom_ct.array[tuple(slice(n, n + SIDE) for n in start)].copy()
    write_volume(Volume(part, matrix), folder / "ct.nii.gz")
    run = ["segment", str(folder / "ct.nii.gz"), "-o", str(folder / "result")]
    assert main([*run, "--samples", "1", "--steps", "1", "--force"]) == 0
    return folder


def _scribbles(folder: Path, label: int, at: int) -> Path:
    """A label map of one scribbled voxel, the `at`-th foreground voxel of the result; the file is named after both."""
    segmentation = read_volume(folder / "result" / "segmentation.nii.gz")
    scribbles = np.zeros(segmentation.array.shape, dtype=np.uint8)
    scribbles[tuple(np.argwhere(segmentation.array > 0)[at])] = label + 1
    path = folder / f"scribbles-{label}-{at}.nii.gz"
    write_volume(Volume(scribbles, segmentation.index_to_lps), path)
    return path


def test_scribbled_voxels_get_their_label_and_the_folder_is_complete(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    scribbles = _scribbles(folder, 0, 500)
    assert main(["correct", str(folder / "result"), "--corrections", str(scribbles), "-o", str(folder / "second")]) == 0
    assert "Marked: 1 voxels as background." in capsys.readouterr().out
    names = {path.name for path in (folder / "result").iterdir()}
    assert {path.name for path in (folder / "second").iterdir()} == names | {"corrections.nii.gz"}
    before, after = (read_volume(folder / name / "segmentation.nii.gz") for name in ("result", "second"))
    scribbled = read_volume(scribbles).array > 0
    assert (after.array[scribbled] == 0).all()
    assert (before.array[scribbled] > 0).all()
    np.testing.assert_allclose(after.index_to_lps, before.index_to_lps)
    report = json.loads((folder / "second" / "report.json").read_text(encoding="utf-8"))
    assert report["provenance"]["input"] == str((folder / "ct.nii.gz").resolve())
    assert {"organs", "review", "warnings", "timings_s"} <= set(report)


def test_scribbles_of_earlier_corrections_stay_in_force(folder: Path) -> None:
    first, second = _scribbles(folder, 0, 500), _scribbles(folder, 3, 900)
    assert main(["correct", str(folder / "result"), "--corrections", str(first), "-o", str(folder / "one")]) == 0
    assert main(["correct", str(folder / "one"), "--corrections", str(second), "-o", str(folder / "two")]) == 0
    after = read_volume(folder / "two" / "segmentation.nii.gz").array
    assert (after[read_volume(first).array > 0] == 0).all()
    assert (after[read_volume(second).array > 0] == 3).all()


class TestRefusals:
    def test_a_folder_without_a_result(self, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
        scribbles = _scribbles(folder, 0, 500)
        assert main(["correct", str(folder), "--corrections", str(scribbles), "-o", str(folder / "none")]) == 2
        assert "is not a finished result" in capsys.readouterr().err
        assert not (folder / "none").exists()

    def test_scribbles_of_an_organ_that_was_not_segmented(
        self, folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        run = ["segment", str(folder / "ct.nii.gz"), "-o", str(tmp_path / "liver"), "--organs", "Liver"]
        assert main([*run, "--samples", "1", "--steps", "1", "--force", "-q"]) == 0
        scribbles = _scribbles(folder, 1, 500)
        words = ["correct", str(tmp_path / "liver"), "--corrections", str(scribbles), "-o", str(tmp_path / "none")]
        capsys.readouterr()
        assert main([*words, "-q"]) == 2
        error = capsys.readouterr().err
        assert "OPTION: 1 voxels are marked 2, which is Spleen; it was not segmented here." in error
        assert "k + 1 marks label k" in error
        assert not (tmp_path / "none").exists()

    def test_scribbles_of_another_geometry(self, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
        scribbles = read_volume(_scribbles(folder, 0, 500))
        write_volume(Volume(scribbles.array[1:], scribbles.index_to_lps), folder / "cut.nii.gz")
        call = [
            "correct",
            str(folder / "result"),
            "--corrections",
            str(folder / "cut.nii.gz"),
            "-o",
            str(folder / "none"),
        ]
        assert main(call) == 2
        assert "GEOMETRY" in capsys.readouterr().err
        assert not (folder / "none").exists()

    def test_a_missing_scan(self, folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        moved = tmp_path / "moved"
        shutil.copytree(folder / "result", moved)
        report = json.loads((moved / "report.json").read_text(encoding="utf-8"))
        report["provenance"]["input"] = str(tmp_path / "nowhere.nii.gz")
        (moved / "report.json").write_text(json.dumps(report), encoding="utf-8")
        scribbles = _scribbles(folder, 0, 500)
        assert main(["correct", str(moved), "--corrections", str(scribbles), "-o", str(tmp_path / "none")]) == 2
        assert "--scan" in capsys.readouterr().err

    def test_a_result_of_other_weights(self, folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        other = tmp_path / "other"
        shutil.copytree(folder / "result", other)
        report = json.loads((other / "report.json").read_text(encoding="utf-8"))
        report["provenance"] |= {"sha256": "0" * 64, "version": "0.0.9"}
        (other / "report.json").write_text(json.dumps(report), encoding="utf-8")
        scribbles = _scribbles(folder, 0, 500)
        assert main(["correct", str(other), "--corrections", str(scribbles), "-o", str(tmp_path / "none")]) == 3
        assert "0.0.9" in capsys.readouterr().err

    def test_a_locked_organ_that_does_not_exist(self, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
        scribbles = _scribbles(folder, 0, 500)
        call = ["correct", str(folder / "result"), "--corrections", str(scribbles), "-o", str(folder / "none")]
        assert main([*call, "--lock", "appendix"]) == 2
        assert "appendix" in capsys.readouterr().err
