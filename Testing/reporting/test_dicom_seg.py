"""DICOM SEG written and read: every organ keeps voxels, name, code and colour in any orientation of the series."""

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
from DiffusionSegmentBackend.schema.output_kinds import REPORT, SEGMENTATION, UNCERTAINTY
from fixtures.dicom_seg import labels_on_scan, segment_name
from highdicom.color import CIELabColor
from highdicom.seg import segread
from highdicom.sr import CodedConcept
from pydicom.dataset import FileDataset, FileMetaDataset
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
    """A CT series with one file a slice, file names and instance numbers in random order; `without` leaves tags out."""
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
    """The volume with its axes in another order and direction; right-handed, as DICOM stacks slices."""
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
def test_labels_are_unchanged_in_any_orientation(
    stored: Callable[..., Path], result: Path, tmp_path: Path, turn: str
) -> None:
    series = stored(turn)
    write_dicom_seg(result, tmp_path / "seg.dcm", scan=series)
    labels = labels_on_scan(tmp_path / "seg.dcm", series, values_of(result))
    np.testing.assert_array_equal(labels, read_volume(result / SEGMENTATION).array)
    # highdicom lists slices against the normal.
    stored_slices = segread(tmp_path / "seg.dcm").get_volume(combine_segments=True).flip_spatial(0)
    scan = read_volume(series)
    first = int(np.flatnonzero(labels.any(axis=(1, 2)))[0])
    np.testing.assert_allclose(stored_slices.affine[:3, 2::-1], scan.index_to_lps[:3, :3], atol=1e-4)
    np.testing.assert_allclose(stored_slices.affine[:3, 3], scan.index_to_lps[:3] @ (0, 0, first, 1), atol=1e-3)


def test_every_organ_keeps_its_name_code_side_and_colour(
    stored: Callable[..., Path], result: Path, tmp_path: Path
) -> None:
    write_dicom_seg(result, tmp_path / "seg.dcm", scan=stored())
    labels = json.loads((find_model("abdomen-ct") / "model.json").read_text(encoding="utf-8"))["labels"]
    present = set(np.unique(read_volume(result / SEGMENTATION).array)) - {0}
    segmentation = segread(tmp_path / "seg.dcm")
    expected = [label for label in labels if label["value"] in present]
    assert segmentation.number_of_segments == len(expected) > 8
    for number, label in enumerate(expected, start=1):
        segment = segmentation.get_segment_description(number)
        assert (segment_name(segmentation, number), segment.segment_label) == (label["name"], label["title"])
        assert segment.segmented_property_category == concept(label["category"])
        assert segment.segmented_property_type == concept(label["code"])
        modifiers = segment.segmented_property_type.get("SegmentedPropertyTypeModifierCodeSequence", [])
        assert [CodedConcept.from_dataset(item) for item in modifiers] == [
            concept(label[key]) for key in ("modifier",) if key in label
        ]
        colour = CIELabColor.from_dicom_value(tuple(segment.RecommendedDisplayCIELabValue)).to_rgb()
        assert np.abs(np.array(colour) - label["colour"]).max() <= 1


def concept(term: dict[str, str]) -> CodedConcept:
    return CodedConcept(term["value"], term["scheme"], term["meaning"])


def test_only_organs_with_voxels_become_segments(stored: Callable[..., Path], result: Path, tmp_path: Path) -> None:
    series = stored()
    relabel(result, lambda labels: np.where(np.isin(labels, (6, 8)), labels, 0))
    write_dicom_seg(result, tmp_path / "seg.dcm", scan=series)
    segmentation = segread(tmp_path / "seg.dcm")
    assert [segment_name(segmentation, number) for number in segmentation.segment_numbers] == ["liver", "aorta"]
    labels = labels_on_scan(tmp_path / "seg.dcm", series, values_of(result))
    np.testing.assert_array_equal(labels, read_volume(result / SEGMENTATION).array)


def test_a_single_organ(stored: Callable[..., Path], result: Path, tmp_path: Path) -> None:
    """A single segment's number is stored once for all frames."""
    series = stored()
    relabel(result, lambda labels: np.where(labels == 6, 6, 0))
    write_dicom_seg(result, tmp_path / "seg.dcm", scan=series)
    labels = labels_on_scan(tmp_path / "seg.dcm", series, {"liver": 6})
    np.testing.assert_array_equal(labels, read_volume(result / SEGMENTATION).array)


def test_each_frame_references_the_image_at_its_position(
    stored: Callable[..., Path], result: Path, tmp_path: Path
) -> None:
    series = stored()
    images = {image.SOPInstanceUID: image for image in map(pydicom.dcmread, series.iterdir())}
    write_dicom_seg(result, tmp_path / "seg.dcm", scan=series)
    (referenced,) = pydicom.dcmread(tmp_path / "seg.dcm").ReferencedSeriesSequence
    assert {item.ReferencedSOPInstanceUID for item in referenced.ReferencedInstanceSequence} == set(images)
    assert {referenced.SeriesInstanceUID} == {image.SeriesInstanceUID for image in images.values()}
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
    provenance = read_case(result).provenance.to_json()
    for segment in pydicom.dcmread(tmp_path / "seg.dcm").SegmentSequence:
        algorithm = segment.SegmentationAlgorithmIdentificationSequence[0]
        assert segment.SegmentAlgorithmType == "AUTOMATIC"
        assert algorithm.AlgorithmName == provenance["model"]
        assert algorithm.AlgorithmVersion == provenance["version"]
        assert algorithm.AlgorithmSource == provenance["software"]
        assert f"seed={provenance['seed']}" in algorithm.AlgorithmParameters
        assert provenance["sha256"] in algorithm.AlgorithmParameters


def test_the_object_contains_no_local_path(stored: Callable[..., Path], result: Path, tmp_path: Path) -> None:
    report = json.loads((result / REPORT).read_text(encoding="utf-8"))
    model_folder = Path(str(find_model("abdomen-ct")))
    report["provenance"] |= {
        "input": "/archive/SURNAME/ct.nii.gz",
        "model_folder": str(model_folder),
        "presegmentation": "/archive/SURNAME/labels.nii.gz",
        "series": "Thorax",
        "series_uid": "1.2.3",
    }
    (result / REPORT).write_text(json.dumps(report), encoding="utf-8")
    stored()
    series = str(pydicom.dcmread(next((tmp_path / "series").iterdir())).SeriesInstanceUID)
    write_dicom_seg(result, tmp_path / "seg.dcm", scan=tmp_path / "series", series=series)
    data = (tmp_path / "seg.dcm").read_bytes()
    for path in ("SURNAME", str(model_folder)):
        assert path.encode() not in data
    assert b"series=Thorax" in data
    assert b"series_uid=1.2.3" in data


def exported(result: Path, series: Path, output: Path) -> FileDataset:
    write_dicom_seg(result, output, scan=series)
    return pydicom.dcmread(output)


def test_repeated_exports_are_the_same_object(stored: Callable[..., Path], result: Path, tmp_path: Path) -> None:
    series = stored()
    first, second = (exported(result, series, tmp_path / name) for name in ("first.dcm", "second.dcm"))
    for segmentation in (first, second):
        for name in ("ContentDate", "ContentTime", "InstanceCreationDate", "InstanceCreationTime"):
            segmentation.pop(name, None)
        del segmentation.ContributingEquipmentSequence[0].ContributionDateTime
    assert first.SOPInstanceUID.startswith("2.25.")
    assert first == second
    uids = segread(tmp_path / "first.dcm").get_tracking_ids()
    assert len(set(uids)) == len(uids)


def test_another_result_is_another_object(stored: Callable[..., Path], result: Path, tmp_path: Path) -> None:
    series = stored()
    objects = [exported(result, series, tmp_path / "before.dcm")]
    relabel(result, lambda labels: np.where(np.arange(labels.size).reshape(labels.shape) == labels.argmax(), 0, labels))
    objects.append(exported(result, series, tmp_path / "edited.dcm"))
    report = json.loads((result / REPORT).read_text(encoding="utf-8"))
    for change in ({"seed": 6}, {"sha256": "0" * 64}):
        changed = {**report, "provenance": {**report["provenance"], **change}}
        (result / REPORT).write_text(json.dumps(changed), encoding="utf-8")
        objects.append(exported(result, series, tmp_path / "changed.dcm"))
    for name in ("SOPInstanceUID", "SeriesInstanceUID"):
        assert len({str(one[name].value) for one in objects}) == len(objects)


def test_a_series_without_optional_attributes_is_accepted(
    stored: Callable[..., Path], result: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    write_dicom_seg(result, tmp_path / "seg.dcm", scan=stored(without=("PatientName", "PatientID", "SliceThickness")))
    assert segread(tmp_path / "seg.dcm").number_of_segments
    assert capfd.readouterr().err == ""


def no_folder(series: Path, result: Path) -> Path:
    return series / "none"


def a_nifti_file(series: Path, result: Path) -> Path:
    return result / UNCERTAINTY


def no_dicom_inside(series: Path, result: Path) -> Path:
    return result


def a_slice_short(series: Path, result: Path) -> Path:
    """Without its topmost slice the series is still evenly spaced."""
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


def no_organs(series: Path, result: Path) -> Path:
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
    (no_organs, ErrorCode.INPUT_VALUES, "empty"),
    (a_label_without_name, ErrorCode.INPUT_VALUES, "label 77"),
    (an_unfinished_result, ErrorCode.INPUT_MISSING, "not a finished result"),
    (another_model, ErrorCode.MODEL_UNKNOWN, "not installed"),
]


@pytest.mark.parametrize(("corrupt", "code", "words"), BAD, ids=[corrupt.__name__ for corrupt, _, _ in BAD])
def test_invalid_input_gives_a_one_line_error_and_keeps_the_older_file(
    stored: Callable[..., Path],
    result: Path,
    tmp_path: Path,
    capfd: pytest.CaptureFixture[str],
    corrupt: Callable[[Path, Path], Path],
    code: ErrorCode,
    words: str,
) -> None:
    (tmp_path / "seg.dcm").write_text("older", encoding="utf-8")
    scan = corrupt(stored(), result)
    status = main(["export-dicom", str(result), "--scan", str(scan), "-o", str(tmp_path / "seg.dcm")])
    assert status == (3 if code is ErrorCode.MODEL_UNKNOWN else 2)
    out, err = capfd.readouterr()
    (line,) = err.strip().splitlines()
    assert out == ""
    assert line.startswith(f"{code.value}: ")
    assert words in line
    assert (tmp_path / "seg.dcm").read_text(encoding="utf-8") == "older"
    assert not [path for path in tmp_path.iterdir() if path.name.startswith(".")]


def test_a_full_disk_keeps_the_older_file(
    stored: Callable[..., Path], result: Path, tmp_path: Path, small_files_only: Callable[[], None]
) -> None:
    series = stored()
    (tmp_path / "seg.dcm").write_text("older", encoding="utf-8")
    small_files_only()
    with pytest.raises(DiffusionSegmentError, match="disk is full"):
        write_dicom_seg(result, tmp_path / "seg.dcm", scan=series)
    assert (tmp_path / "seg.dcm").read_text(encoding="utf-8") == "older"


@pytest.mark.skipif(DATA is None, reason="no real data on this machine; the written series stands in")
def test_a_clinical_series_is_referenced_slice_by_slice(
    result: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    assert DATA is not None
    series = DATA / "unlabelled_ct" / "crlm_ct_1004_dicom"
    scan = read_volume(series)
    labels = np.where(scan.array > 250, 1, np.where(scan.array > 140, 8, 0)).astype(np.uint8)
    write_volume(Volume(labels, scan.index_to_lps), result / SEGMENTATION)
    write_volume(Volume(np.zeros(labels.shape, np.float32), scan.index_to_lps), result / UNCERTAINTY)
    write_dicom_seg(result, tmp_path / "seg.dcm", scan=series)
    np.testing.assert_array_equal(labels_on_scan(tmp_path / "seg.dcm", series, values_of(result)), labels)
    assert capfd.readouterr().err == ""
