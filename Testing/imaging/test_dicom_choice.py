"""Choice of the series of a folder: scans are distinguished and one is chosen; other objects are named and ignored."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from DiffusionSegmentBackend.errors import DiffusionSegmentError, ErrorCode
from DiffusionSegmentBackend.imaging.volume import Volume
from DiffusionSegmentBackend.imaging.volume_io import modality_of, read_scan, read_volume
from fixtures.dicom_files import ROOT, multi_frame, save, secondary_capture, slices, small_ct, write


def brighter(volume: Volume) -> Volume:
    return Volume(np.clip(volume.array + 20, -1024, 2000).astype(np.int16), volume.index_to_lps)


def colour_captures(folder: Path) -> None:
    write([secondary_capture(n, colour=True) for n in range(30)], folder, "capture{:02d}.dcm")


def grey_captures(folder: Path) -> None:
    write([secondary_capture(n, colour=False) for n in range(30)], folder, "capture{:02d}.dcm")


def dose_report(folder: Path) -> None:
    image = secondary_capture(0, colour=False, SOPClassUID="1.2.840.10008.5.1.4.1.1.88.67", Modality="SR")
    for name in ("PixelData", "Rows", "Columns"):
        delattr(image, name)
    save(image, folder / "a_report.dcm")


def pet(folder: Path) -> None:
    images = slices(small_ct(), "7", Modality="PT", SOPClassUID="1.2.840.10008.5.1.4.1.1.128", RescaleIntercept="0")
    write(images, folder, "a_pet{}.dcm")


def localizers(folder: Path) -> None:
    """In the same series, coronal and sagittal, of another size."""
    images = slices(small_ct(shape=(2, 20, 30)), ImageType=["ORIGINAL", "PRIMARY", "LOCALIZER"])
    for n, image in enumerate(images):
        image.SOPInstanceUID, image.ImageOrientationPatient = f"{ROOT}77.{n}", [1 - n, n, 0, 0, 0, -1]
    write(images, folder, "a_scout{}.dcm")


def scouts_without_image_type(folder: Path) -> None:
    images = slices(small_ct(shape=(3, 20, 30)))
    for n, image in enumerate(images):
        image.SOPInstanceUID, image.ImageOrientationPatient = f"{ROOT}78.{n}", ["1", "0", "0", "0", "0", "-1"]
    write(images, folder, "a_scout{}.dcm")


def few_slices_of_mr(folder: Path) -> None:
    images = slices(small_ct(shape=(3, 12, 10)), "1", Modality="MR", SOPClassUID="1.2.840.10008.5.1.4.1.1.4")
    write(images, folder, "a_mr{}.dcm")


def presentation_state(folder: Path) -> None:
    image = secondary_capture(0, colour=False, SOPClassUID="1.2.840.10008.5.1.4.1.1.11.1", Modality="PR")
    for name in ("PixelData", "Rows", "Columns", "BitsAllocated", "BitsStored", "PhotometricInterpretation"):
        delattr(image, name)
    save(image, folder / "a_state.dcm")


def structure_set(folder: Path) -> None:
    image = secondary_capture(0, colour=False, SOPClassUID="1.2.840.10008.5.1.4.1.1.481.3", Modality="RTSTRUCT")
    for name in ("PixelData", "Rows", "Columns"):
        delattr(image, name)
    save(image, folder / "a_structures.dcm")


def segmentation(folder: Path) -> None:
    """A segmentation of the scan in the same folder, with frames at the positions of its slices."""
    image = multi_frame(slices(small_ct(), "9"))
    image.SOPClassUID, image.Modality = "1.2.840.10008.5.1.4.1.1.66.4", "SEG"
    save(image, folder / "a_seg.dcm")


def other_files(folder: Path) -> None:
    (folder / "a_notes.txt").write_text("not an image", encoding="utf-8")
    (folder / "thumbs.db").write_bytes(bytes(300))
    (folder / ".hidden.dcm").write_bytes(b"")


BESIDE: list[tuple[Callable[[Path], None], str]] = [
    (colour_captures, "30 colour Secondary Capture"),
    (grey_captures, "30 Secondary Capture"),
    (dose_report, "1 X-Ray Radiation Dose SR"),
    (pet, "8 PT slices"),
    (localizers, "2 localizer"),
    (scouts_without_image_type, "3 CT slices"),
    (few_slices_of_mr, "3 MR slices"),
    (presentation_state, "Presentation State"),
    (structure_set, "RT Structure Set"),
    (segmentation, "1 Segmentation"),
    (other_files, ""),
]


@pytest.mark.parametrize(("beside", "words"), BESIDE, ids=[beside.__name__ for beside, _ in BESIDE])
def test_the_ct_is_read_with_other_objects_in_its_folder(
    tmp_path: Path, beside: Callable[[Path], None], words: str, capfd: pytest.CaptureFixture[str]
) -> None:
    volume = small_ct()
    write(slices(volume), tmp_path)
    beside(tmp_path)
    scan = read_scan(tmp_path)
    np.testing.assert_array_equal(scan.volume.array, volume.array)
    np.testing.assert_allclose(scan.volume.index_to_lps, volume.index_to_lps, atol=1e-4)
    assert scan.modality == modality_of(tmp_path) == "CT"
    assert words in " ".join(scan.volume.notes)
    assert bool(scan.volume.notes) == bool(words)
    assert capfd.readouterr() == ("", "")


def test_modality_and_voxels_come_from_the_same_series(tmp_path: Path) -> None:
    mr = small_ct()
    write(slices(mr, "5", Modality="MR", SOPClassUID="1.2.840.10008.5.1.4.1.1.4"), tmp_path, "mr{}.dcm")
    write(slices(small_ct(shape=(3, 12, 10)), "4"), tmp_path, "ct{}.dcm")
    scan = read_scan(tmp_path)
    assert scan.modality == "MR"
    assert len(scan.volume.array) == 8


def test_a_folder_without_a_scan_gives_an_error_with_its_content(tmp_path: Path) -> None:
    grey_captures(tmp_path)
    dose_report(tmp_path)
    with pytest.raises(DiffusionSegmentError, match=r"only: 30 Secondary Capture, 1 X-Ray") as caught:
        read_volume(tmp_path)
    assert caught.value.code is ErrorCode.INPUT_UNREADABLE


@pytest.fixture
def two_phases(tmp_path: Path) -> tuple[Path, Volume, Volume]:
    """Series 4 "arterial" and series 3 "venous" in one folder."""
    venous, arterial = small_ct(), brighter(small_ct())
    write(slices(venous, "3", SeriesDescription="venous"), tmp_path, "a{}.dcm")
    write(slices(arterial, "4", SeriesDescription="arterial"), tmp_path, "b{}.dcm")
    return tmp_path, venous, arterial


def test_two_series_are_listed(two_phases: tuple[Path, Volume, Volume]) -> None:
    with pytest.raises(DiffusionSegmentError) as caught:
        read_volume(two_phases[0])
    assert caught.value.code is ErrorCode.OPTION
    assert '[1] series 3 "venous" (CT, 8 slices); [2] series 4 "arterial" (CT, 8 slices)' in caught.value.message
    assert "option series" in caught.value.hint


@pytest.mark.parametrize("choice", ["4", "2", f"{ROOT}4", " 4 "], ids=["number", "index", "UID", "spaces"])
def test_one_of_two_series_is_chosen(two_phases: tuple[Path, Volume, Volume], choice: str) -> None:
    folder, _, arterial = two_phases
    scan = read_scan(folder, series=choice)
    np.testing.assert_array_equal(scan.volume.array, arterial.array)
    assert scan.dicom is not None
    assert scan.dicom.series.title == 'series 4 "arterial" (CT, 8 slices)'
    assert scan.dicom.series.uid == f"{ROOT}4"


@pytest.mark.parametrize("choice", ["5", "0", "-1", "", "1.2.3", "arterial"])
def test_an_unknown_series_is_refused_with_the_list_of_series(
    two_phases: tuple[Path, Volume, Volume], choice: str
) -> None:
    with pytest.raises(DiffusionSegmentError, match=r"\[1\] series 3") as caught:
        read_volume(two_phases[0], series=choice)
    assert caught.value.code is ErrorCode.OPTION


def test_a_series_that_is_ignored_by_default_can_be_chosen(tmp_path: Path) -> None:
    write(slices(small_ct()), tmp_path)
    pet(tmp_path)
    assert read_scan(tmp_path, series="7").modality == "PT"


def test_copies_of_an_image_count_once(tmp_path: Path) -> None:
    volume = small_ct()
    images = slices(volume)
    write(images, tmp_path)
    write(images[::3], tmp_path, "{} (1).dcm")
    scan = read_scan(tmp_path)
    np.testing.assert_array_equal(scan.volume.array, volume.array)
    assert "3 files are copies" in scan.volume.notes[0]


def test_images_with_equal_uids_at_different_positions_are_all_read(tmp_path: Path) -> None:
    volume = small_ct()
    write(slices(volume, SOPInstanceUID=f"{ROOT}5.1"), tmp_path)
    np.testing.assert_array_equal(read_volume(tmp_path).array, volume.array)


@pytest.mark.parametrize("tag", ["TemporalPositionIdentifier", "AcquisitionNumber", "AcquisitionTime", "EchoTime"])
def test_time_points_of_one_series_are_separate_scans(tmp_path: Path, tag: str) -> None:
    first, second = small_ct(), brighter(small_ct())
    write(slices(first, **{tag: "101010"}), tmp_path, "a{}.dcm")
    write(slices(second, **{tag: "101112"}, SOPInstanceUID=lambda k: f"{ROOT}6.{k}"), tmp_path, "b{}.dcm")
    with pytest.raises(DiffusionSegmentError, match="2 scans") as caught:
        read_volume(tmp_path)
    assert caught.value.code is ErrorCode.OPTION
    for series, volume in (("1", first), ("2", second), (f"{ROOT}2#2", second)):
        np.testing.assert_array_equal(read_volume(tmp_path, series=series).array, volume.array)


def test_time_points_of_a_multi_frame_image_are_separate_scans(tmp_path: Path) -> None:
    first, second = small_ct(), brighter(small_ct())
    frames = slices(first, TemporalPositionIndex=1) + slices(second, TemporalPositionIndex=2)
    file = save(multi_frame(frames), tmp_path / "enhanced.dcm")
    with pytest.raises(DiffusionSegmentError, match=r"time point 1, 8 slices.*time point 2, 8 slices"):
        read_volume(file)
    for series, volume in (("1", first), (f"{ROOT}2#2", second)):
        loaded = read_volume(file, series=series)
        np.testing.assert_array_equal(loaded.array, volume.array)
        np.testing.assert_allclose(loaded.index_to_lps, volume.index_to_lps, atol=1e-4)


def test_overlapping_stacks_are_separated_by_acquisition(tmp_path: Path) -> None:
    chest = small_ct()
    lower = np.eye(4)
    lower[2, 3] = -13.0
    abdomen = Volume(brighter(chest).array, lower @ chest.index_to_lps)
    write(slices(chest), tmp_path, "a{}.dcm")
    write(slices(abdomen, AcquisitionNumber="2", SOPInstanceUID=lambda k: f"{ROOT}6.{k}"), tmp_path, "b{}.dcm")
    with pytest.raises(DiffusionSegmentError, match=r"acquisition 1, 8 slices.*acquisition 2, 8 slices"):
        read_volume(tmp_path)
    np.testing.assert_array_equal(read_volume(tmp_path, series=f"{ROOT}2#2").array, abdomen.array)


def test_the_same_image_under_another_uid_counts_once(tmp_path: Path) -> None:
    volume = small_ct()
    write(slices(volume), tmp_path, "a{}.dcm")
    write(slices(volume, SOPInstanceUID=lambda k: f"{ROOT}6.{k}")[2:5], tmp_path, "b{}.dcm")
    scan = read_scan(tmp_path)
    np.testing.assert_array_equal(scan.volume.array, volume.array)
    assert "3 files are copies" in scan.volume.notes[0]
