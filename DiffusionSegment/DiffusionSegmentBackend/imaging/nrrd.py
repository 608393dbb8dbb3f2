"""NRRD as 3D Slicer, ITK and Teem write it (https://teem.sourceforge.net/nrrd/format.html), read without ITK.

Teem's own reader, which is part of ITK, ends the process on some damaged headers, and does not read bzip2. The geometry
is that of itk::NrrdImageIO of ITK 5.4.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .text_headers import NotAVolume, axis_count, counts, header_lines, numbers
from .voxel_files import VoxelLayout, file_beside, files_of_pattern, read_voxels

_TYPES = {
    "int8": ("int8", "int8_t", "signed char"),
    "uint8": ("uint8", "uint8_t", "uchar", "unsigned char"),
    "int16": ("int16", "int16_t", "short", "short int", "signed short", "signed short int"),
    "uint16": ("uint16", "uint16_t", "ushort", "unsigned short", "unsigned short int"),
    "int32": ("int32", "int32_t", "int", "signed int"),
    "uint32": ("uint32", "uint32_t", "uint", "unsigned int"),
    "int64": ("int64", "int64_t", "longlong", "long long", "long long int", "signed long long", "signed long long int"),
    "uint64": ("uint64", "uint64_t", "ulonglong", "unsigned long long", "unsigned long long int"),
    "float32": ("float",),
    "float64": ("double",),
}
_DTYPES = {name: np.dtype(dtype) for dtype, names in _TYPES.items() for name in names}
_ENCODINGS = {"raw": "raw", "gzip": "gzip", "gz": "gzip", "bzip2": "bzip2", "bz2": "bzip2"}
_ENCODINGS |= {"ascii": "ascii", "text": "ascii", "txt": "ascii", "hex": "hex"}
# Signs that bring a space's axes to left, posterior, superior. As in ITK, a space without anatomy counts as LPS.
_TO_LPS = {
    "right-anterior-superior": (-1, -1, 1),
    "left-anterior-superior": (1, -1, 1),
    "left-posterior-superior": (1, 1, 1),
}
_TO_LPS |= {"ras": (-1, -1, 1), "las": (1, -1, 1), "lps": (1, 1, 1)}
# Teem reads these fields without the space as well.
_FIELDS = (
    *("data file", "line skip", "byte skip", "axis mins", "axis maxs", "block size", "old min", "old max"),
    *("space origin", "space directions", "space dimension", "space units", "sample units", "measurement frame"),
)
_SPELLINGS = {name.replace(" ", ""): name for name in _FIELDS}
_MM = {"mm", "millimeter", "millimeters", "millimetre", "millimetres", "", "???"}
_SPATIAL_KINDS = {"domain", "space"}
_NO_ORIENTATION = "The header does not say how the patient lies: left and right may be swapped."


@dataclass(frozen=True)
class NrrdImage:
    """`array` (k, j, i) or, with several values a voxel, (k, j, i, c); `index_to_lps` is 4x4 in mm.

    `pairs` are the header's key/value pairs, in which Slicer stores the properties of segments.
    """

    array: NDArray[Any]
    index_to_lps: NDArray[np.float64]
    pairs: dict[str, str]
    notes: tuple[str, ...]


@dataclass(frozen=True)
class _Header:
    fields: dict[str, str]
    pairs: dict[str, str]
    listed: tuple[str, ...]
    end: int


def read_nrrd(path: Path) -> NrrdImage:
    """Read a NRRD file, or a header with separate voxels.

    Raises:
        ValueError: with what is wrong, or not supported.
        OSError: a file cannot be read.
    """
    header = _read_header(path)
    sizes = counts(header.fields.get("sizes", ""), axis_count(header.fields.get("dimension", "")))
    spatial, others = _axes(header.fields, sizes)
    values = read_voxels(_files(header, sizes, path), int(np.prod(sizes, dtype=object)), _layout(header.fields))
    # The first axis of a NRRD is the fastest.
    array = values.reshape(sizes[::-1])
    array = np.moveaxis(array, [len(sizes) - 1 - axis for axis in others], range(-len(others), 0))
    array = array.reshape(*array.shape[:3], -1)
    matrix, notes = _matrix(header.fields, spatial, len(sizes))
    return NrrdImage(array[..., 0] if array.shape[3] == 1 else array, matrix, header.pairs, notes)


def _read_header(path: Path) -> _Header:
    fields: dict[str, str] = {}
    pairs: dict[str, str] = {}
    lines = header_lines(path)
    magic, end = next(lines, ("", 0))
    if not re.fullmatch(r"NRRD000[1-5]", magic):
        raise ValueError("it is a NRRD file of an unknown version")
    for line, end in lines:
        if not line.strip():
            break
        name, colon, value = line.partition(":")
        if line.startswith("#"):
            continue
        if value.startswith("="):
            pairs[name] = value[1:].strip()
            continue
        name = _SPELLINGS.get(name.lower(), name.lower())
        if not colon or name in fields:
            raise ValueError(f"the line '{line[:40]}' of its header is damaged, or stands there twice")
        fields[name] = value.strip()
        if name == "data file" and fields[name].upper().startswith("LIST"):
            return _Header(fields, pairs, tuple(text for text, _ in lines if text.strip()), end)
    return _Header(fields, pairs, (), end)


def _files(header: _Header, sizes: list[int], path: Path) -> list[tuple[Path, int]]:
    """The files of the voxels in their order, and where in each they begin."""
    named = header.fields.get("data file")
    if named is None:
        return [(path, header.end)]
    if named.upper().startswith("LIST"):
        files = [file_beside(name, path) for name in header.listed]
        each = named.split()[1:2]
    elif "%" in named:
        files = files_of_pattern(named, path)
        each = named.split()[4:5]
    else:
        return [(file_beside(named, path), 0)]
    # How many axes a file has; without a number, all but the slowest.
    axes = counts(each[0], 1)[0] if each else len(sizes) - 1
    expected = int(np.prod(sizes[axes:], dtype=object)) if axes < len(sizes) else len(files)
    if len(files) != expected or not files:
        raise ValueError(f"it names {len(files)} files for {expected} parts")
    return [(file, 0) for file in files]


def _layout(fields: dict[str, str]) -> VoxelLayout:
    dtype = _DTYPES.get(fields.get("type", "").lower())
    encoding = _ENCODINGS.get(fields.get("encoding", "").lower())
    if dtype is None or encoding is None:
        name = "type" if dtype is None else "encoding"
        raise ValueError(f"its {name} '{fields.get(name, '')[:40]}' is not supported")
    endian = fields.get("endian", "").lower()
    if encoding != "ascii" and dtype.itemsize > 1:
        if endian not in ("little", "big"):
            raise ValueError("it does not tell the order of bytes (endian)")
        dtype = dtype.newbyteorder("<" if endian == "little" else ">")
    skips = [fields.get(name, "0") for name in ("line skip", "byte skip")]
    if not all(re.fullmatch(r"\d{1,9}|-1", text) for text in skips) or skips[0] == "-1":
        raise ValueError("its line skip or byte skip is damaged")
    return VoxelLayout(dtype=dtype, encoding=encoding, skipped_lines=int(skips[0]), skipped_bytes=int(skips[1]))


def _axes(fields: dict[str, str], sizes: list[int]) -> tuple[list[int], list[int]]:
    """The three axes of space, and the others.

    Raises:
        NotAVolume: there are not three axes of space.
    """
    axes = range(len(sizes))
    kinds = fields.get("kinds", "").lower().split()
    if "space directions" in fields:
        spatial = [axis for axis, vector in enumerate(_vectors(fields["space directions"])) if vector is not None]
    elif len(kinds) == len(sizes) and _SPATIAL_KINDS & set(kinds):
        spatial = [axis for axis in axes if kinds[axis] in _SPATIAL_KINDS]
    else:
        # Without kinds: axes of one voxel beyond the third are not spatial.
        spatial = [axis for axis in axes if axis < 3 or sizes[axis] > 1]
    if len(spatial) != 3 or spatial[-1] >= len(sizes):
        raise NotAVolume(f"{len(spatial)}D image")
    return spatial, [axis for axis in axes if axis not in spatial]


def _vectors(text: str) -> list[list[str] | None]:
    """The words of "(1,0,0) none (0,0,1)" by axis."""
    vectors = re.findall(r"\(([^()]*)\)|(\S+)", text)
    if any(word and word.lower() != "none" for _, word in vectors):
        raise ValueError("space directions is damaged")
    return [[part.strip() for part in inside.split(",")] if not word else None for inside, word in vectors]


def _matrix(fields: dict[str, str], spatial: list[int], axes: int) -> tuple[NDArray[np.float64], tuple[str, ...]]:
    units = {unit.lower() for unit in re.findall(r'"([^"]*)"', fields.get("space units", ""))}
    if not units <= _MM:
        raise ValueError(f"its lengths are in {', '.join(sorted(units - _MM))}, not in millimetres")
    space = fields.get("space", "").lower()
    signs = np.array(_TO_LPS.get(space, (1, 1, 1)))
    matrix = np.eye(4)
    if "space directions" in fields:
        vectors = _vectors(fields["space directions"])
        if len(vectors) != axes:
            raise ValueError("space directions is damaged")
        for column, axis in enumerate(spatial):
            matrix[:3, column] = signs * numbers("space directions", vectors[axis] or [], 3)
    elif "spacings" in fields:
        words = fields["spacings"].split()
        spacings = [word for axis, word in enumerate(words) if axis in spatial]
        matrix[:3, :3] = np.diag(numbers("spacings", spacings, 3))
    if "space origin" in fields:
        origin = re.fullmatch(r"\(([^()]*)\)", fields["space origin"])
        words = [part.strip() for part in origin.group(1).split(",")] if origin else []
        matrix[:3, 3] = signs * numbers("space origin", words, 3)
    elif "axis mins" in fields:
        raise ValueError("it gives its place by axis mins, which is not supported")
    return matrix, () if space in _TO_LPS else (_NO_ORIENTATION,)
