"""DICOM SEG there and back: every organ keeps its voxels, name, code and colour, however the series was stored."""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import pytest
import real_data
from DiffusionSegmentBackend.cli.main import main
from DiffusionSegmentBackend.errors import DiffusionSegmentError, ErrorCode
from DiffusionSegmentBackend.imaging.volume import Volume
from DiffusionSegmentBackend.imaging.volume_io import read_volume, write_volume
from DiffusionSegmentBackend.models.model import find_model
from DiffusionSegmentBackend.reporting.case import read_case
from DiffusionSegmentBackend.reporting.dicom_seg import write_dicom_seg
from DiffusionSegmentBackend.reporting.dicom_seg_reader import CodedTerm, read_dicom_seg
from DiffusionSegmentBackend.schema.output_kinds import REPORT, SEGMENTATION, UNCERTAINTY
from pydicom.dataset import FileDataset, FileMetaDataset
from pydicom.pixels import pack_bits
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian, generate_uid
from scipy.spatial.transform import Rotation

DATA = real_data.folder()
TURNS = {
    "axial": (np.eye(3), (0, 1, 2)),
    "sagittal": (np.eye(3), (1, 2, 0)),
    "coronal, top first": (np.diag([1.0, -1.0, -1.0]), (2, 0, 1)),
    "oblique": (Rotation.from_euler("xyz", (12, -7, 30), degrees=True).as_matrix(), (0, 1, 2)),
}


def write_series(folder: Path, volume: Volume, *, without: tuple[str, ...] = ()) -> Path:
    """A CT series with one file a slice, file names and instance numbers in no order; `without` leaves tags out."""
    folder.mkdir()
    names = list(range(len(volume.array)))
    random.Random(0).shuffle(names)
    study, series, frame_of_reference = (generate_uid() for _ in range(3))
    axes = volume.index_to_lps[:3, :3] / volume.spacing
    for k, (name, pixels) in enumerate(zip(names, volume.array.astype(np.int16), strict=True)):
        meta = FileMetaDataset()
        meta.MediaStorageSOPClassUID, meta.MediaStorageSOPInstanceUID = CTImageStorage, generate_uid()
        meta.TransferSyntaxUID = ExplicitVRLittleEndian
        image = FileDataset(str(folder / f"{name:03d}.dcm"), {}, file_meta=meta, preamble=b"\0" * 128)
        image.SOPClassUID, image.SOPInstanceUID = CTImageStorage, meta.MediaStorageSOPInstanceUID
        image.StudyInstanceUID, image.SeriesInstanceUID, image.FrameOfReferenceUID = study, series, frame_of_reference
        image.Modality, image.PatientName, image.PatientID, image.InstanceNumber = "CT", "Phantom^A", "P1", name + 1
        image.ImagePositionPatient = [f"{v:.6f}" for v in volume.index_to_lps[:3] @ (0, 0, k, 1)]
        image.ImageOrientationPatient = [f"{v:.9f}" for v in (*axes[:, 0], *axes[:, 1])]
        image.PixelSpacing = [float(volume.spacing[1]), float(volume.spacing[0])]
        image.SliceThickness = float(volume.spacing[2])
        image.Rows, image.Columns = pixels.shape
        image.SamplesPerPixel, image.PhotometricInterpretation = 1, "MONOCHROME2"
        image.BitsAllocated, image.BitsStored, image.HighBit, image.PixelRepresentation = 16, 16, 15, 1
        image.RescaleIntercept, image.RescaleSlope = 0, 1
        image.PixelData = np.ascontiguousarray(pixels).tobytes()
        for tag in without:
            delattr(image, tag)
        image.save_as(folder / f"{name:03d}.dcm", enforce_file_format=True)
    return folder


def turned(volume: Volume, turn: str) -> Volume:
    """The volume with its axes in another order, lying otherwise in space; right-handed, as DICOM stacks slices."""
    rotation, axes = TURNS[turn]
    matrix = np.eye(4)
    matrix[:3, :3] = rotation @ volume.index_to_lps[:3, axes]
    matrix[:3, 3] = rotation @ volume.index_to_lps[:3, 3]
    return Volume(volume.array.transpose([2 - axes[2 - n] for n in range(3)]), matrix)


@pytest.fixture
def stored(result: Path, scan: Volume, tmp_path: Path) -> Callable[..., Path]:
    """Store the scan as a DICOM series, and the result in its geometry."""

    def store(turn: str = "axial", **options: Any) -> Path:
        if turn != "axial":
            for name in (SEGMENTATION, UNCERTAINTY):
                write_volume(turned(read_volume(result / name), turn), result / name)
        return write_series(tmp_path / "series", turned(scan, turn), **options)

    return store


def values_of(folder: Path) -> dict[str, int]:
    return {organ.name: organ.value for organ in read_case(folder).organs}


def relabel(folder: Path, change: Callable[[np.ndarray], np.ndarray]) -> None:
    labels = read_volume(folder / SEGMENTATION)
    write_volume(Volume(change(labels.array).astype(np.uint8), labels.index_to_lps), folder / SEGMENTATION)


@pytest.mark.parametrize("turn", TURNS)
def test_there_and_back_in_any_orientation(
    stored: Callable[..., Path], result: Path, tmp_path: Path, turn: str
) -> None:
    series = stored(turn)
    write_dicom_seg(result, tmp_path / "seg.dcm", scan=series)
    scan = read_volume(series)
    again = read_dicom_seg(tmp_path / "seg.dcm", scan=scan)
    np.testing.assert_array_equal(again.with_values(values_of(result)), read_volume(result / SEGMENTATION).array)
    np.testing.assert_allclose(again.labels.index_to_lps, scan.index_to_lps, atol=1e-4)


def test_every_organ_keeps_its_name_code_side_and_colour(
    stored: Callable[..., Path], result: Path, tmp_path: Path
) -> None:
    write_dicom_seg(result, tmp_path / "seg.dcm", scan=stored())
    labels = json.loads((find_model("abdomen-ct") / "model.json").read_text(encoding="utf-8"))["labels"]
    found = set(np.unique(read_volume(result / SEGMENTATION).array)) - {0}
    segments = read_dicom_seg(tmp_path / "seg.dcm").segments
    expected = [label for label in labels if label["value"] in found]
    assert len(segments) == len(expected) > 8
    for number, (segment, label) in enumerate(zip(segments, expected, strict=True), start=1):
        assert (segment.number, segment.name, segment.title) == (number, label["name"], label["title"])
        assert segment.category == CodedTerm(**label["category"])
        assert segment.code == CodedTerm(**label["code"])
        assert segment.modifier == (CodedTerm(**label["modifier"]) if "modifier" in label else None)
        assert segment.colour is not None
        assert np.abs(np.array(segment.colour) - label["colour"]).max() <= 1


def test_only_organs_found_become_segments(stored: Callable[..., Path], result: Path, tmp_path: Path) -> None:
    series = stored()
    relabel(result, lambda labels: np.where(np.isin(labels, (6, 8)), labels, 0))
    write_dicom_seg(result, tmp_path / "seg.dcm", scan=series)
    again = read_dicom_seg(tmp_path / "seg.dcm", scan=read_volume(series))
    assert [(segment.number, segment.name) for segment in again.segments] == [(1, "liver"), (2, "aorta")]
    np.testing.assert_array_equal(again.with_values(values_of(result)), read_volume(result / SEGMENTATION).array)


def test_one_organ_alone(stored: Callable[..., Path], result: Path, tmp_path: Path) -> None:
    """A single segment's number is stored once for all frames."""
    series = stored()
    relabel(result, lambda labels: np.where(labels == 6, 6, 0))
    write_dicom_seg(result, tmp_path / "seg.dcm", scan=series)
    again = read_dicom_seg(tmp_path / "seg.dcm", scan=read_volume(series))
    np.testing.assert_array_equal(again.with_values({"liver": 6}), read_volume(result / SEGMENTATION).array)


def test_frames_in_any_order_give_the_same_labels(stored: Callable[..., Path], result: Path, tmp_path: Path) -> None:
    series = stored()
    write_dicom_seg(result, tmp_path / "seg.dcm", scan=series)
    file = pydicom.dcmread(tmp_path / "seg.dcm")
    order = np.random.default_rng(0).permutation(int(file.NumberOfFrames))
    file.PixelData = pack_bits(file.pixel_array[order])
    file.PerFrameFunctionalGroupsSequence = [file.PerFrameFunctionalGroupsSequence[n] for n in order]
    file.save_as(tmp_path / "shuffled.dcm")
    plain, shuffled = (
        read_dicom_seg(tmp_path / name, scan=read_volume(series)) for name in ("seg.dcm", "shuffled.dcm")
    )
    np.testing.assert_array_equal(plain.labels.array, shuffled.labels.array)
    np.testing.assert_array_equal(
        read_dicom_seg(tmp_path / "shuffled.dcm").labels.array, read_dicom_seg(tmp_path / "seg.dcm").labels.array
    )


def test_a_scan_with_its_slices_the_other_way_round_takes_the_labels(
    stored: Callable[..., Path], result: Path, tmp_path: Path
) -> None:
    series = stored()
    write_dicom_seg(result, tmp_path / "seg.dcm", scan=series)
    scan = read_volume(series)
    flip = np.diag([1.0, 1.0, -1.0, 1.0])
    flip[2, 3] = len(scan.array) - 1
    again = read_dicom_seg(tmp_path / "seg.dcm", scan=Volume(scan.array[::-1], scan.index_to_lps @ flip))
    np.testing.assert_array_equal(again.with_values(values_of(result))[::-1], read_volume(result / SEGMENTATION).array)


def test_without_the_scan_the_labels_reach_from_first_to_last_slice(
    stored: Callable[..., Path], result: Path, tmp_path: Path
) -> None:
    series = stored("oblique")
    relabel(result, lambda labels: np.where(np.isin(np.arange(len(labels)), (24, 26, 34))[:, None, None], labels, 0))
    write_dicom_seg(result, tmp_path / "seg.dcm", scan=series)
    alone = read_dicom_seg(tmp_path / "seg.dcm").labels
    whole = read_dicom_seg(tmp_path / "seg.dcm", scan=read_volume(series)).labels
    first, *_, last = np.flatnonzero(whole.array.any(axis=(1, 2)))
    assert (first, last) == (24, 34)
    assert len(np.unique(alone.array)) > 3
    np.testing.assert_array_equal(alone.array, whole.array[first : last + 1])
    np.testing.assert_allclose(alone.index_to_lps[:3, 3], whole.index_to_lps[:3] @ (0, 0, first, 1), atol=1e-3)


def test_each_frame_names_the_image_that_it_lies_on(stored: Callable[..., Path], result: Path, tmp_path: Path) -> None:
    series = stored()
    images = {image.SOPInstanceUID: image for image in map(pydicom.dcmread, series.iterdir())}
    write_dicom_seg(result, tmp_path / "seg.dcm", scan=series)
    again = read_dicom_seg(tmp_path / "seg.dcm")
    assert set(again.image_uids) == set(images)
    assert {again.series_uid} == {image.SeriesInstanceUID for image in images.values()}
    file = pydicom.dcmread(tmp_path / "seg.dcm")
    first = next(iter(images.values()))
    for name in ("StudyInstanceUID", "FrameOfReferenceUID", "PatientID", "PatientName"):
        assert file[name].value == first[name].value
    assert (file.Modality, file.SegmentationType) == ("SEG", "BINARY")
    for frame in file.PerFrameFunctionalGroupsSequence:
        named = frame.DerivationImageSequence[0].SourceImageSequence[0].ReferencedSOPInstanceUID
        position = frame.PlanePositionSequence[0].ImagePositionPatient
        np.testing.assert_allclose(position, images[named].ImagePositionPatient)


def test_the_algorithm_is_named_as_in_the_provenance(stored: Callable[..., Path], result: Path, tmp_path: Path) -> None:
    write_dicom_seg(result, tmp_path / "seg.dcm", scan=stored())
    provenance = read_case(result).provenance
    for segment in pydicom.dcmread(tmp_path / "seg.dcm").SegmentSequence:
        algorithm = segment.SegmentationAlgorithmIdentificationSequence[0]
        assert segment.SegmentAlgorithmType == "AUTOMATIC"
        assert algorithm.AlgorithmName == provenance["model"]
        assert algorithm.AlgorithmVersion == provenance["version"]
        assert algorithm.AlgorithmSource == provenance["software"]
        assert f"seed={provenance['seed']}" in algorithm.AlgorithmParameters
        assert provenance["sha256"] in algorithm.AlgorithmParameters


def test_tracking_uids_stay_from_export_to_export(stored: Callable[..., Path], result: Path, tmp_path: Path) -> None:
    series = stored()
    for name in ("first.dcm", "second.dcm"):
        write_dicom_seg(result, tmp_path / name, scan=series)
    first, second = (read_dicom_seg(tmp_path / name) for name in ("first.dcm", "second.dcm"))
    uids = [segment.tracking_uid for segment in first.segments]
    assert uids == [segment.tracking_uid for segment in second.segments]
    assert len(set(uids)) == len(uids)
    assert len({pydicom.dcmread(tmp_path / name).SOPInstanceUID for name in ("first.dcm", "second.dcm")}) == 2


def test_an_old_series_without_what_may_be_empty_is_welcome(
    stored: Callable[..., Path], result: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    write_dicom_seg(result, tmp_path / "seg.dcm", scan=stored(without=("PatientName", "PatientID", "SliceThickness")))
    assert read_dicom_seg(tmp_path / "seg.dcm").segments
    assert capfd.readouterr().err == ""


def no_folder(series: Path, result: Path) -> Path:
    return series / "none"


def a_nifti_file(series: Path, result: Path) -> Path:
    return result / UNCERTAINTY


def no_dicom_inside(series: Path, result: Path) -> Path:
    return result


def a_slice_short(series: Path, result: Path) -> Path:
    """The topmost slice goes, so that the distances stay even."""
    top = max(series.iterdir(), key=lambda path: pydicom.dcmread(path).ImagePositionPatient[2])
    top.unlink()
    return series


def multi_frame(series: Path, result: Path) -> Path:
    file, *others = sorted(series.iterdir())
    for other in others:
        other.unlink()
    image = pydicom.dcmread(file)
    image.NumberOfFrames, image.PixelData = 3, image.PixelData * 3
    image.save_as(file)
    return series


def no_frame_of_reference(series: Path, result: Path) -> Path:
    for file in series.iterdir():
        image = pydicom.dcmread(file)
        del image.FrameOfReferenceUID
        image.save_as(file)
    return series


def nothing_found(series: Path, result: Path) -> Path:
    relabel(result, np.zeros_like)
    return series


def a_label_without_name(series: Path, result: Path) -> Path:
    relabel(result, lambda labels: np.where(labels == 6, 77, labels))
    return series


def an_unfinished_result(series: Path, result: Path) -> Path:
    (result / REPORT).unlink()
    return series


def another_model(series: Path, result: Path) -> Path:
    report = json.loads((result / REPORT).read_text(encoding="utf-8"))
    report["provenance"]["model"] = "not-installed-here"
    (result / REPORT).write_text(json.dumps(report), encoding="utf-8")
    return series


BAD = [
    (no_folder, ErrorCode.INPUT_MISSING, "not a DICOM folder"),
    (a_nifti_file, ErrorCode.INPUT_UNREADABLE, "not a DICOM folder"),
    (no_dicom_inside, ErrorCode.INPUT_UNREADABLE, "no DICOM images"),
    (a_slice_short, ErrorCode.GEOMETRY, "differ in geometry"),
    (multi_frame, ErrorCode.INPUT_UNREADABLE, "3 frames without a position"),
    (no_frame_of_reference, ErrorCode.INPUT_UNREADABLE, "lacks FrameOfReferenceUID"),
    (nothing_found, ErrorCode.INPUT_VALUES, "empty"),
    (a_label_without_name, ErrorCode.INPUT_VALUES, "label 77"),
    (an_unfinished_result, ErrorCode.INPUT_MISSING, "not a finished result"),
    (another_model, ErrorCode.MODEL_UNKNOWN, "not installed"),
]


@pytest.mark.parametrize(("spoil", "code", "words"), BAD, ids=[spoil.__name__ for spoil, _, _ in BAD])
def test_bad_input_gets_one_clear_line_and_the_older_file_stays(
    stored: Callable[..., Path],
    result: Path,
    tmp_path: Path,
    capfd: pytest.CaptureFixture[str],
    spoil: Callable[[Path, Path], Path],
    code: ErrorCode,
    words: str,
) -> None:
    (tmp_path / "seg.dcm").write_text("older", encoding="utf-8")
    scan = spoil(stored(), result)
    status = main(["export-dicom", str(result), "--scan", str(scan), "-o", str(tmp_path / "seg.dcm")])
    assert status == (3 if code is ErrorCode.MODEL_UNKNOWN else 2)
    out, err = capfd.readouterr()
    (line,) = err.strip().splitlines()
    assert out == ""
    assert line.startswith(f"{code.value}: ")
    assert words in line
    assert (tmp_path / "seg.dcm").read_text(encoding="utf-8") == "older"
    assert not [path for path in tmp_path.iterdir() if path.name.startswith(".")]


def test_a_full_disk_leaves_the_older_file(
    stored: Callable[..., Path], result: Path, tmp_path: Path, small_files_only: Callable[[], None]
) -> None:
    series = stored()
    (tmp_path / "seg.dcm").write_text("older", encoding="utf-8")
    small_files_only()
    with pytest.raises(DiffusionSegmentError, match="disk is full"):
        write_dicom_seg(result, tmp_path / "seg.dcm", scan=series)
    assert (tmp_path / "seg.dcm").read_text(encoding="utf-8") == "older"


def test_a_file_that_is_no_segmentation_is_refused(stored: Callable[..., Path], result: Path, tmp_path: Path) -> None:
    series = stored()
    write_dicom_seg(result, tmp_path / "seg.dcm", scan=series)
    data = (tmp_path / "seg.dcm").read_bytes()
    (tmp_path / "cut.dcm").write_bytes(data[: len(data) // 2])
    (tmp_path / "text.dcm").write_text("no DICOM", encoding="utf-8")
    for path in (tmp_path / "cut.dcm", tmp_path / "text.dcm", next(series.iterdir())):
        with pytest.raises(DiffusionSegmentError) as caught:
            read_dicom_seg(path)
        assert caught.value.code is ErrorCode.INPUT_UNREADABLE
    with pytest.raises(DiffusionSegmentError) as caught:
        read_dicom_seg(tmp_path / "none.dcm")
    assert caught.value.code is ErrorCode.INPUT_MISSING


def test_another_scan_or_a_model_without_the_organ_is_refused(
    stored: Callable[..., Path], result: Path, tmp_path: Path
) -> None:
    series = stored()
    write_dicom_seg(result, tmp_path / "seg.dcm", scan=series)
    scan = read_volume(series)
    shift = np.array([[0, 0, 0, 0], [0, 0, 0, 0], [0, 0, 0, 1.5], [0.0] * 4])
    for other in (Volume(scan.array, scan.index_to_lps + shift), Volume(scan.array[:, 1:], scan.index_to_lps)):
        with pytest.raises(DiffusionSegmentError, match="differ in geometry"):
            read_dicom_seg(tmp_path / "seg.dcm", scan=other)
    with pytest.raises(DiffusionSegmentError, match="none of the model's organs"):
        read_dicom_seg(tmp_path / "seg.dcm").with_values({"liver": 6})


def test_overlapping_segments_are_refused(stored: Callable[..., Path], result: Path, tmp_path: Path) -> None:
    write_dicom_seg(result, tmp_path / "seg.dcm", scan=stored())
    file = pydicom.dcmread(tmp_path / "seg.dcm")
    file.PixelData = pack_bits(np.ones_like(file.pixel_array))
    file.save_as(tmp_path / "seg.dcm")
    with pytest.raises(DiffusionSegmentError, match="overlap") as caught:
        read_dicom_seg(tmp_path / "seg.dcm")
    assert caught.value.code is ErrorCode.INPUT_VALUES


@pytest.mark.skipif(DATA is None, reason="no real data on this machine; the written series stands in")
def test_a_hospital_series_is_referred_to_slice_by_slice(
    result: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    assert DATA is not None
    series = DATA / "unlabelled_ct" / "crlm_ct_1004_dicom"
    scan = read_volume(series)
    labels = np.where(scan.array > 250, 1, np.where(scan.array > 140, 8, 0)).astype(np.uint8)
    write_volume(Volume(labels, scan.index_to_lps), result / SEGMENTATION)
    write_volume(Volume(np.zeros(labels.shape, np.float32), scan.index_to_lps), result / UNCERTAINTY)
    write_dicom_seg(result, tmp_path / "seg.dcm", scan=series)
    again = read_dicom_seg(tmp_path / "seg.dcm", scan=scan)
    np.testing.assert_array_equal(again.with_values(values_of(result)), labels)
    assert capfd.readouterr().err == ""
