"""DICOM SEG of series with headers as hospitals and anonymisers write them: exported, or a one-line error."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import pydicom.config
import pytest
from DiffusionSegmentBackend.cli.main import main
from DiffusionSegmentBackend.errors import DiffusionSegmentError, ErrorCode
from DiffusionSegmentBackend.imaging.volume import Volume
from DiffusionSegmentBackend.imaging.volume_io import read_volume, write_volume
from DiffusionSegmentBackend.reporting.dicom_seg import write_dicom_seg
from DiffusionSegmentBackend.schema.output_kinds import REPORT, SEGMENTATION, UNCERTAINTY
from fixtures.dicom_files import ROOT, multi_frame, save, slices, small_ct, write
from fixtures.dicom_seg import labels_on_scan
from pydicom.datadict import dictionary_VR
from pydicom.dataset import Dataset
from pydicom.valuerep import PersonName

VALUES = {"spleen": 1, "aorta": 8}


@pytest.fixture(autouse=True)
def no_validation(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without the validation of pydicom, so that tests can write invalid values."""
    monkeypatch.setattr(pydicom.config.settings, "writing_validation_mode", pydicom.config.IGNORE)
    monkeypatch.setattr(pydicom.config.settings, "reading_validation_mode", pydicom.config.IGNORE)


def labels_of(volume: Volume) -> np.ndarray:
    labels = np.zeros(volume.array.shape, np.uint8)
    labels[1:5, 2:6, 3:7] = VALUES["spleen"]
    labels[3:8, 7:10, 1:9] = VALUES["aorta"]
    return labels


def result_of(volume: Volume, folder: Path, **provenance: str) -> Path:
    """A finished result with two organs, in the geometry of the scan."""
    folder.mkdir()
    write_volume(Volume(labels_of(volume), volume.index_to_lps), folder / SEGMENTATION)
    write_volume(Volume(np.zeros(volume.array.shape, np.float32), volume.index_to_lps), folder / UNCERTAINTY)
    numbers = {"volume_ml": 1.0, "volume_interval_ml": [0.5, 1.5], "confidence": 0.9}
    report = {
        "organs": [{"value": value, "name": name, "title": name, **numbers} for name, value in VALUES.items()],
        "review": [],
        "warnings": [],
        "provenance": {
            "software": "test",
            "model": "abdomen-ct",
            "version": "1",
            "sha256": "ab",
            "seed": 0,
            "samples": 4,
            "steps": 2,
            **provenance,
        },
    }
    (folder / REPORT).write_text(json.dumps(report), encoding="utf-8")
    return folder


def referenced_series(path: Path) -> str:
    (series,) = pydicom.dcmread(path).ReferencedSeriesSequence
    return str(series.SeriesInstanceUID)


def exported(scan: Path, tmp_path: Path, **options: Any) -> Dataset:
    """The DICOM SEG of a series, after a check that its labels are those of the result."""
    volume = read_volume(scan, series=options.get("series"))
    write_dicom_seg(result_of(volume, tmp_path / "result"), tmp_path / "seg.dcm", scan=scan, **options)
    labels = labels_on_scan(tmp_path / "seg.dcm", scan, VALUES, series=options.get("series"))
    np.testing.assert_array_equal(labels, labels_of(volume))
    return pydicom.dcmread(tmp_path / "seg.dcm")


ODD = [
    ("PatientSex", "Female"),
    ("PatientSex", "U"),
    ("PatientBirthDate", "1970-01-02"),
    ("PatientBirthDate", "19700000"),
    ("PatientBirthDate", "19701332"),
    ("PatientBirthDate", "1970"),
    ("PatientBirthDate", "ANON"),
    ("PatientBirthDate", "19700101-19701231"),
    ("StudyDate", "2024.01.02"),
    ("StudyDate", "00000000"),
    ("StudyTime", "10:11:12"),
    ("StudyTime", "101112.1234567"),
    ("StudyTime", "256199"),
    ("PatientID", "X" * 80),
    ("AccessionNumber", "A" * 40),
    ("StudyID", "S" * 30),
    ("PatientName", "N" * 100),
    ("PatientName", "A^B^C^D^E^F"),
    ("PatientName", "A=B=C=D"),
    ("ReferringPhysicianName", "R" * 70),
    ("PatientAge", "45 years"),
    ("IssuerOfPatientID", "X" * 90),
    ("EthnicGroup", "x" * 30),
    ("PatientWeight", "heavy"),
    ("StudyDescription", "x" * 200),
]


@pytest.mark.parametrize(("name", "value"), ODD, ids=[f"{name} {value[:20]}" for name, value in ODD])
def test_invalid_attributes_are_left_empty_with_a_note(
    tmp_path: Path, name: str, value: str, capfd: pytest.CaptureFixture[str]
) -> None:
    images = slices(small_ct())
    for image in images:
        kind = dictionary_VR(name)
        image.add_new(name, "PN" if kind == "PN" else "LO", value)
        image[name].VR = kind
    segmentation = exported(write(images, tmp_path / "series"), tmp_path)
    assert not str(segmentation.get(name, ""))
    out, err = capfd.readouterr()
    assert f"Note: Left empty, because the scan's header has there what DICOM does not allow: {name}." in out
    assert value not in out
    assert err == ""


KEPT = [
    ("PatientSex", "m", "M"),
    ("PatientSex", "F ", "F"),
    ("PatientBirthDate", "19700102", "19700102"),
    ("StudyTime", "1011", "1011"),
    ("StudyTime", "  ", ""),
    ("StudyDate", "        ", ""),
    ("SliceThickness", "", "2.5"),
    ("SliceThickness", "0", "2.5"),
    ("InstanceNumber", None, None),
    ("ImageType", None, None),
    ("Modality", None, None),
    ("NumberOfFrames", "1", None),
    ("LossyImageCompression", "", "00"),
    ("LossyImageCompression", "01", "01"),
    ("PatientID", None, ""),
]


@pytest.mark.parametrize(("name", "value", "expected"), KEPT)
def test_valid_and_optional_attributes_give_no_note(
    tmp_path: Path, name: str, value: str | None, expected: str | None, capfd: pytest.CaptureFixture[str]
) -> None:
    segmentation = exported(write(slices(small_ct(), **{name: value}), tmp_path / "series"), tmp_path)
    if name == "SliceThickness":
        assert segmentation.SharedFunctionalGroupsSequence[0].PixelMeasuresSequence[0].SliceThickness == 2.5
    elif expected is not None:
        assert str(segmentation.get(name) or "") == expected
    assert "Note" not in capfd.readouterr().out


NAMES = [
    (["", "ISO 2022 IR 87"], "Yamada^Tarou=山田^太郎"),
    (["", "ISO 2022 IR 149"], "Hong^Gildong=洪^吉洞=홍^길동"),
    (["ISO 2022 IR 6", "ISO 2022 IR 87"], "Yamada^Tarou=山田^太郎"),
    ("GBK", "王^小东"),
    ("ISO_IR 144", "Люкceмбypг"),
    ("ISO_IR 192", "Müller^Jörg"),
    ("ISO_IR_100", "Müller^Jörg"),
    ("UTF-8", "Test"),
    ("", "Test"),
]


@pytest.mark.parametrize(("characters", "name"), NAMES, ids=[f"{c}" for c, _ in NAMES])
def test_a_name_in_any_character_set_is_kept(tmp_path: Path, characters: str | list[str], name: str) -> None:
    images = slices(small_ct(), SpecificCharacterSet=characters, PatientName=name)
    segmentation = exported(write(images, tmp_path / "series"), tmp_path)
    assert str(segmentation.PatientName) == name
    assert segmentation.SpecificCharacterSet == "ISO_IR 192"


def test_a_chinese_name_is_kept_without_its_escape_sequences(tmp_path: Path) -> None:
    """The example of DICOM PS3.5, annex K, byte by byte: pydicom does not write it so."""
    written = b"Zhang^XiaoDong=\x1b$)A\xd5\xc5^\x1b$)A\xd0\xa1\xb6\xab="
    images = slices(small_ct(), SpecificCharacterSet=["", "ISO 2022 IR 58"])
    for image in images:
        image.PatientName = PersonName(written, ["iso8859", "iso_ir_58"])
    folder = write(images, tmp_path / "series")
    assert written.rstrip(b"=") in next(folder.iterdir()).read_bytes()
    assert str(exported(folder, tmp_path).PatientName) == "Zhang^XiaoDong=张^小东"


REFUSED: list[tuple[str, Any, str]] = [
    ("FrameOfReferenceUID", lambda k: f"{ROOT}3.{k}", "FrameOfReferenceUID is not the same in all slices"),
    ("StudyInstanceUID", lambda k: f"{ROOT}3.{k}", "StudyInstanceUID is not the same in all slices"),
    ("FrameOfReferenceUID", None, "lacks FrameOfReferenceUID"),
    ("SOPInstanceUID", f"{ROOT}5.1", "SOPInstanceUID is the same in several slices"),
    ("StudyInstanceUID", f"{ROOT}{'1' * 50}", "no valid UID"),
    ("StudyInstanceUID", "1.2.826.anon.5", "no valid UID"),
    ("StudyInstanceUID", f"{ROOT}1.007", "no valid UID"),
]


@pytest.mark.parametrize(("name", "value", "words"), REFUSED, ids=[f"{n} {w}" for n, _, w in REFUSED])
def test_images_that_cannot_be_referenced_give_a_one_line_error(
    tmp_path: Path, name: str, value: Any, words: str, capfd: pytest.CaptureFixture[str]
) -> None:
    series = write(slices(small_ct(), **{name: value}), tmp_path / "series")
    result = result_of(small_ct(), tmp_path / "result")
    assert main(["export-dicom", str(result), "--scan", str(series), "-o", str(tmp_path / "seg.dcm")]) == 2
    out, err = capfd.readouterr()
    (line,) = err.strip().splitlines()
    assert out == ""
    assert line.startswith("INPUT_UNREADABLE: ")
    assert words in line
    assert not (tmp_path / "seg.dcm").exists()


def noisy_orientation(images: list[Dataset]) -> None:
    rng = np.random.default_rng(3)
    for image in images:
        image.ImageOrientationPatient = [f"{v + rng.normal() * 2e-5:.6f}" for v in (1, 0, 0, 0, 1, 0)]


def long_decimals(images: list[Dataset]) -> None:
    for image in images:
        image.ImagePositionPatient = [f"{float(v):.17f}" for v in image.ImagePositionPatient]
        image.PixelSpacing = ["1.10000000000000011102", "0.80000000000000011102"]


def rounded_positions(images: list[Dataset]) -> None:
    for k, image in enumerate(images):
        image.ImagePositionPatient = ["-120", "33.5", f"{801 + 0.625 * k:.1f}"]


def tilt(images: list[Dataset]) -> None:
    for image in images:
        image.ImageOrientationPatient = ["1", "0", "0", "0", "0.939693", "0.342020"]


@pytest.mark.parametrize("change", [noisy_orientation, long_decimals, rounded_positions, tilt])
def test_any_geometry_that_can_be_read_can_be_exported(tmp_path: Path, change: Callable[[list[Dataset]], None]) -> None:
    images = slices(small_ct())
    change(images)
    series = write(images, tmp_path / "series")
    file = exported(series, tmp_path)
    volume = read_volume(series)
    shared = file.SharedFunctionalGroupsSequence[0]
    axes = np.reshape(shared.PlaneOrientationSequence[0].ImageOrientationPatient, (2, 3)).astype(float)
    between_rows, between_columns = shared.PixelMeasuresSequence[0].PixelSpacing
    np.testing.assert_allclose(axes[0] * between_columns, volume.index_to_lps[:3, 0], atol=0.02)
    np.testing.assert_allclose(axes[1] * between_rows, volume.index_to_lps[:3, 1], atol=0.02)
    frames = file.PerFrameFunctionalGroupsSequence
    positions = np.unique([frame.PlanePositionSequence[0].ImagePositionPatient for frame in frames], axis=0)
    expected = [(volume.index_to_lps @ (0, 0, k, 1))[:3] for k in np.flatnonzero(labels_of(volume).any(axis=(1, 2)))]
    np.testing.assert_allclose(positions.astype(float), expected, atol=0.06)


@pytest.mark.parametrize("order", [range(8), range(7, -1, -1), (3, 0, 7, 5, 1, 2, 6, 4)], ids=["up", "down", "mixed"])
def test_each_frame_of_a_multi_frame_scan_is_referenced(tmp_path: Path, order: list[int]) -> None:
    images = slices(small_ct())
    file = save(multi_frame([images[n] for n in order]), tmp_path / "enhanced.dcm")
    segmentation = exported(file, tmp_path)
    scan = pydicom.dcmread(file)
    for frame in segmentation.PerFrameFunctionalGroupsSequence:
        named = frame.DerivationImageSequence[0].SourceImageSequence[0]
        assert named.ReferencedSOPInstanceUID == scan.SOPInstanceUID
        source = scan.PerFrameFunctionalGroupsSequence[int(named.ReferencedFrameNumber) - 1]
        np.testing.assert_allclose(
            frame.PlanePositionSequence[0].ImagePositionPatient, source.PlanePositionSequence[0].ImagePositionPatient
        )


def test_one_time_point_of_a_multi_frame_scan_references_its_own_frames(tmp_path: Path) -> None:
    frames = slices(small_ct(), TemporalPositionIndex=1) + slices(small_ct(), TemporalPositionIndex=2)
    segmentation = exported(save(multi_frame(frames), tmp_path / "enhanced.dcm"), tmp_path, series=f"{ROOT}2#2")
    numbers = {
        int(frame.DerivationImageSequence[0].SourceImageSequence[0].ReferencedFrameNumber)
        for frame in segmentation.PerFrameFunctionalGroupsSequence
    }
    assert numbers == set(range(10, 17))


def test_a_series_in_several_multi_frame_files_is_refused(tmp_path: Path) -> None:
    images = slices(small_ct())
    series = write([multi_frame(images[:5]), multi_frame(images[5:])], tmp_path / "series")
    with pytest.raises(DiffusionSegmentError, match="2 multi-frame files") as caught:
        exported(series, tmp_path)
    assert caught.value.code is ErrorCode.INPUT_SHAPE


def test_the_series_of_the_result_is_referenced(tmp_path: Path) -> None:
    """Two series and an older export are in one folder; the report names the segmented series."""
    volume = small_ct()
    series = tmp_path / "series"
    write(slices(volume, "3"), series, "a{}.dcm")
    write(slices(volume, "4"), series, "b{}.dcm")
    result = result_of(volume, tmp_path / "result", series_uid=f"{ROOT}4")
    for name in ("first.dcm", "second.dcm"):
        write_dicom_seg(result, series / name, scan=series)
    assert referenced_series(series / "second.dcm") == f"{ROOT}4"
    write_dicom_seg(result, series / "third.dcm", scan=series, series="3")
    assert referenced_series(series / "third.dcm") == f"{ROOT}3"
