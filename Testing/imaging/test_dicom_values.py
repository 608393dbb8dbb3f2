"""Voxel values of a DICOM series: each slice has slope, intercept, sign and bits of its own header."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import pytest
import SimpleITK as sitk
from DiffusionSegmentBackend.errors import DiffusionSegmentError, ErrorCode
from DiffusionSegmentBackend.imaging.volume_io import read_scan, read_volume
from fixtures.dicom_files import multi_frame, save, slices, small_ct, write
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import (
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    JPEGLSLossless,
    RLELossless,
)


def stored(hu: np.ndarray, *, slope: float = 1.0, intercept: float = 0.0, dtype: str = "<i2") -> dict[str, Any]:
    """The tags of a slice of HU under another slope, intercept and sign."""
    cells = np.round((hu.astype(np.float64) - intercept) / slope).astype(dtype)
    return {
        "RescaleSlope": str(slope),
        "RescaleIntercept": str(intercept),
        "PixelRepresentation": int(dtype == "<i2"),
        "BitsStored": 16,
        "HighBit": 15,
        "PixelData": cells.tobytes(),
    }


def set_tags(image: Dataset, tags: dict[str, Any]) -> None:
    for name, value in tags.items():
        setattr(image, name, value)


def test_each_slice_has_its_own_slope_intercept_and_sign(tmp_path: Path) -> None:
    volume = small_ct()
    images = slices(volume)
    set_tags(images[0], stored(volume.array[0].clip(0), dtype="<u2"))
    set_tags(images[1], stored(volume.array[1], intercept=-2000, dtype="<u2"))
    set_tags(images[2], stored(volume.array[2]))
    loaded = read_volume(write(images, tmp_path))
    assert loaded.array.dtype == np.int16
    np.testing.assert_array_equal(loaded.array[0], volume.array[0].clip(0))
    np.testing.assert_array_equal(loaded.array[1:], volume.array[1:])


def test_a_fractional_slope_is_applied_within_half_a_step(tmp_path: Path) -> None:
    volume = small_ct()
    images = slices(volume)
    set_tags(images[3], stored(volume.array[3], slope=1.5, intercept=-1024.5))
    loaded = read_volume(write(images, tmp_path)).array
    assert loaded.dtype == np.float32
    np.testing.assert_allclose(loaded[3], volume.array[3], atol=0.76)
    np.testing.assert_array_equal(loaded[4], volume.array[4])


def test_each_frame_of_a_multi_frame_image_has_its_own_rescale(tmp_path: Path) -> None:
    volume = small_ct()
    images = slices(volume)
    images[2].RescaleIntercept, images[5].RescaleSlope = "-1000", "2"
    expected = volume.array.copy()
    expected[2] += 24
    expected[5] = (expected[5] + 1024) * 2 - 1024
    loaded = read_volume(save(multi_frame(images), tmp_path / "enhanced.dcm")).array
    np.testing.assert_array_equal(loaded, expected)


def test_values_beyond_16_bits_are_kept(tmp_path: Path) -> None:
    volume = small_ct()
    images = slices(volume)
    cells = np.full(volume.array.shape[1:], 65000, "<u2")
    set_tags(images[0], {"BitsStored": 16, "HighBit": 15, "PixelData": cells.tobytes()})
    loaded = read_volume(write(images, tmp_path)).array
    assert loaded[0, 0, 0] == 65000 - 1024
    np.testing.assert_array_equal(loaded[1:], volume.array[1:])


def test_monochrome1_does_not_invert_hu(tmp_path: Path) -> None:
    volume = small_ct()
    loaded = read_volume(write(slices(volume, PhotometricInterpretation="MONOCHROME1"), tmp_path))
    np.testing.assert_array_equal(loaded.array, volume.array)


@pytest.mark.parametrize("signed", [0, 1])
def test_overlay_bits_above_the_value_are_masked(tmp_path: Path, signed: int) -> None:
    volume = small_ct()
    cells = volume.array.astype(np.int32) if signed else volume.array.astype(np.int32) + 1024
    images = slices(volume, PixelRepresentation=signed, RescaleIntercept="0" if signed else "-1024")
    for image, values in zip(images, cells, strict=True):
        image.PixelData = ((values & 0xFFF) | 0xA000).astype("<u2").tobytes()
    np.testing.assert_array_equal(read_volume(write(images, tmp_path)).array, volume.array)


def test_bits_below_the_value_are_masked(tmp_path: Path) -> None:
    volume = small_ct()
    images = slices(volume, HighBit=15)
    for image, values in zip(images, volume.array.astype(np.int32) + 1024, strict=True):
        image.PixelData = ((values << 4) | 0x5).astype("<u2").tobytes()
    np.testing.assert_array_equal(read_volume(write(images, tmp_path)).array, volume.array)


@pytest.mark.parametrize(
    ("tags", "cell"),
    [
        ({"PixelPaddingValue": 4095}, 4095),
        ({"PixelPaddingValue": 63536, "BitsStored": 16, "HighBit": 15}, 63536),
        ({"PixelPaddingValue": 4000, "PixelPaddingRangeLimit": 4095}, 4050),
    ],
    ids=["12 bits", "16 bits", "range"],
)
@pytest.mark.parametrize("syntax", [ExplicitVRLittleEndian, ImplicitVRLittleEndian])
def test_padding_is_air(tmp_path: Path, tags: dict[str, int], cell: int, syntax: str) -> None:
    volume = small_ct()
    images = slices(volume, **tags)
    for image, values in zip(images, volume.array.astype(np.int32) + 1024, strict=True):
        values[:3] = cell
        image.PixelData = values.astype("<u2").tobytes()
    loaded = read_volume(write(images, tmp_path, syntax=syntax)).array
    assert np.all(loaded[:, :3] == -1024)
    np.testing.assert_array_equal(loaded[:, 3:], volume.array[:, 3:])


def test_a_padding_value_inside_the_image_is_tissue(tmp_path: Path) -> None:
    """Some writers give a value of tissue as PixelPaddingValue; padding is at the corners of the image."""
    volume = small_ct()
    images = slices(volume, PixelPaddingValue=1024)
    for image, values in zip(images, volume.array.astype(np.int32) + 1024, strict=True):
        values[4:8, 4:8] = 1024
        image.PixelData = values.astype("<u2").tobytes()
    assert np.all(read_volume(write(images, tmp_path)).array[:, 4:8, 4:8] == 0)


@pytest.mark.parametrize(
    "tags",
    [
        {"RescaleSlope": None, "RescaleIntercept": None, "RescaleType": None},
        {"RescaleIntercept": ""},
        {"RescaleType": "MGML"},
        {"RescaleType": lambda k: "Z_EFF" if k == 5 else "HU"},
    ],
    ids=["no rescale", "empty intercept", "iodine map", "one slice"],
)
def test_a_ct_without_rescale_to_hu_is_not_hu(tmp_path: Path, tags: dict[str, Any]) -> None:
    write(slices(small_ct(), **tags), tmp_path)
    with pytest.raises(DiffusionSegmentError, match="not HU") as caught:
        read_volume(tmp_path)
    assert caught.value.code is ErrorCode.MODALITY
    scan = read_scan(tmp_path)
    assert scan.dicom is not None
    assert scan.dicom.not_hounsfield


def test_an_mr_needs_no_rescale(tmp_path: Path) -> None:
    volume = small_ct()
    tags: dict[str, Any] = {"RescaleSlope": None, "RescaleIntercept": None, "RescaleType": None}
    write(slices(volume, Modality="MR", SOPClassUID="1.2.840.10008.5.1.4.1.1.4", **tags), tmp_path)
    np.testing.assert_array_equal(read_volume(tmp_path).array, volume.array + 1024)


def test_a_slope_of_zero_is_refused(tmp_path: Path) -> None:
    write(slices(small_ct(), RescaleSlope=lambda k: "0" if k == 4 else "1"), tmp_path)
    with pytest.raises(DiffusionSegmentError, match=r"004\.dcm has a RescaleSlope of 0"):
        read_volume(tmp_path)


def compressed(image: Dataset, name: str, folder: Path) -> tuple[Dataset, str]:
    """The slice with its pixels compressed, and its transfer syntax; JPEG and JPEG 2000 by GDCM."""
    if name in ("RLE", "JPEG-LS"):
        syntax = RLELossless if name == "RLE" else JPEGLSLossless
        image.file_meta = FileMetaDataset()
        image.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
        image.compress(syntax, generate_instance_uid=False)
        return image, syntax
    writer = sitk.ImageFileWriter()
    writer.SetImageIO("GDCMImageIO")
    writer.UseCompressionOn()
    writer.SetCompressor(name)
    writer.SetFileName(str(folder / "pixels"))
    cells = np.frombuffer(image.PixelData, "<u2").reshape(image.Rows, image.Columns)
    writer.Execute(sitk.GetImageFromArray(cells))
    written = pydicom.dcmread(folder / "pixels")
    image.PixelData = written.PixelData
    image["PixelData"].VR = "OB"
    image.BitsStored, image.HighBit = written.BitsStored, written.HighBit
    return image, written.file_meta.TransferSyntaxUID


@pytest.mark.parametrize("name", ["RLE", "JPEG-LS", "JPEG", "JPEG2000"])
def test_compressed_pixels_are_decoded_without_loss(tmp_path: Path, name: str) -> None:
    volume = small_ct()
    for k, image in enumerate(slices(volume)):
        packed, syntax = compressed(image, name, tmp_path)
        save(packed, tmp_path / "series" / f"{k}.dcm", syntax)
    np.testing.assert_array_equal(read_volume(tmp_path / "series").array, volume.array)


@pytest.mark.parametrize("syntax", [ImplicitVRLittleEndian, DeflatedExplicitVRLittleEndian])
def test_uncompressed_transfer_syntaxes(tmp_path: Path, syntax: str) -> None:
    volume = small_ct()
    np.testing.assert_array_equal(read_volume(write(slices(volume), tmp_path, syntax=syntax)).array, volume.array)


def test_big_endian(tmp_path: Path) -> None:
    volume = small_ct()
    images = slices(volume)
    for image in images:
        image.PixelData = np.frombuffer(image.PixelData, "<u2").astype(">u2").tobytes()
    np.testing.assert_array_equal(read_volume(write(images, tmp_path, syntax=ExplicitVRBigEndian)).array, volume.array)


def test_damaged_compressed_pixels_name_the_slice(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    for k, image in enumerate(slices(small_ct())):
        packed, syntax = compressed(image, "JPEG-LS", tmp_path)
        if k == 5:
            packed.PixelData = packed.PixelData[:40] + bytes(len(packed.PixelData) - 40)
        save(packed, tmp_path / "series" / f"{k}.dcm", syntax)
    with pytest.raises(DiffusionSegmentError, match=r"5\.dcm") as caught:
        read_volume(tmp_path / "series")
    assert caught.value.code is ErrorCode.INPUT_UNREADABLE
    assert capfd.readouterr() == ("", "")
