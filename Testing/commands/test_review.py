"""`review` writes a result folder of a segmentation from another source; what does not fit is refused in one line."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from DiffusionSegmentBackend.cli.main import main
from DiffusionSegmentBackend.imaging.volume import Volume
from DiffusionSegmentBackend.imaging.volume_io import read_volume, write_volume
from DiffusionSegmentBackend.schema.model_manifest import CodedTerm
from DiffusionSegmentBackend.schema.report import Report
from DiffusionSegmentBackend.schema.segment_matching import SegmentName
from fixtures.command_line import Workspace, make_workspace
from fixtures.correction_cases import SPLEEN, correct, labels_of, report_of, write_scribbles
from fixtures.dicom_files import slices, write
from fixtures.segmentation_files import segment_pairs, write_seg, write_seg_nrrd, write_totalsegmentator
from highdicom.seg import segread

NAMES = {1: "kidney_left", 2: "spleen", 3: "lung_upper_lobe_left", 4: "kidney_right"}
KIDNEY = CodedTerm(scheme="SCT", value="64033007", meaning="Kidney")
LEFT = CodedTerm(scheme="SCT", value="7771000", meaning="Left")
VALUES = {"spleen": 1, "right_kidney": 2, "left_kidney": 3}


@pytest.fixture(scope="module")
def workspace(tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    return make_workspace(tmp_path_factory.mktemp("review"))


@pytest.fixture(scope="module")
def given(workspace: Workspace) -> Volume:
    """Two blocks of organs, and one of another structure; the fourth name has no voxel."""
    scan = read_volume(workspace.scan)
    labels = np.zeros(scan.array.shape, dtype=np.uint8)
    k, j, i = (n // 2 for n in labels.shape)
    labels[k - 3 : k + 3, j - 3 : j + 3, i + 2 : i + 6] = 1
    labels[k - 3 : k + 3, j - 3 : j + 3, i - 6 : i - 2] = 2
    labels[k - 3 : k + 3, j - 3 : j + 3, i - 1 : i + 1] = 3
    return Volume(labels, scan.index_to_lps)


@pytest.fixture(scope="module")
def file(workspace: Workspace, given: Volume) -> Path:
    return write_totalsegmentator(workspace.folder / "given.nii.gz", given, NAMES)


def arguments(workspace: Workspace, file: Path, output: Path, *more: str) -> list[str]:
    model = ["--model", str(workspace.model), "--force", "--device", "cpu"]
    return ["review", str(workspace.scan), "--segmentation", str(file), "-o", str(output), *model, *more]


@pytest.fixture(scope="module")
def result(workspace: Workspace, file: Path) -> Path:
    folder = workspace.folder / "result"
    assert main(arguments(workspace, file, folder, "--keep-session", "--alternatives", "--probabilities")) == 0
    return folder


def test_the_segmentation_of_the_result_is_the_given_one_with_the_values_of_the_model(
    result: Path, given: Volume
) -> None:
    expected = np.select([given.array == 1, given.array == 2], [3, 1], 0)
    np.testing.assert_array_equal(labels_of(result), expected)
    np.testing.assert_allclose(read_volume(result / "segmentation.nii.gz").index_to_lps, given.index_to_lps)


def test_other_segments_are_kept_in_a_file_of_their_own(result: Path, given: Volume) -> None:
    reviewed = read_volume(result / "reviewed.nii.gz").array
    (other,) = report_of(result)["reviewed"]["unmatched"]
    assert other == {"name": "lung_upper_lobe_left", "value": 255}
    np.testing.assert_array_equal(reviewed == other["value"], given.array == 3)
    np.testing.assert_array_equal(np.where(reviewed == 255, 0, reviewed), labels_of(result))


def test_the_report_names_file_matches_and_what_was_not_reviewed(result: Path, file: Path) -> None:
    report = report_of(result)
    assert report["reviewed"]["source"] == str(file.resolve())
    assert {match["segment"]: (match["organ"], match["reason"]) for match in report["reviewed"]["matches"]} == {
        "kidney_left": ("left_kidney", "name"),
        "spleen": ("spleen", "name"),
        "kidney_right": ("right_kidney", "name"),
    }
    assert report["provenance"]["organs"] == list(VALUES)
    warnings = " ".join(report["warnings"])
    assert "lung_upper_lobe_left" in warnings
    assert "Right kidney is absent." in warnings
    assert Report.from_json(report).to_json() == report


def test_only_covered_organs_are_in_the_report(
    workspace: Workspace, given: Volume, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_volume(given, tmp_path / "labels.nii.gz")
    names = ["--labels", "1=kidney_left,2=milz,3=x", "--match", "milz=Spleen"]
    assert main(arguments(workspace, tmp_path / "labels.nii.gz", tmp_path / "out", *names)) == 0
    report = report_of(tmp_path / "out")
    assert [organ["name"] for organ in report["organs"]] == ["spleen", "left_kidney"]
    assert [match["reason"] for match in report["reviewed"]["matches"]] == ["name", "given"]
    shown = capsys.readouterr()
    assert "milz" in shown.err + shown.out


def test_values_of_a_label_map_without_names_are_those_of_the_model_with_a_warning(
    workspace: Workspace, given: Volume, tmp_path: Path
) -> None:
    write_volume(given, tmp_path / "labels.nii.gz")
    assert main(arguments(workspace, tmp_path / "labels.nii.gz", tmp_path / "out")) == 0
    np.testing.assert_array_equal(labels_of(tmp_path / "out"), given.array)
    report = report_of(tmp_path / "out")
    assert {match["reason"] for match in report["reviewed"]["matches"]} == {"value"}
    assert any("names no segments" in warning for warning in report["warnings"])


def test_a_segmentation_of_slicer_is_matched_by_its_codes(workspace: Workspace, given: Volume, tmp_path: Path) -> None:
    pairs = segment_pairs(0, "a", 1, code="SCT^64033007^Kidney", modifier="SCT^7771000^Left")
    pairs |= segment_pairs(1, "b", 2, code="SCT^78961009^Spleen")
    path = write_seg_nrrd(tmp_path / "a.seg.nrrd", given.array, given.index_to_lps, pairs)
    assert main(arguments(workspace, path, tmp_path / "out")) == 0
    matches = report_of(tmp_path / "out")["reviewed"]["matches"]
    assert [(match["organ"], match["reason"]) for match in matches] == [("left_kidney", "code"), ("spleen", "code")]


@pytest.mark.parametrize("session", [True, False])
def test_a_correction_keeps_the_given_segmentation_outside_its_reach(
    result: Path, tmp_path: Path, session: bool
) -> None:
    scribbles = write_scribbles(result, tmp_path / "scribbles.nii.gz", of=SPLEEN, label=VALUES["right_kidney"], count=3)
    folder = result
    if not session:
        folder = tmp_path / "copy"
        folder.mkdir()
        for path in result.glob("*.*"):
            if path.name != "session.zip":
                (folder / path.name).write_bytes(path.read_bytes())
    corrected = correct(folder, scribbles, tmp_path / "corrected", "--alternatives")
    scribbled = read_volume(scribbles).array
    labels = labels_of(corrected)
    assert (labels[scribbled > 0] == scribbled[scribbled > 0] - 1).all()
    reviewed = read_volume(corrected / "reviewed.nii.gz").array
    assert not labels[(reviewed == 255) & (scribbled == 0)].any()
    report = report_of(corrected)
    assert report["reviewed"] == report_of(result)["reviewed"]
    assert report["corrections"][0]["changed_voxels"] == np.count_nonzero(labels != labels_of(result))
    again = write_scribbles(corrected, tmp_path / "again.nii.gz", of=VALUES["left_kidney"], label=0, count=1)
    assert len(report_of(correct(corrected, again, tmp_path / "twice"))["corrections"]) == 2


def test_a_report_can_be_written_of_a_review(workspace: Workspace, result: Path, tmp_path: Path) -> None:
    page = tmp_path / "report.html"
    assert main(["report", str(result), "--scan", str(workspace.scan), "-o", str(page)]) == 0
    text = page.read_text(encoding="utf-8")
    assert "Spleen" in text
    assert "a segmentation from another source" in text


@pytest.fixture(scope="module")
def series(workspace: Workspace) -> Path:
    """The scan as a DICOM series."""
    return write(slices(read_volume(workspace.scan)), workspace.folder / "series")


def test_a_dicom_seg_is_reviewed_corrected_and_exported(
    workspace: Workspace, series: Path, given: Volume, tmp_path: Path
) -> None:
    names = (
        SegmentName(name="Niere", code=KIDNEY, modifier=LEFT),
        SegmentName(name="spleen"),
        SegmentName(name="Herz"),
    )
    masks = [given.array == value for value in (1, 2, 3)]
    file = write_seg(tmp_path / "seg.dcm", series, masks, names)
    command = arguments(workspace, file, tmp_path / "out")
    assert main([command[0], str(series), *command[2:]]) == 0
    expected = np.select([given.array == 1, given.array == 2], [3, 1], 0)
    np.testing.assert_array_equal(labels_of(tmp_path / "out"), expected)
    record = report_of(tmp_path / "out")["reviewed"]
    assert [(match["organ"], match["reason"]) for match in record["matches"]] == [
        ("left_kidney", "code"),
        ("spleen", "name"),
    ]
    assert [other["name"] for other in record["unmatched"]] == ["Herz"]
    exported = tmp_path / "exported.dcm"
    assert main(["export-dicom", str(tmp_path / "out"), "--scan", str(series), "-o", str(exported)]) == 0
    segmentation = segread(exported)
    assert segmentation.number_of_segments == 2
    (algorithm,) = segmentation.get_segment_description(1).SegmentationAlgorithmIdentificationSequence
    assert algorithm.AlgorithmName == "Reviewed with tiny"
    scribbles = write_scribbles(tmp_path / "out", tmp_path / "scribbles.nii.gz", of=SPLEEN, label=0)
    correct(tmp_path / "out", scribbles, tmp_path / "corrected")


def test_a_label_map_of_a_crop_on_another_grid_is_resampled_and_the_rest_is_not_reviewed(
    workspace: Workspace, given: Volume, tmp_path: Path
) -> None:
    """Two voxels of the file on each voxel of the scan, in the upper three quarters of the scan."""
    first = given.array.shape[0] // 4
    matrix = given.index_to_lps.copy()
    matrix[:3, 0] /= 2
    matrix[:3, 3] += given.index_to_lps[:3, 2] * first - matrix[:3, 0] / 2
    crop = Volume(given.array[first:].repeat(2, axis=2), matrix)
    file = write_totalsegmentator(tmp_path / "crop.nii.gz", crop, NAMES)
    assert main(arguments(workspace, file, tmp_path / "out")) == 0
    segmentation = read_volume(tmp_path / "out" / "segmentation.nii.gz")
    np.testing.assert_array_equal(segmentation.array, np.select([given.array == 1, given.array == 2], [3, 1], 0))
    np.testing.assert_allclose(segmentation.index_to_lps, given.index_to_lps, atol=1e-4)
    report = report_of(tmp_path / "out")
    assert any("it was resampled" in warning for warning in report["warnings"])
    assert any("covers 7" in warning and "not reviewed" in warning for warning in report["warnings"])
    reviewed = read_volume(tmp_path / "out" / "reviewed.nii.gz").array
    not_covered = np.broadcast_to((np.arange(len(reviewed)) < first)[:, None, None], reviewed.shape)
    np.testing.assert_array_equal(reviewed == report["reviewed"]["not_covered"], not_covered)
    assert not read_volume(tmp_path / "out" / "uncertainty.nii.gz").array[: first - 2].any()
    scribbles = write_scribbles(tmp_path / "out", tmp_path / "scribbles.nii.gz", of=SPLEEN, label=0)
    again = correct(tmp_path / "out", scribbles, tmp_path / "corrected")
    assert report_of(again)["reviewed"] == report["reviewed"]


def moved(volume: Volume) -> Volume:
    matrix = volume.index_to_lps.copy()
    matrix[2, 3] += 5000
    return Volume(volume.array, matrix)


Change = Callable[[Volume], Volume]


def values(table: list[int]) -> Change:
    def change(volume: Volume) -> Volume:
        return Volume(np.array(table, dtype=np.uint8)[volume.array], volume.index_to_lps)

    return change


@pytest.mark.parametrize(
    ("change", "more", "code", "words"),
    [
        (moved, [], "GEOMETRY", "does not overlap the scan"),
        (values([0, 7, 8, 9]), [], "INPUT_VALUES", "its segments: label 7, label 8, label 9"),
        (values([0, 0, 0, 0]), ["--labels", "1=spleen"], "INPUT_VALUES", "empty"),
        (values([0, 0, 0, 0]), [], "INPUT_VALUES", "No segment"),
        (values([1, 1, 1, 1]), ["--labels", "1=spleen"], "INPUT_VALUES", "covers the whole scan"),
        (values([0, 1, 2, 3]), ["--labels", "1=heart"], "INPUT_VALUES", "its segments: heart, label 2, label 3"),
        (values([0, 1, 2, 3]), ["--labels", "none.json"], "OPTION", "holds no names"),
        (values([0, 1, 2, 3]), ["--match", "spleen"], "OPTION", "no match"),
        (values([0, 1, 2, 3]), ["--match", "Milz=Herz"], "OPTION", "'Herz'"),
        (values([0, 1, 2, 3]), ["--match", "Milz=spleen"], "OPTION", "no segment 'Milz'"),
        (values([0, 1, 0, 0]), ["--organs", "left kidney"], "OPTION", "no segment of the organ 'left kidney'"),
    ],
)
def test_what_does_not_fit_is_refused_in_one_line_and_nothing_is_written(
    workspace: Workspace,
    given: Volume,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    change: Change,
    more: list[str],
    code: str,
    words: str,
) -> None:
    write_volume(change(given), tmp_path / "labels.nii.gz")
    assert main(arguments(workspace, tmp_path / "labels.nii.gz", tmp_path / "out", "--quiet", *more)) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(code)
    assert words in line
    assert not (tmp_path / "out").exists()


def test_a_file_that_does_not_exist_is_refused(
    workspace: Workspace, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(arguments(workspace, tmp_path / "none.nii.gz", tmp_path / "out")) == 2
    assert capsys.readouterr().err.startswith("INPUT_MISSING")


def test_a_review_without_the_reviewed_labels_cannot_be_corrected(result: Path, tmp_path: Path) -> None:
    folder = tmp_path / "copy"
    folder.mkdir()
    for name in ("segmentation.nii.gz", "report.json"):
        (folder / name).write_bytes((result / name).read_bytes())
    scribbles = write_scribbles(result, tmp_path / "scribbles.nii.gz", of=SPLEEN, label=0)
    assert main(["correct", str(folder), "--corrections", str(scribbles), "-o", str(tmp_path / "out")]) == 2
    assert not (tmp_path / "out").exists()


def test_a_result_of_segment_has_no_entry_of_a_review(workspace: Workspace, tmp_path: Path) -> None:
    assert main(workspace.segment(output=tmp_path / "own")) == 0
    assert "reviewed" not in json.loads((tmp_path / "own" / "report.json").read_text(encoding="utf-8"))
    assert not (tmp_path / "own" / "reviewed.nii.gz").exists()
