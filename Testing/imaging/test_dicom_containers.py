"""Storage of DICOM: one file, nested folders, a CD, files without suffix or preamble, and truncated files."""

from __future__ import annotations

from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import pytest
from DiffusionSegmentBackend.errors import DiffusionSegmentError, ErrorCode
from DiffusionSegmentBackend.imaging import dicom_headers
from DiffusionSegmentBackend.imaging.volume import Volume
from DiffusionSegmentBackend.imaging.volume_io import read_volume
from fixtures.dicom_files import multi_frame, save, slices, small_ct, write
from pydicom.dataset import Dataset
from pydicom.fileset import FileSet


def assert_same(actual: Volume, expected: Volume) -> None:
    np.testing.assert_array_equal(actual.array, expected.array)
    np.testing.assert_allclose(actual.index_to_lps, expected.index_to_lps, atol=1e-4)


@pytest.mark.parametrize("order", ["feet first", "head first", "shuffled"])
@pytest.mark.parametrize("source", ["file", "folder"])
def test_a_multi_frame_image(tmp_path: Path, order: str, source: str) -> None:
    volume = small_ct()
    images = slices(volume)
    if order == "head first":
        images.reverse()
    if order == "shuffled":
        images = [images[n] for n in np.random.default_rng(0).permutation(len(images))]
    file = save(multi_frame(images), tmp_path / "enhanced.dcm")
    assert_same(read_volume(file if source == "file" else tmp_path), volume)


def test_a_series_in_several_multi_frame_files(tmp_path: Path) -> None:
    volume = small_ct()
    images = slices(volume)
    write([multi_frame(images[:5]), multi_frame(images[5:])], tmp_path)
    assert_same(read_volume(tmp_path), volume)


def test_a_multi_frame_image_without_a_position_for_each_frame_is_refused(tmp_path: Path) -> None:
    images = slices(small_ct())
    images[0].NumberOfFrames = 8
    images[0].PixelData = b"".join(image.PixelData for image in images)
    with pytest.raises(DiffusionSegmentError, match="8 frames without a position"):
        read_volume(save(images[0], tmp_path / "frames.dcm"))


@pytest.fixture
def cd(tmp_path: Path) -> tuple[Path, Volume]:
    """A CD as scanners write it: DICOMDIR, and files without suffix in nested folders."""
    volume = small_ct()
    files = FileSet()
    for n, image in enumerate(slices(volume, StudyDate="20240102", StudyTime="101112", StudyID="1")):
        files.add(save(image, tmp_path / "once" / str(n)))
    files.write(tmp_path / "cd")
    (tmp_path / "cd" / "README").write_text("Insert the CD.", encoding="utf-8")
    return tmp_path / "cd", volume


def test_a_cd_is_read_by_its_folder_or_its_dicomdir(cd: tuple[Path, Volume]) -> None:
    folder, volume = cd
    assert_same(read_volume(folder), volume)
    assert_same(read_volume(folder / "DICOMDIR"), volume)


@pytest.mark.parametrize("suffix", ["", ".ima", ".IMG", ".1"])
def test_files_of_any_suffix(tmp_path: Path, suffix: str) -> None:
    volume = small_ct()
    assert_same(read_volume(write(slices(volume), tmp_path, "IM{:04d}" + suffix)), volume)


@pytest.mark.parametrize("implicit", [True, False])
def test_files_without_preamble(tmp_path: Path, implicit: bool) -> None:
    volume = small_ct()
    for k, image in enumerate(slices(volume)):
        plain = Dataset(image)
        plain.save_as(tmp_path / f"{k}", implicit_vr=implicit, little_endian=True, enforce_file_format=False)
    assert (tmp_path / "0").read_bytes()[:2] == b"\x08\x00"
    assert_same(read_volume(tmp_path), volume)


def test_a_single_slice_is_refused_as_a_2d_image(tmp_path: Path) -> None:
    write(slices(small_ct()), tmp_path)
    with pytest.raises(DiffusionSegmentError, match="2D image") as caught:
        read_volume(tmp_path / "003.dcm")
    assert caught.value.code is ErrorCode.INPUT_SHAPE


@pytest.mark.parametrize("length", [0, 1, 100, 131, 200, 400, 700, -120, -1])
@pytest.mark.parametrize("last", [False, True])
@pytest.mark.parametrize("name", ["{:03d}.dcm", "IM{:03d}"])
def test_a_truncated_slice_is_named_and_never_skipped(
    tmp_path: Path, length: int, last: bool, name: str, capfd: pytest.CaptureFixture[str]
) -> None:
    """Without the last slice the others are still evenly spaced."""
    write(slices(small_ct()), tmp_path, name)
    cut = tmp_path / name.format(7 if last else 3)
    cut.write_bytes(cut.read_bytes()[:length])
    with pytest.raises(DiffusionSegmentError, match=cut.name) as caught:
        read_volume(tmp_path)
    assert caught.value.code is ErrorCode.INPUT_UNREADABLE
    assert capfd.readouterr() == ("", "")


def test_a_damaged_file_of_another_series_is_ignored(tmp_path: Path) -> None:
    volume = small_ct()
    write(slices(volume), tmp_path / "a")
    write(slices(volume, "3"), tmp_path / "b")
    cut = tmp_path / "b" / "003.dcm"
    cut.write_bytes(cut.read_bytes()[:-100])
    assert_same(read_volume(tmp_path, series="2"), volume)


def test_a_text_file_with_the_suffix_dcm_is_named_in_the_error(tmp_path: Path) -> None:
    write(slices(small_ct()), tmp_path)
    (tmp_path / "999.dcm").write_text("<html>404 not found</html>", encoding="utf-8")
    with pytest.raises(DiffusionSegmentError, match=r"999\.dcm is damaged or no DICOM file"):
        read_volume(tmp_path)


def test_a_value_length_beyond_memory_is_an_unreadable_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(slices(small_ct()), tmp_path)
    real = dicom_headers.read_partial

    def read_partial(file: BinaryIO, **options: Any) -> Dataset:
        if Path(file.name).stem.endswith("3"):
            raise MemoryError
        return real(file, **options)

    monkeypatch.setattr(dicom_headers, "read_partial", read_partial)
    with pytest.raises(DiffusionSegmentError, match=r"3.*cannot be read \(MemoryError\)") as caught:
        read_volume(tmp_path)
    assert caught.value.code is ErrorCode.INPUT_UNREADABLE
