"""Reading files: all formats give the same volume, and an unreadable file gives a one-line error."""

from __future__ import annotations

import gzip
import struct
from collections.abc import Callable
from pathlib import Path

import nibabel
import numpy as np
import pytest
import real_data
import SimpleITK as sitk
from DiffusionSegmentBackend.errors import DiffusionSegmentError, ErrorCode
from DiffusionSegmentBackend.imaging.volume import Volume, model_grid
from DiffusionSegmentBackend.imaging.volume_io import modality_of, read_volume, to_image, write_volume
from DiffusionSegmentBackend.pipeline.restore import restore_map
from scipy.spatial.transform import Rotation

DATA = real_data.folder()


def oblique_volume(dtype: type = np.int16) -> Volume:
    matrix = np.eye(4)
    matrix[:3, :3] = Rotation.from_euler("xyz", (12, -7, 30), degrees=True).as_matrix() * (0.8, 1.1, 2.5)
    matrix[:3, 3] = (-120.0, 33.5, 801.0)
    array = np.random.default_rng(0).integers(-1000, 1000, (7, 9, 11)).astype(dtype)
    return Volume(array, matrix)


@pytest.mark.parametrize("suffix", [".nii.gz", ".nii", ".nrrd", ".mha"])
def test_a_file_written_is_read_back_with_its_geometry(tmp_path: Path, suffix: str) -> None:
    volume = oblique_volume()
    write_volume(volume, tmp_path / f"scan{suffix}")
    again = read_volume(tmp_path / f"scan{suffix}")
    np.testing.assert_array_equal(again.array, volume.array)
    np.testing.assert_allclose(again.index_to_lps, volume.index_to_lps, atol=1e-3)


def test_nifti_geometry_agrees_with_nibabel(tmp_path: Path) -> None:
    volume = oblique_volume()
    write_volume(volume, tmp_path / "scan.nii.gz")
    ras = np.diag([-1.0, -1, 1, 1]) @ read_volume(tmp_path / "scan.nii.gz").index_to_lps
    np.testing.assert_allclose(nibabel.load(tmp_path / "scan.nii.gz").affine, ras, atol=1e-3)


def write_dicom_series(folder: Path, *, modality: str = "CT", skip: int | None = None) -> Volume:
    volume = oblique_volume()
    image = to_image(volume)
    writer = sitk.ImageFileWriter()
    writer.KeepOriginalImageUIDOn()
    direction = np.array(image.GetDirection()).reshape(3, 3)
    for n in range(image.GetDepth()):
        if n == skip:
            continue
        part = image[:, :, n]
        position = image.TransformIndexToPhysicalPoint((0, 0, n))
        tags = {
            "0008|0060": modality,
            "0020|000e": "1.2.826.0.1.3680043.2.1125.1",
            "0020|000d": "1.2.826.0.1.3680043.2.1125.2",
            "0008|0016": "1.2.840.10008.5.1.4.1.1.2",
            "0008|0018": f"1.2.826.0.1.3680043.2.1125.3.{n + 1}",
            "0020|0013": str(n + 1),
            "0020|0032": "\\".join(f"{v:.6f}" for v in position),
            "0018|0050": "2.5",
            "0020|0037": "\\".join(f"{v:.6f}" for v in direction[:, :2].T.ravel()),
            "0020|0011": "1",
        }
        for tag, value in tags.items():
            part.SetMetaData(tag, value)
        writer.SetFileName(str(folder / f"{n:03d}.dcm"))
        writer.Execute(part)
    return volume


def test_a_dicom_folder_is_read_with_its_geometry_and_modality(tmp_path: Path) -> None:
    volume = write_dicom_series(tmp_path)
    again = read_volume(tmp_path)
    np.testing.assert_array_equal(again.array, volume.array)
    np.testing.assert_allclose(again.index_to_lps, volume.index_to_lps, atol=1e-2)
    assert modality_of(tmp_path) == "CT"


def test_a_series_with_a_missing_slice_is_refused(tmp_path: Path) -> None:
    write_dicom_series(tmp_path, skip=3)
    with pytest.raises(DiffusionSegmentError, match="not evenly spaced") as caught:
        read_volume(tmp_path)
    assert caught.value.code is ErrorCode.GEOMETRY


def missing(folder: Path) -> Path:
    return folder / "nowhere.nii.gz"


def empty_folder(folder: Path) -> Path:
    (folder / "empty").mkdir()
    (folder / "empty" / "notes.txt").write_text("no images here")
    return folder / "empty"


def text_named_nifti(folder: Path) -> Path:
    (folder / "scan.nii.gz").write_text("This is not an image.\n" * 50)
    return folder / "scan.nii.gz"


def truncated_gzip(folder: Path) -> Path:
    write_volume(oblique_volume(), folder / "whole.nii.gz")
    data = (folder / "whole.nii.gz").read_bytes()
    (folder / "cut.nii.gz").write_bytes(data[: len(data) // 2])
    return folder / "cut.nii.gz"


def flat_image(folder: Path) -> Path:
    sitk.WriteImage(sitk.GetImageFromArray(np.zeros((8, 8), dtype=np.int16)), str(folder / "flat.nrrd"))
    return folder / "flat.nrrd"


def one_slice(folder: Path) -> Path:
    nibabel.save(nibabel.Nifti1Image(np.zeros((8, 8, 1), dtype=np.int16), np.eye(4)), folder / "slice.nii.gz")
    return folder / "slice.nii.gz"


def time_series(folder: Path) -> Path:
    nibabel.save(nibabel.Nifti1Image(np.zeros((4, 4, 4, 3), dtype=np.int16), np.eye(4)), folder / "4d.nii.gz")
    return folder / "4d.nii.gz"


def colour_image(folder: Path) -> Path:
    sitk.WriteImage(sitk.GetImageFromArray(np.zeros((4, 8, 8, 3), np.uint8), isVector=True), str(folder / "rgb.nrrd"))
    return folder / "rgb.nrrd"


def with_nan(folder: Path) -> Path:
    array = np.zeros((5, 5, 5), dtype=np.float32)
    array[2, 2, 2:4] = np.nan, np.inf
    write_volume(Volume(array, np.eye(4)), folder / "nan.nii.gz")
    return folder / "nan.nii.gz"


def zero_spacing(folder: Path) -> Path:
    path = folder / "zero.mha"
    write_volume(oblique_volume(), path)
    head, _, rest = path.read_bytes().partition(b"ElementSpacing = ")
    path.write_bytes(head + b"ElementSpacing = 0.8 0 2.5\n" + rest.partition(b"\n")[2])
    return path


def singular_direction(folder: Path) -> Path:
    path = folder / "singular.nii"
    write_volume(Volume(np.zeros((4, 4, 4), np.int16), np.eye(4)), path)
    data = bytearray(path.read_bytes())
    data[252:256] = struct.pack("<hh", 0, 1)
    data[280:328] = struct.pack("<12f", 1, 1, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0)
    path.write_bytes(bytes(data))
    return path


BAD: list[tuple[Callable[[Path], Path], ErrorCode]] = [
    (missing, ErrorCode.INPUT_MISSING),
    (empty_folder, ErrorCode.INPUT_UNREADABLE),
    (text_named_nifti, ErrorCode.INPUT_UNREADABLE),
    (truncated_gzip, ErrorCode.INPUT_UNREADABLE),
    (flat_image, ErrorCode.INPUT_SHAPE),
    (one_slice, ErrorCode.INPUT_SHAPE),
    (time_series, ErrorCode.INPUT_SHAPE),
    (colour_image, ErrorCode.INPUT_SHAPE),
    (with_nan, ErrorCode.INPUT_VALUES),
    (zero_spacing, ErrorCode.GEOMETRY),
    (singular_direction, ErrorCode.GEOMETRY),
]


@pytest.mark.parametrize(("make", "code"), BAD, ids=[make.__name__ for make, _ in BAD])
def test_unreadable_input_gives_a_one_line_error(
    tmp_path: Path, make: Callable[[Path], Path], code: ErrorCode, capfd: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(DiffusionSegmentError) as caught:
        read_volume(make(tmp_path))
    assert caught.value.code is code
    assert "\n" not in str(caught.value)
    assert caught.value.hint
    assert caught.value.exit_status == 2
    assert capfd.readouterr() == ("", "")


def test_a_gzip_file_without_an_image_is_refused(tmp_path: Path) -> None:
    (tmp_path / "scan.nii.gz").write_bytes(gzip.compress(b"nothing"))
    with pytest.raises(DiffusionSegmentError):
        read_volume(tmp_path / "scan.nii.gz")


@pytest.mark.skipif(DATA is None, reason="no real data on this machine; the phantom and written DICOM stand in")
def test_a_clinical_series_is_restored_from_the_grid_within_half_a_voxel() -> None:
    assert DATA is not None
    volume = read_volume(DATA / "unlabelled_ct" / "crlm_ct_1004_dicom")
    assert volume.array.shape == (41, 512, 512)
    grid = model_grid(volume, spacing=(3.0, 3.0, 3.0))
    bone = (volume.array > 250).astype(np.float32)
    back = restore_map(grid.to_grid(bone), (0, 0, 0), grid, outside=None)
    assert back.shape == bone.shape
    centres = [np.average(np.indices(a.shape).reshape(3, -1), axis=1, weights=a.ravel()) for a in (bone, back)]
    assert np.abs(centres[0] - centres[1]).max() < 0.5
