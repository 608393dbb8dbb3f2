"""`diffusion-segment correct`: a result folder and a label map of marks become a corrected result folder."""

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
def done(phantom_ct: Volume, tmp_path_factory: pytest.TempPathFactory) -> Path:
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


def _marks(done: Path, label: int, at: int) -> Path:
    """A mark in the `at`-th found voxel; the file's name tells both."""
    found = read_volume(done / "result" / "segmentation.nii.gz")
    marks = np.zeros(found.array.shape, dtype=np.uint8)
    marks[tuple(np.argwhere(found.array > 0)[at])] = label + 1
    path = done / f"marks-{label}-{at}.nii.gz"
    write_volume(Volume(marks, found.index_to_lps), path)
    return path


def test_marks_are_obeyed_and_the_folder_is_whole(done: Path, capsys: pytest.CaptureFixture[str]) -> None:
    marks = _marks(done, 0, 500)
    assert main(["correct", str(done / "result"), "--corrections", str(marks), "-o", str(done / "second")]) == 0
    assert "Marked: 1 voxels as background." in capsys.readouterr().out
    names = {path.name for path in (done / "result").iterdir()}
    assert {path.name for path in (done / "second").iterdir()} == names | {"corrections.nii.gz"}
    before, after = (read_volume(done / name / "segmentation.nii.gz") for name in ("result", "second"))
    marked = read_volume(marks).array > 0
    assert (after.array[marked] == 0).all()
    assert (before.array[marked] > 0).all()
    np.testing.assert_allclose(after.index_to_lps, before.index_to_lps)
    report = json.loads((done / "second" / "report.json").read_text(encoding="utf-8"))
    assert report["provenance"]["input"] == str((done / "ct.nii.gz").resolve())
    assert {"organs", "review", "warnings", "timings_s"} <= set(report)


def test_earlier_marks_stay_in_force(done: Path) -> None:
    first, second = _marks(done, 0, 500), _marks(done, 3, 900)
    assert main(["correct", str(done / "result"), "--corrections", str(first), "-o", str(done / "one")]) == 0
    assert main(["correct", str(done / "one"), "--corrections", str(second), "-o", str(done / "two")]) == 0
    after = read_volume(done / "two" / "segmentation.nii.gz").array
    assert (after[read_volume(first).array > 0] == 0).all()
    assert (after[read_volume(second).array > 0] == 3).all()


class TestRefusals:
    def test_a_folder_that_is_no_result(self, done: Path, capsys: pytest.CaptureFixture[str]) -> None:
        marks = _marks(done, 0, 500)
        assert main(["correct", str(done), "--corrections", str(marks), "-o", str(done / "none")]) == 2
        assert "is not a finished result" in capsys.readouterr().err
        assert not (done / "none").exists()

    def test_marks_for_an_organ_that_was_not_segmented(
        self, done: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        run = ["segment", str(done / "ct.nii.gz"), "-o", str(tmp_path / "liver"), "--organs", "Liver"]
        assert main([*run, "--samples", "1", "--steps", "1", "--force", "-q"]) == 0
        marks = _marks(done, 1, 500)
        words = ["correct", str(tmp_path / "liver"), "--corrections", str(marks), "-o", str(tmp_path / "none")]
        capsys.readouterr()
        assert main([*words, "-q"]) == 2
        error = capsys.readouterr().err
        assert "OPTION: 1 voxels are marked 2, which is Spleen; it was not segmented here." in error
        assert "k + 1 marks label k" in error
        assert not (tmp_path / "none").exists()

    def test_marks_of_another_geometry(self, done: Path, capsys: pytest.CaptureFixture[str]) -> None:
        marks = read_volume(_marks(done, 0, 500))
        write_volume(Volume(marks.array[1:], marks.index_to_lps), done / "cut.nii.gz")
        call = ["correct", str(done / "result"), "--corrections", str(done / "cut.nii.gz"), "-o", str(done / "none")]
        assert main(call) == 2
        assert "GEOMETRY" in capsys.readouterr().err
        assert not (done / "none").exists()

    def test_a_scan_that_is_gone(self, done: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        moved = tmp_path / "moved"
        shutil.copytree(done / "result", moved)
        report = json.loads((moved / "report.json").read_text(encoding="utf-8"))
        report["provenance"]["input"] = str(tmp_path / "nowhere.nii.gz")
        (moved / "report.json").write_text(json.dumps(report), encoding="utf-8")
        marks = _marks(done, 0, 500)
        assert main(["correct", str(moved), "--corrections", str(marks), "-o", str(tmp_path / "none")]) == 2
        assert "--scan" in capsys.readouterr().err

    def test_a_result_of_other_weights(self, done: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        other = tmp_path / "other"
        shutil.copytree(done / "result", other)
        report = json.loads((other / "report.json").read_text(encoding="utf-8"))
        report["provenance"] |= {"sha256": "0" * 64, "version": "0.0.9"}
        (other / "report.json").write_text(json.dumps(report), encoding="utf-8")
        marks = _marks(done, 0, 500)
        assert main(["correct", str(other), "--corrections", str(marks), "-o", str(tmp_path / "none")]) == 3
        assert "0.0.9" in capsys.readouterr().err

    def test_a_locked_organ_that_does_not_exist(self, done: Path, capsys: pytest.CaptureFixture[str]) -> None:
        marks = _marks(done, 0, 500)
        call = ["correct", str(done / "result"), "--corrections", str(marks), "-o", str(done / "none")]
        assert main([*call, "--lock", "appendix"]) == 2
        assert "appendix" in capsys.readouterr().err
