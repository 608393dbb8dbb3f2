"""NIfTI scans have the geometry of ITK and 3D Slicer; contradictions in a header are reported in a note."""

from __future__ import annotations

import gzip
import shutil
from collections.abc import Callable
from pathlib import Path

import nibabel
import numpy as np
import pytest
import real_data
import SimpleITK as sitk
from DiffusionSegmentBackend.errors import DiffusionSegmentError, ErrorCode
from DiffusionSegmentBackend.imaging.volume import Volume
from DiffusionSegmentBackend.imaging.volume_io import read_volume, write_volume

VALUES = np.random.default_rng(0).integers(-1000, 1000, (5, 6, 7)).astype(np.int16)
AFFINE = np.array([[-0.8, 0.1, 0.0, 90.0], [-0.1, -0.7, 0.0, 70.0], [0.0, 0.0, 2.5, -300.0], [0, 0, 0, 1.0]])
Edit = Callable[[nibabel.Nifti1Header], None]


def straight(affine: np.ndarray) -> np.ndarray:
    """The affine with axes at right angles."""
    axes, lengths = np.linalg.qr(affine[:3, :3])
    result = affine.copy()
    result[:3, :3] = axes * np.diag(lengths)
    return result


def write(
    path: Path, *, codes: tuple[int, int] = (1, 1), edit: Edit | None = None, affine: np.ndarray = AFFINE
) -> Path:
    """A scan with these codes of sform and qform, whose header is edited byte by byte."""
    affine = straight(affine) if affine is AFFINE else affine
    image = nibabel.Nifti1Image(VALUES, affine)
    image.set_sform(affine, codes[0])
    image.set_qform(affine, codes[1])
    image.header.set_xyzt_units("mm")
    nibabel.save(image, path)
    if edit is not None:
        data = bytearray(path.read_bytes())
        header = nibabel.Nifti1Header(bytes(data[:348]), check=False)
        edit(header)
        data[:348] = header.binaryblock
        path.write_bytes(bytes(data))
    return path


def itk_matrix(path: Path) -> np.ndarray:
    """4x4 to LPS mm of the scan as ITK reads it."""
    reader = sitk.ImageFileReader()
    reader.SetFileName(str(path))
    reader.SetImageIO("NiftiImageIO")
    reader.ReadImageInformation()
    matrix = np.eye(4)
    matrix[:3, :3] = np.reshape(reader.GetDirection(), (3, 3)) * reader.GetSpacing()
    matrix[:3, 3] = reader.GetOrigin()
    return matrix


def field(name: str, value: object) -> Edit:
    def edit(header: nibabel.Nifti1Header) -> None:
        header[name] = value

    return edit


def unchanged(_: nibabel.Nifti1Header) -> None:
    return


moved = field("srow_z", [0, 0, 2.5, -200])
turned = field("srow_x", [0.8, 0, 0, -90])
HEADERS: list[tuple[str, tuple[int, int], Edit, str]] = [
    ("both alike", (1, 1), unchanged, ""),
    ("sform alone", (2, 0), unchanged, ""),
    ("qform alone", (0, 1), unchanged, ""),
    ("sform of a template", (4, 0), unchanged, ""),
    ("neither", (0, 0), unchanged, "how the patient lies"),
    ("a negative code counts as none", (1, 0), field("sform_code", -1), "how the patient lies"),
    ("a registered sform beside the scanner's qform", (2, 1), moved, "100 mm apart; the qform was taken"),
    ("two scanner transforms", (1, 1), moved, "100 mm apart; the sform was taken"),
    ("scanner sform, aligned qform", (1, 2), moved, "the sform was taken"),
    ("a sheared sform with a qform", (1, 1), field("srow_y", [0, -0.7, 0.9, 70]), "the qform was taken"),
    ("pixdim beside an unscaled sform", (1, 0), field("pixdim", [1, 1.5, 1.5, 5, 0, 0, 0, 0]), "pixdim was taken"),
    ("metres", (1, 1), field("xyzt_units", 1), "metres"),
    ("micrometres", (0, 1), field("xyzt_units", 3), "micrometres"),
    ("no unit", (1, 1), field("xyzt_units", 0), ""),
    ("qfac left at 0", (0, 1), field("pixdim", [0, 0.8, 0.7, 2.5, 0, 0, 0, 0]), ""),
    ("qfac of any negative number", (0, 1), field("pixdim", [-0.5, 0.8, 0.7, 2.5, 0, 0, 0, 0]), ""),
]


@pytest.mark.parametrize(("codes", "edit", "note"), [case[1:] for case in HEADERS], ids=[case[0] for case in HEADERS])
def test_the_geometry_of_a_scan_is_that_of_itk(tmp_path: Path, codes: tuple[int, int], edit: Edit, note: str) -> None:
    path = write(tmp_path / "scan.nii", codes=codes, edit=edit)
    if "metres" in note:
        # Lengths are written in the unit of the header, because a voxel of 0.8 m is not plausible.
        factor = 1e-3 if note == "metres" else 1e3
        path = write(tmp_path / "scan.nii", codes=codes, edit=edit, affine=np.diag([factor, factor, factor, 1]))
    volume = read_volume(path)
    np.testing.assert_allclose(volume.index_to_lps, itk_matrix(path), atol=2e-3)
    np.testing.assert_array_equal(volume.array, VALUES.T)
    assert note in " ".join(volume.notes)
    assert bool(volume.notes) == bool(note)


@pytest.mark.parametrize("codes", [(1, 0), (0, 1), (1, 1)])
@pytest.mark.parametrize("spacing", [0.0, -0.8, float("nan")])
def test_a_spacing_that_is_not_positive_is_refused(tmp_path: Path, codes: tuple[int, int], spacing: float) -> None:
    path = write(tmp_path / "scan.nii", codes=codes, edit=field("pixdim", [1, spacing, 0.7, 2.5, 0, 0, 0, 0]))
    with pytest.raises(DiffusionSegmentError, match="zero or negative") as caught:
        read_volume(path)
    assert caught.value.code is ErrorCode.GEOMETRY
    assert str(path) in caught.value.message


def test_an_intercept_without_a_slope_is_refused(tmp_path: Path) -> None:
    def edit(header: nibabel.Nifti1Header) -> None:
        header["scl_slope"], header["scl_inter"] = 0, -1024

    with pytest.raises(DiffusionSegmentError, match="slope of 0 and") as caught:
        read_volume(write(tmp_path / "scan.nii", edit=edit))
    assert caught.value.code is ErrorCode.INPUT_VALUES


@pytest.mark.parametrize(
    ("edit", "reason"),
    [
        (field("sform_code", 27104), "its sform_code is 27104"),
        (field("qform_code", 6), "its qform_code is 6"),
        (field("srow_z", [0, 0, -1e-38, -50]), "its sform is damaged"),
    ],
)
def test_transforms_that_readers_interpret_differently_are_refused(tmp_path: Path, edit: Edit, reason: str) -> None:
    with pytest.raises(DiffusionSegmentError, match=reason):
        read_volume(write(tmp_path / "scan.nii", edit=edit))


@pytest.mark.parametrize("offset", [0.0, -0.0, 348.0, -16.0])
def test_voxels_that_begin_inside_the_header_are_refused(tmp_path: Path, offset: float) -> None:
    """ITK would read the header as voxels, nibabel the bytes after it."""
    path = tmp_path / "scan.nii"
    write_volume(Volume(np.arange(60, dtype=np.int16).reshape(3, 4, 5), np.eye(4)), path)
    data = bytearray(path.read_bytes())
    data[108:112] = np.float32(offset).tobytes()
    path.write_bytes(data)
    with pytest.raises(DiffusionSegmentError) as caught:
        read_volume(path)
    assert caught.value.code is ErrorCode.INPUT_UNREADABLE


def as_plain_named_gz(folder: Path) -> Path:
    return write(folder / "scan.nii").rename(folder / "scan.nii.gz")


def as_gzip_named_nii(folder: Path) -> Path:
    path = write(folder / "scan.nii")
    path.write_bytes(gzip.compress(path.read_bytes()))
    return path


def as_upper_case(folder: Path) -> Path:
    return write(folder / "scan.nii.gz").rename(folder / "SCAN.NII.GZ")


def with_another_name(folder: Path) -> Path:
    return write(folder / "scan.nii").rename(folder / "volume.bin")


def as_nifti_2(folder: Path) -> Path:
    nibabel.save(nibabel.Nifti2Image(VALUES, straight(AFFINE)), folder / "scan.nii.gz")
    return folder / "scan.nii.gz"


def as_pair(folder: Path) -> Path:
    nibabel.save(nibabel.Nifti1Pair(VALUES, straight(AFFINE)), folder / "scan.hdr")
    return folder / "scan.hdr"


def as_pair_by_its_voxels(folder: Path) -> Path:
    as_pair(folder)
    return folder / "scan.img"


def big_endian(folder: Path) -> Path:
    header = nibabel.Nifti1Header(endianness=">")
    header.set_data_dtype(">i2")
    image = nibabel.Nifti1Image(VALUES.astype(">i2"), straight(AFFINE), header)
    nibabel.save(image, folder / "scan.nii")
    return folder / "scan.nii"


@pytest.mark.parametrize(
    "make",
    [
        *(as_plain_named_gz, as_gzip_named_nii, as_upper_case, with_another_name, as_nifti_2, as_pair),
        *(as_pair_by_its_voxels, big_endian),
    ],
)
def test_the_format_is_detected_from_the_content_and_not_from_the_name(
    tmp_path: Path, make: Callable[[Path], Path]
) -> None:
    volume = read_volume(make(tmp_path))
    np.testing.assert_array_equal(volume.array, VALUES.T)
    assert volume.array.dtype == np.int16
    np.testing.assert_allclose(np.diag([-1, -1, 1, 1]) @ volume.index_to_lps, straight(AFFINE), atol=1e-4)


def empty(folder: Path) -> Path:
    (folder / "scan.nii.gz").touch()
    return folder / "scan.nii.gz"


def compressed_twice(folder: Path) -> Path:
    path = write(folder / "scan.nii")
    path.write_bytes(gzip.compress(gzip.compress(path.read_bytes())))
    return path


def a_pointer(folder: Path) -> Path:
    (folder / "scan.nii.gz").write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n")
    return folder / "scan.nii.gz"


def a_web_page(folder: Path) -> Path:
    (folder / "scan.nii.gz").write_text("<!DOCTYPE html><html>Not found</html>")
    return folder / "scan.nii.gz"


def analyze(folder: Path) -> Path:
    nibabel.save(nibabel.AnalyzeImage(VALUES, np.eye(4)), folder / "scan.hdr")
    return folder / "scan.hdr"


def header_alone(folder: Path) -> Path:
    as_pair(folder)
    (folder / "scan.img").unlink()
    return folder / "scan.hdr"


def cut_short(folder: Path) -> Path:
    path = write(folder / "scan.nii")
    path.write_bytes(path.read_bytes()[:-10])
    return path


def cut_short_in_its_compression(folder: Path) -> Path:
    path = write(folder / "scan.nii.gz")
    path.write_bytes(path.read_bytes()[:-100])
    return path


REFUSED: list[tuple[Callable[[Path], Path], str]] = [
    (empty, "is empty"),
    (compressed_twice, "compressed twice"),
    (a_pointer, "Git LFS pointer"),
    (a_web_page, "web page"),
    (analyze, "Analyze 7.5"),
    (header_alone, "without voxels"),
    (cut_short, "cut short"),
    (cut_short_in_its_compression, "cut short"),
]


@pytest.mark.parametrize(("make", "reason"), REFUSED, ids=[make.__name__ for make, _ in REFUSED])
def test_an_error_states_file_reason_and_hint(
    tmp_path: Path, make: Callable[[Path], Path], reason: str, capfd: pytest.CaptureFixture[str]
) -> None:
    path = make(tmp_path)
    with pytest.raises(DiffusionSegmentError, match=reason) as caught:
        read_volume(path)
    assert str(path) in caught.value.message
    assert caught.value.hint
    assert capfd.readouterr() == ("", "")


SHEARED = np.array([[-0.8, 0, 0, 90], [0, -0.7, 0.9, 70], [0, 0, 2.5, -300], [0, 0, 0, 1.0]])


def test_a_sheared_scan_keeps_its_affine_and_itk_refuses_the_written_file(tmp_path: Path) -> None:
    volume = read_volume(write(tmp_path / "scan.nii", codes=(1, 0), affine=SHEARED))
    np.testing.assert_allclose(np.diag([-1, -1, 1, 1]) @ volume.index_to_lps, SHEARED, atol=1e-5)
    write_volume(Volume(volume.array, volume.index_to_lps), tmp_path / "again.nii.gz")
    np.testing.assert_allclose(nibabel.load(tmp_path / "again.nii.gz").affine, SHEARED, atol=1e-5)
    with pytest.raises(RuntimeError, match="orthonormal"):
        sitk.ReadImage(str(tmp_path / "again.nii.gz"))


@pytest.mark.skipif(real_data.folder() is None, reason="no real data on this machine; written headers stand in")
def test_a_real_scan_is_read_equally_with_another_file_name(tmp_path: Path) -> None:
    files = sorted((real_data.folder() or Path()).rglob("*.nii.gz"))
    if not files:
        pytest.skip("the real data has no NIfTI files")
    scan = min(files, key=lambda path: path.stat().st_size)
    shutil.copy(scan, tmp_path / "scan.nii")
    again, before = read_volume(tmp_path / "scan.nii"), read_volume(scan)
    np.testing.assert_array_equal(again.array, before.array)
    np.testing.assert_array_equal(again.index_to_lps, before.index_to_lps)
