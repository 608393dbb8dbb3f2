"""NRRD and MetaImage in every encoding and layout: read as by ITK, or refused with the reason."""

from __future__ import annotations

import bz2
import gzip
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk
from DiffusionSegmentBackend.errors import DiffusionSegmentError, ErrorCode
from DiffusionSegmentBackend.imaging.volume_io import modality_of, read_volume

VALUES = np.random.default_rng(1).integers(-1000, 1000, (4, 5, 6)).astype("<i2")
RAW = VALUES.tobytes()
MATRIX = np.array([[0.8, 0.1, 0, -90], [-0.1, 0.7, 0.2, -70], [0, 0.3, 2.5, 300], [0, 0, 0, 1.0]])
DIRECTIONS = " ".join("(" + ",".join(f"{v:g}" for v in MATRIX[:3, c]) + ")" for c in range(3))
Fields = dict[str, str | None]
NRRD: Fields = {
    "type": "int16",
    "dimension": "3",
    "space": "left-posterior-superior",
    "space dimension": None,
    "sizes": "6 5 4",
    "space directions": DIRECTIONS,
    "kinds": "domain domain domain",
    "endian": "little",
    "encoding": "raw",
    "space origin": "(-90,-70,300)",
}
META: Fields = {
    "ObjectType": "Image",
    "NDims": "3",
    "BinaryData": "True",
    "BinaryDataByteOrderMSB": "False",
    "CompressedData": "False",
    "TransformMatrix": "0 1 0 -1 0 0 0 0 1",
    "Offset": "-90 -70 300",
    "CenterOfRotation": "0 0 0",
    "ElementSpacing": "0.8 0.7 2.5",
    "DimSize": "6 5 4",
    "ElementType": "MET_SHORT",
    "ElementDataFile": "LOCAL",
}


def write_nrrd(path: Path, data: bytes = RAW, *, line: str = "\n", end: str = "", **changed: str | None) -> Path:
    """A NRRD file with some fields changed, and others, which are None, left out; `end` follows its last field."""
    fields = NRRD | {name.replace("_", " "): value for name, value in changed.items()}
    lines = ["NRRD0005", *(f"{name}: {value}" for name, value in fields.items() if value is not None)]
    path.write_bytes((line.join(lines) + line + end + line).encode() + data)
    return path


def write_meta(path: Path, data: bytes = RAW, **changed: str | None) -> Path:
    """A MetaImage with some fields changed, and others, which are None, left out."""
    fields = META | changed
    fields["ElementDataFile"] = fields.pop("ElementDataFile")
    path.write_bytes("".join(f"{n} = {v}\n" for n, v in fields.items() if v is not None).encode() + data)
    return path


def beside(folder: Path, name: str = "values.raw", data: bytes = RAW) -> str:
    (folder / name).parent.mkdir(exist_ok=True)
    (folder / name).write_bytes(data)
    return name


def slices(folder: Path, pattern: str = "s{:03d}.raw") -> list[str]:
    return [beside(folder, pattern.format(k), VALUES[k].tobytes()) for k in range(4)]


def listed(folder: Path, how: str, names: list[str]) -> Path:
    path = write_nrrd(folder / "scan.nhdr", b"", data_file="\n".join([how, *names]))
    # An empty line would be one more name.
    path.write_bytes(path.read_bytes().rstrip() + b"\n")
    return path


def nrrd_list(folder: Path) -> Path:
    return listed(folder, "LIST", slices(folder))


def nrrd_list_of_rows(folder: Path) -> Path:
    rows = [beside(folder, f"r{n:02d}.raw", row.tobytes()) for n, row in enumerate(VALUES.reshape(-1, 6))]
    return listed(folder, "LIST 1", rows)


def nrrd_list_of_slabs(folder: Path) -> Path:
    halves = [beside(folder, f"h{n}.raw", VALUES[2 * n : 2 * n + 2].tobytes()) for n in range(2)]
    return listed(folder, "LIST 3", halves)


def nrrd_pattern_backwards(folder: Path) -> Path:
    for k in range(4):
        beside(folder, f"s{k:03d}.raw", VALUES[3 - k].tobytes())
    return write_nrrd(folder / "scan.nhdr", b"", data_file="s%03d.raw 3 0 -1")


def nrrd_pattern(folder: Path) -> Path:
    slices(folder)
    return write_nrrd(folder / "scan.nhdr", b"", data_file="./s%03d.raw 0 3 1 2")


def meta_list(folder: Path) -> Path:
    return write_meta(folder / "scan.mhd", "\n".join(slices(folder)).encode(), ElementDataFile="LIST")


def meta_pattern(folder: Path) -> Path:
    slices(folder)
    return write_meta(folder / "scan.mhd", b"", ElementDataFile="s%03d.raw 0 3 1")


PLAIN: dict[str, Callable[[Path], Path]] = {
    "nrrd raw": lambda f: write_nrrd(f / "scan.nrrd"),
    "nrrd gzip": lambda f: write_nrrd(f / "scan.nrrd", gzip.compress(RAW), encoding="gzip"),
    "nrrd ascii": lambda f: write_nrrd(f / "scan.nrrd", " ".join(map(str, VALUES.ravel())).encode(), encoding="ascii"),
    "nrrd hex": lambda f: write_nrrd(f / "scan.nrrd", RAW.hex().encode(), encoding="hex"),
    "nrrd CRLF": lambda f: write_nrrd(f / "scan.nrrd", line="\r\n"),
    "nrrd big-endian": lambda f: write_nrrd(f / "scan.nrrd", VALUES.astype(">i2").tobytes(), endian="big"),
    "nrrd comments and pairs": lambda f: write_nrrd(f / "scan.nrrd", end="# a comment\nkey:=value: 1\n"),
    "nrrd RAS": lambda f: write_nrrd(f / "scan.nrrd", space="right-anterior-superior"),
    "nrrd LAS": lambda f: write_nrrd(f / "scan.nrrd", space="LAS"),
    "nrrd skips bytes": lambda f: write_nrrd(f / "scan.nrrd", b"12345" + RAW, byte_skip="5"),
    "nrrd from the end": lambda f: write_nrrd(f / "scan.nrrd", b"a header" + RAW, byte_skip="-1"),
    "nrrd skips lines": lambda f: write_nrrd(f / "scan.nrrd", b"one\ntwo\n" + RAW, line_skip="2"),
    "nrrd detached": lambda f: write_nrrd(f / "scan.nhdr", b"", data_file=beside(f)),
    "nrrd detached, dot and slash": lambda f: write_nrrd(f / "scan.nhdr", b"", data_file="./" + beside(f)),
    "nrrd detached, below": lambda f: write_nrrd(f / "scan.nhdr", b"", data_file=beside(f, "voxels/v.raw")),
    "nrrd fields without their space": lambda f: write_nrrd(
        f / "scan.nrrd",
        **{"space origin": None, "spaceorigin": NRRD["space origin"]},
        **{"space directions": None, "spacedirections": NRRD["space directions"]},
    ),
    "nrrd detached, old spelling": lambda f: write_nrrd(f / "scan.nhdr", b"", datafile=beside(f)),
    "nrrd list": nrrd_list,
    "nrrd list of rows": nrrd_list_of_rows,
    "nrrd list of slabs": nrrd_list_of_slabs,
    "nrrd pattern": nrrd_pattern,
    "nrrd pattern backwards": nrrd_pattern_backwards,
    "nrrd one component first": lambda f: write_nrrd(
        f / "scan.nrrd",
        dimension="4",
        sizes="1 6 5 4",
        kinds="vector domain domain domain",
        space_directions=f"none {DIRECTIONS}",
    ),
    "nrrd one component last": lambda f: write_nrrd(
        f / "scan.nrrd",
        dimension="4",
        sizes="6 5 4 1",
        kinds="domain domain domain list",
        space_directions=f"{DIRECTIONS} none",
    ),
    "meta": lambda f: write_meta(f / "scan.mha"),
    "meta compressed": lambda f: write_meta(
        f / "scan.mha", zlib.compress(RAW), CompressedData="True", CompressedDataSize=str(len(zlib.compress(RAW)))
    ),
    "meta big-endian": lambda f: write_meta(
        f / "scan.mha", VALUES.astype(">i2").tobytes(), BinaryDataByteOrderMSB="True"
    ),
    "meta ascii": lambda f: write_meta(
        f / "scan.mha", " ".join(map(str, VALUES.ravel())).encode() + b"\n", BinaryData="False", CompressedData=None
    ),
    "meta detached": lambda f: write_meta(f / "scan.mhd", b"", ElementDataFile=beside(f)),
    "meta detached from the end": lambda f: write_meta(
        f / "scan.mhd", b"", ElementDataFile=beside(f, data=b"1234" + RAW), HeaderSize="-1"
    ),
    "meta list": meta_list,
    "meta pattern": meta_pattern,
    "meta with element size alone": lambda f: write_meta(
        f / "scan.mha", ElementSpacing=None, ElementSize="0.8 0.7 2.5"
    ),
    "meta position": lambda f: write_meta(f / "scan.mha", Offset=None, Position="-90 -70 300"),
}


@pytest.mark.parametrize("make", PLAIN.values(), ids=PLAIN.keys())
def test_voxels_and_geometry_are_those_of_itk(tmp_path: Path, make: Callable[[Path], Path]) -> None:
    path = make(tmp_path)
    volume, image = read_volume(path), sitk.ReadImage(str(path))
    np.testing.assert_array_equal(volume.array, VALUES)
    np.testing.assert_array_equal(sitk.GetArrayFromImage(image).reshape(VALUES.shape), VALUES)
    corners = [(0.0, 0.0, 0.0), (5.0, 0.0, 0.0), (0.0, 4.0, 0.0), (5.0, 4.0, 3.0)]
    for corner in corners:
        itk = image.TransformContinuousIndexToPhysicalPoint((*corner, *(0.0,) * (image.GetDimension() - 3)))
        np.testing.assert_allclose((volume.index_to_lps @ [*corner, 1])[:3], itk[:3], atol=1e-4)
    assert volume.notes == ()
    assert modality_of(path) is None


BEYOND_ITK: dict[str, Callable[[Path], Path]] = {
    "nrrd bzip2": lambda f: write_nrrd(f / "scan.nrrd", bz2.compress(RAW), encoding="bzip2"),
    "nrrd with another name": lambda f: write_nrrd(f / "scan.nii.gz"),
    "meta without CompressedDataSize": lambda f: write_meta(f / "scan.mha", zlib.compress(RAW), CompressedData="True"),
    "meta with another name": lambda f: write_meta(f / "scan.nrrd"),
    "meta of four axes": lambda f: write_meta(
        f / "scan.mha",
        NDims="4",
        DimSize="6 5 4 1",
        TransformMatrix="0 1 0 0 -1 0 0 0 0 0 1 0 0 0 0 1",
        Offset="-90 -70 300 0",
        CenterOfRotation=None,
        ElementSpacing="0.8 0.7 2.5 1",
    ),
}


@pytest.mark.parametrize("make", BEYOND_ITK.values(), ids=BEYOND_ITK.keys())
def test_files_that_itk_cannot_read_have_the_same_geometry(tmp_path: Path, make: Callable[[Path], Path]) -> None:
    path = make(tmp_path)
    plain = write_nrrd(tmp_path / "p.nrrd") if path.read_bytes().startswith(b"NRRD") else write_meta(tmp_path / "p.mha")
    volume, other = read_volume(path), read_volume(plain)
    np.testing.assert_array_equal(volume.array, VALUES)
    np.testing.assert_allclose(volume.index_to_lps, other.index_to_lps)


@pytest.mark.parametrize(
    "make",
    [
        lambda f: write_nrrd(f / "scan.nrrd", space=None, space_directions=None, space_origin=None, spacings="1 2 3"),
        lambda f: write_nrrd(f / "scan.nrrd", space=None, space_dimension="3"),
        lambda f: write_meta(f / "scan.mha", TransformMatrix=None),
    ],
)
def test_a_header_without_orientation_gives_a_note(tmp_path: Path, make: Callable[[Path], Path]) -> None:
    path = make(tmp_path)
    image, volume = sitk.ReadImage(str(path)), read_volume(path)
    assert "left and right may be swapped" in volume.notes[0]
    itk = image.TransformIndexToPhysicalPoint((5, 4, 3))
    np.testing.assert_allclose((volume.index_to_lps @ [5, 4, 3, 1])[:3], itk, atol=1e-4)


REFUSED: dict[str, tuple[Callable[[Path], Path], ErrorCode, str]] = {
    "cut short": (lambda f: write_nrrd(f / "a.nrrd", RAW[:-1]), ErrorCode.INPUT_UNREADABLE, "cut short"),
    "cut short in gzip": (
        lambda f: write_nrrd(f / "a.nrrd", gzip.compress(RAW)[:-40], encoding="gzip"),
        *(ErrorCode.INPUT_UNREADABLE, "cut short"),
    ),
    "no gzip": (lambda f: write_nrrd(f / "a.nrrd", encoding="gzip"), ErrorCode.INPUT_UNREADABLE, "compressed voxels"),
    "unknown encoding": (lambda f: write_nrrd(f / "a.nrrd", encoding="zstd"), ErrorCode.INPUT_UNREADABLE, "'zstd'"),
    "unknown type": (lambda f: write_nrrd(f / "a.nrrd", type="block"), ErrorCode.INPUT_UNREADABLE, "'block'"),
    "micrometres": (
        lambda f: write_nrrd(f / "a.nrrd", space_units='"um" "um" "um"'),
        *(ErrorCode.INPUT_UNREADABLE, "lengths are in um"),
    ),
    "no order of bytes": (
        lambda f: write_nrrd(f / "a.nrrd", endian=None),
        ErrorCode.INPUT_UNREADABLE,
        "order of bytes",
    ),
    "voxels elsewhere": (
        lambda f: write_nrrd(f / "a.nhdr", b"", data_file="../values.raw"),
        *(ErrorCode.INPUT_UNREADABLE, "own folder"),
    ),
    "voxels not there": (
        lambda f: write_nrrd(f / "a.nhdr", b"", data_file="gone.raw"),
        *(ErrorCode.INPUT_UNREADABLE, "gone.raw is not there"),
    ),
    "too few files": (
        lambda f: write_nrrd(f / "a.nhdr", b"", data_file="LIST\n" + "\n".join(slices(f)[:3])),
        *(ErrorCode.INPUT_UNREADABLE, "names 3 files for 4"),
    ),
    "flat": (
        lambda f: write_nrrd(f / "a.nrrd", dimension="2", sizes="6 20", kinds=None, space_directions="(1,0,0) (0,1,0)"),
        *(ErrorCode.INPUT_SHAPE, "2D image"),
    ),
    "colour": (
        lambda f: write_nrrd(
            f / "a.nrrd",
            dimension="4",
            sizes="3 2 5 4",
            kinds="vector domain domain domain",
            space_directions=f"none {DIRECTIONS}",
        ),
        *(ErrorCode.INPUT_SHAPE, "3 values per voxel"),
    ),
    "meta colour": (
        lambda f: write_meta(f / "a.mha", ElementNumberOfChannels="2", DimSize="3 5 4"),
        *(ErrorCode.INPUT_SHAPE, "2 values per voxel"),
    ),
    "meta cut short": (lambda f: write_meta(f / "a.mha", RAW[:-1]), ErrorCode.INPUT_UNREADABLE, "cut short"),
    "meta with a zero byte in a name": (
        lambda f: write_meta(f / "a.mha", **{"Offset": None, "Offset\0": "-90 -70 300"}),
        *(ErrorCode.INPUT_UNREADABLE, "control characters"),
    ),
    "nrrd with a zero byte in a name": (
        lambda f: write_nrrd(f / "a.nrrd", end="content\0: a scan\n"),
        *(ErrorCode.INPUT_UNREADABLE, "control characters"),
    ),
    "meta damaged spacing": (
        lambda f: write_meta(f / "a.mha", ElementSpacing="0.8 zero 2.5"),
        *(ErrorCode.INPUT_UNREADABLE, "ElementSpacing is damaged"),
    ),
    "meta without spacing": (
        lambda f: write_meta(f / "a.mha", ElementSpacing="0.8 0 2.5"),
        *(ErrorCode.GEOMETRY, "spacing of .* is zero"),
    ),
    "meta rescaled": (
        lambda f: write_meta(f / "a.mha", ElementToIntensityFunctionSlope="2"),
        *(ErrorCode.INPUT_UNREADABLE, "rescaled"),
    ),
    "meta time points": (
        lambda f: write_meta(f / "a.mha", NDims="4", DimSize="6 5 2 2"),
        *(ErrorCode.INPUT_SHAPE, "4D image"),
    ),
}


@pytest.mark.parametrize(("make", "code", "reason"), REFUSED.values(), ids=REFUSED.keys())
def test_an_error_states_file_reason_and_hint(
    tmp_path: Path, make: Callable[[Path], Path], code: ErrorCode, reason: str, capfd: pytest.CaptureFixture[str]
) -> None:
    path = make(tmp_path)
    with pytest.raises(DiffusionSegmentError, match=reason) as caught:
        read_volume(path)
    assert caught.value.code is code
    assert str(path) in caught.value.message
    assert caught.value.hint
    assert capfd.readouterr() == ("", "")
