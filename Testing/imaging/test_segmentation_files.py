"""Segmentations of other programs are read on the voxels of their scan, with the names and codes of their segments."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from DiffusionSegmentBackend.errors import DiffusionSegmentError, ErrorCode
from DiffusionSegmentBackend.imaging.segmentation_files import SegmentationFile, parse_names, read_segmentation
from DiffusionSegmentBackend.imaging.volume import Volume
from DiffusionSegmentBackend.imaging.volume_io import Scan, read_scan, write_volume
from DiffusionSegmentBackend.schema.model_manifest import CodedTerm
from DiffusionSegmentBackend.schema.segment_matching import SegmentName
from fixtures.dicom_files import ROOT, slices, small_ct, write
from fixtures.segmentation_files import segment_pairs, write_seg, write_seg_nrrd, write_totalsegmentator
from numpy.typing import NDArray

LIVER = CodedTerm(scheme="SCT", value="10200004", meaning="Liver")
KIDNEY = CodedTerm(scheme="SCT", value="64033007", meaning="Kidney")
LEFT = CodedTerm(scheme="SCT", value="7771000", meaning="Left")
CT = small_ct()
SCAN = Scan(CT)


@pytest.fixture
def labels() -> NDArray[np.uint8]:
    array = np.zeros(CT.array.shape, np.uint8)
    array[2:4, 3:6, 4:8] = 6
    array[5, 1:3, 2:4] = 1
    return array


def file_names(file: SegmentationFile) -> dict[int, str]:
    return {value: name.name for value, name in file.names.items()}


def test_values_of_a_label_map_without_names_are_segments(tmp_path: Path, labels: NDArray[np.uint8]) -> None:
    write_volume(Volume(labels, CT.index_to_lps), tmp_path / "a.nii.gz")
    file = read_segmentation(tmp_path / "a.nii.gz", SCAN)
    np.testing.assert_array_equal(file.labels, labels)
    assert not file.has_names
    assert file_names(file) == {1: "label 1", 6: "label 6"}


def test_names_are_those_in_the_header_of_a_file_of_totalsegmentator(tmp_path: Path, labels: NDArray[np.uint8]) -> None:
    names = {1: "spleen", 5: "liver", 6: "kidney_left"}
    path = write_totalsegmentator(tmp_path / "a.nii.gz", Volume(labels, CT.index_to_lps), names)
    file = read_segmentation(path, SCAN)
    np.testing.assert_array_equal(file.labels, labels)
    assert (file.has_names, file_names(file)) == (True, names)


def test_a_table_with_entities_is_not_read(tmp_path: Path, labels: NDArray[np.uint8]) -> None:
    volume, prolog = Volume(labels, CT.index_to_lps), '<!DOCTYPE CaretExtension [<!ENTITY b "ccc">]>'
    path = write_totalsegmentator(tmp_path / "a.nii.gz", volume, {1: "spleen &b;"}, prolog=prolog)
    assert not read_segmentation(path, SCAN).has_names


@pytest.mark.parametrize(
    "content",
    [
        {"labels": {"background": 0, "spleen": 1, "liver": 6}},
        {"labels": {"0": "background", "1": "spleen", "6": "liver"}},
    ],
)
def test_names_are_those_in_the_dataset_of_nnunet_beside_the_file(
    tmp_path: Path, labels: NDArray[np.uint8], content: object
) -> None:
    write_volume(Volume(labels, CT.index_to_lps), tmp_path / "a.nii.gz")
    (tmp_path / "dataset.json").write_text(json.dumps(content), encoding="utf-8")
    assert file_names(read_segmentation(tmp_path / "a.nii.gz", SCAN)) == {1: "spleen", 6: "liver"}


@pytest.mark.parametrize("content", ["", "[]", '{"labels": {"whole": [1, 2]}}', '{"labels": 5}'])
def test_a_dataset_that_cannot_be_understood_gives_no_names(
    tmp_path: Path, labels: NDArray[np.uint8], content: str
) -> None:
    write_volume(Volume(labels, CT.index_to_lps), tmp_path / "a.nii.gz")
    (tmp_path / "dataset.json").write_text(content, encoding="utf-8")
    assert not read_segmentation(tmp_path / "a.nii.gz", SCAN).has_names


def test_given_names_replace_all_others_and_a_value_without_one_is_a_segment_too(
    tmp_path: Path, labels: NDArray[np.uint8]
) -> None:
    path = write_totalsegmentator(tmp_path / "a.nii.gz", Volume(labels, CT.index_to_lps), {1: "a", 6: "b"})
    assert file_names(read_segmentation(path, SCAN, names={6: "liver"})) == {1: "label 1", 6: "liver"}


def test_segments_of_slicer_have_their_names_and_codes(tmp_path: Path, labels: NDArray[np.uint8]) -> None:
    """Each layer numbers its segments from 1."""
    layers = np.stack([labels == 6, labels == 1], axis=-1).astype(np.uint8)
    pairs = segment_pairs(0, "Leber", 1, code="SCT^10200004^Liver")
    pairs |= segment_pairs(1, "Niere", 1, layer=1, code="SCT^64033007^Kidney", modifier="SCT^7771000^Left")
    pairs |= segment_pairs(2, "Milz", 2, layer=1)
    file = read_segmentation(write_seg_nrrd(tmp_path / "a.seg.nrrd", layers, CT.index_to_lps, pairs), SCAN)
    assert file.names == {
        1: SegmentName(name="Leber", code=LIVER),
        2: SegmentName(name="Niere", code=KIDNEY, modifier=LEFT),
        3: SegmentName(name="Milz"),
    }
    np.testing.assert_array_equal(file.labels, np.where(labels == 6, 1, np.where(labels == 1, 2, 0)))


def test_overlapping_segments_of_slicer_are_refused_with_their_names(tmp_path: Path, labels: NDArray[np.uint8]) -> None:
    layers = np.stack([labels == 6, labels > 0], axis=-1).astype(np.uint8)
    pairs = segment_pairs(0, "liver", 1) | segment_pairs(1, "body", 1, layer=1)
    path = write_seg_nrrd(tmp_path / "a.seg.nrrd", layers, CT.index_to_lps, pairs)
    with pytest.raises(DiffusionSegmentError, match=r"'liver' and 'body' .* overlap: 24 voxels") as caught:
        read_segmentation(path, SCAN)
    assert caught.value.code is ErrorCode.INPUT_VALUES


@pytest.fixture
def series(tmp_path: Path) -> Path:
    return write(slices(CT), tmp_path / "series")


NAMES = (SegmentName(name="Leber", code=LIVER), SegmentName(name="Niere", code=KIDNEY, modifier=LEFT))


def test_segments_of_a_dicom_seg_have_their_names_and_codes(
    tmp_path: Path, series: Path, labels: NDArray[np.uint8]
) -> None:
    """Slices without a voxel are not in the file, and its slices may be those of a cropped scan."""
    path = write_seg(tmp_path / "seg.dcm", series, [labels == 6, labels == 1], NAMES)
    for scan in (SCAN, read_scan(series)):
        file = read_segmentation(path, scan)
        assert file.names == dict(enumerate(NAMES, start=1))
        np.testing.assert_array_equal(file.labels, np.where(labels == 6, 1, np.where(labels == 1, 2, 0)))


def test_overlapping_segments_of_a_dicom_seg_are_refused_with_their_names(
    tmp_path: Path, series: Path, labels: NDArray[np.uint8]
) -> None:
    path = write_seg(tmp_path / "seg.dcm", series, [labels == 6, labels > 0], NAMES)
    with pytest.raises(DiffusionSegmentError, match=r"'Leber' and 'Niere' .* overlap: 24 voxels"):
        read_segmentation(path, SCAN)


@pytest.mark.parametrize(
    ("tag", "value", "words"),
    [("PatientID", "P2", "another patient"), ("FrameOfReferenceUID", f"{ROOT}77", "another frame of reference")],
)
def test_a_dicom_seg_of_another_patient_is_refused_unless_forced(
    tmp_path: Path, series: Path, labels: NDArray[np.uint8], tag: str, value: str, words: str
) -> None:
    path = write_seg(tmp_path / "seg.dcm", series, [labels == 6, labels == 1], NAMES, **{tag: value})
    scan = read_scan(series)
    with pytest.raises(DiffusionSegmentError, match=words) as caught:
        read_segmentation(path, scan)
    assert caught.value.code is ErrorCode.GEOMETRY
    assert "P2" not in str(caught.value)
    assert read_segmentation(path, scan, force=True).labels.any()


def test_a_dicom_file_that_is_no_segmentation_is_refused(series: Path) -> None:
    with pytest.raises(DiffusionSegmentError, match="no segmentation") as caught:
        read_segmentation(next(series.iterdir()), SCAN)
    assert caught.value.code is ErrorCode.INPUT_UNREADABLE


def test_a_damaged_dicom_seg_is_refused(tmp_path: Path, series: Path, labels: NDArray[np.uint8]) -> None:
    path = write_seg(tmp_path / "seg.dcm", series, [labels == 6, labels == 1], NAMES)
    path.write_bytes(path.read_bytes()[:-200])
    with pytest.raises(DiffusionSegmentError) as caught:
        read_segmentation(path, SCAN)
    assert caught.value.code is ErrorCode.INPUT_UNREADABLE


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_a_segmentation_on_other_voxels_is_resampled_with_a_note(
    tmp_path: Path, labels: NDArray[np.uint8], axis: int
) -> None:
    """The labels on voxels of half the size, from the same outer edge of the first voxel."""
    matrix = CT.index_to_lps.copy()
    matrix[:3, 2 - axis] /= 2
    matrix[:3, 3] -= matrix[:3, 2 - axis] / 2
    write_volume(Volume(labels.repeat(2, axis=axis), matrix), tmp_path / "a.nii.gz")
    file = read_segmentation(tmp_path / "a.nii.gz", SCAN)
    np.testing.assert_array_equal(file.labels, labels)
    assert file.covered is None
    (note,) = file.notes
    assert note.startswith("The segmentation a.nii.gz has voxels of")


def test_a_dicom_seg_on_other_slices_is_resampled_and_its_rest_is_background(
    tmp_path: Path, series: Path, labels: NDArray[np.uint8]
) -> None:
    path = write_seg(tmp_path / "seg.dcm", series, [labels == 6, labels == 1], NAMES)
    matrix = CT.index_to_lps.copy()
    matrix[:3, 2] *= 2
    matrix[:3, 3] += CT.index_to_lps[:3, 2] / 2
    file = read_segmentation(path, Scan(Volume(CT.array[::2], matrix)))
    assert file.covered is None
    assert (file.labels == 1).any()
    assert file.labels.shape == CT.array[::2].shape
    assert "resampled" in file.notes[0]


def test_a_segmentation_beside_the_scan_is_refused(tmp_path: Path, labels: NDArray[np.uint8]) -> None:
    matrix = CT.index_to_lps.copy()
    matrix[2, 3] += 1000
    write_volume(Volume(labels, matrix), tmp_path / "a.nii.gz")
    with pytest.raises(DiffusionSegmentError, match="does not overlap the scan") as caught:
        read_segmentation(tmp_path / "a.nii.gz", SCAN)
    assert caught.value.code is ErrorCode.GEOMETRY


def test_names_for_a_file_that_has_its_own_are_refused(tmp_path: Path, labels: NDArray[np.uint8]) -> None:
    path = write_seg_nrrd(tmp_path / "a.seg.nrrd", labels, CT.index_to_lps, segment_pairs(0, "liver", 6))
    with pytest.raises(DiffusionSegmentError, match="--match") as caught:
        read_segmentation(path, SCAN, names={1: "liver"})
    assert caught.value.code is ErrorCode.OPTION


def test_names_from_the_command_line_or_a_file(tmp_path: Path) -> None:
    assert parse_names("1=spleen, 2 = left kidney,") == {1: "spleen", 2: "left kidney"}
    path = tmp_path / "names.json"
    path.write_text('{"1": "spleen"}', encoding="utf-8")
    assert parse_names(str(path)) == {1: "spleen"}
    for text in ("x=spleen", "300=spleen", str(tmp_path / "none.json"), "spleen"):
        with pytest.raises(DiffusionSegmentError) as caught:
            parse_names(text)
        assert caught.value.code is ErrorCode.OPTION
