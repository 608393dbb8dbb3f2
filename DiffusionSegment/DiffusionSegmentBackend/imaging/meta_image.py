"""MetaImage (.mha, .mhd; https://itk.org/Wiki/ITK/MetaIO/Documentation) with the geometry of ITK 5.4."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from .text_headers import NotAVolume, axis_count, counts, header_lines, numbers
from .volume import Volume
from .voxel_files import VoxelLayout, file_beside, files_of_pattern, read_voxels

_TYPES = {
    "MET_CHAR": "int8",
    "MET_UCHAR": "uint8",
    "MET_SHORT": "int16",
    "MET_USHORT": "uint16",
    "MET_INT": "int32",
    "MET_UINT": "uint32",
    "MET_LONG": "int32",
    "MET_ULONG": "uint32",
    "MET_LONG_LONG": "int64",
    "MET_ULONG_LONG": "uint64",
    "MET_FLOAT": "float32",
    "MET_DOUBLE": "float64",
}
_DATA = "ElementDataFile"
_ORIGINS = ("Offset", "Position", "Origin")
_DIRECTIONS = ("TransformMatrix", "Rotation", "Orientation")
_NO_RESCALING = {"Slope": "1", "Offset": "0"}
_MM = ("mm", "?", "")
_NO_ORIENTATION = "The header does not say how the patient lies: left and right may be swapped."


def read_meta_image(path: Path) -> Volume:
    """Read a MetaImage, or a header with separate voxels; CompressedDataSize, which some writers omit, is not used.

    Raises:
        ValueError: with what is wrong, or not supported.
        OSError: a file cannot be read.
    """
    fields, end = _read_header(path)
    axes = axis_count(fields.get("NDims", ""))
    sizes = counts(fields.get("DimSize", ""), axes)
    channels = counts(fields.get("ElementNumberOfChannels", "1"), 1)[0]
    _check_supported(fields)
    count = channels * int(np.prod(sizes, dtype=object))
    values = read_voxels(_files(fields, sizes, path, end), count, _layout(fields))
    array = values.reshape(*sizes[::-1], channels)
    # Axes of one voxel beyond the third are not spatial.
    while array.ndim > 4 and array.shape[0] == 1:
        array = array[0]
    if array.ndim != 4:
        raise NotAVolume(f"{array.ndim - 1}D image")
    matrix, notes = _matrix(fields, axes)
    return Volume(array[..., 0] if channels == 1 else array, matrix, notes)


def _read_header(path: Path) -> tuple[dict[str, str], int]:
    fields: dict[str, str] = {}
    listed: list[str] = []
    lines = header_lines(path)
    for line, end in lines:
        name, equals, value = (part.strip() for part in line.partition("="))
        if not line.strip() or line.startswith("#"):
            continue
        if not equals or name in fields:
            raise ValueError(f"the line '{line[:40]}' of its header is damaged, or stands there twice")
        fields[name] = value
        if name == _DATA:
            if value.upper().startswith("LIST"):
                listed = [text for text, _ in lines if text.strip()]
            return {**fields, "": "\n".join(listed)}, end
    raise ValueError("its header does not end")


def _check_supported(fields: dict[str, str]) -> None:
    """Refuse features that readers of MetaImage interpret differently.

    Raises:
        ValueError: with what it is.
    """
    rescaling = [fields.get(f"ElementToIntensityFunction{name}", plain) for name, plain in _NO_RESCALING.items()]
    if numbers("ElementToIntensityFunction", rescaling, 2) != [1.0, 0.0]:
        raise ValueError("its values are to be rescaled (ElementToIntensityFunction), which is not supported")
    if fields.get("DistanceUnits", "mm").lower() not in _MM:
        raise ValueError(f"its lengths are in {fields['DistanceUnits'][:20]}, not in millimetres")


def _files(fields: dict[str, str], sizes: list[int], path: Path, end: int) -> list[tuple[Path, int]]:
    """The files of the voxels in order, and the offset of the voxels in each."""
    named = fields[_DATA]
    if named.upper() == "LOCAL":
        return [(path, end)]
    if named.upper().startswith("LIST"):
        files = [file_beside(name, path) for name in fields[""].splitlines()]
        each = named.split()[1:2]
    elif "%" in named:
        files = files_of_pattern(named, path)
        each = []
    else:
        return [(file_beside(named, path), 0)]
    axes = counts(each[0].rstrip("Dd"), 1)[0] if each else len(sizes) - 1
    expected = int(np.prod(sizes[axes:], dtype=object))
    if len(files) != expected:
        raise ValueError(f"it names {len(files)} files for {expected} parts")
    return [(file, 0) for file in files]


def _layout(fields: dict[str, str]) -> VoxelLayout:
    kind = fields.get("ElementType", "")
    if kind not in _TYPES:
        raise ValueError(f"its ElementType '{kind[:40]}' is not supported")
    big = any(_true(fields, name) for name in ("BinaryDataByteOrderMSB", "ElementByteOrderMSB"))
    skip = fields.get("HeaderSize", "0")
    if not (skip == "-1" or (skip.isdecimal() and len(skip) < 10)):
        raise ValueError("its HeaderSize is damaged")
    binary = _true(fields, "BinaryData")
    encoding = "zlib" if _true(fields, "CompressedData") else "raw" if binary else "ascii"
    dtype = np.dtype(_TYPES[kind]).newbyteorder(">" if big else "<")
    local = fields[_DATA].upper() == "LOCAL"
    return VoxelLayout(dtype=dtype, encoding=encoding, skipped_bytes=0 if local else int(skip))


def _true(fields: dict[str, str], name: str) -> bool:
    return fields.get(name, "False")[:1] in ("T", "t", "1")


def _matrix(fields: dict[str, str], axes: int) -> tuple[NDArray[np.float64], tuple[str, ...]]:
    """Direction (a row of TransformMatrix is an axis), ElementSpacing or else ElementSize, and Offset."""
    spacing = next((fields[name] for name in ("ElementSpacing", "ElementSize") if name in fields), None)
    origin = next((fields[name] for name in _ORIGINS if name in fields), None)
    direction = next((fields[name] for name in _DIRECTIONS if name in fields), None)
    matrix = np.eye(4)
    if direction is not None:
        rows = np.reshape(numbers("TransformMatrix", direction.split(), axes * axes), (axes, axes))
        matrix[:3, :3] = rows[:3, :3].T
    if spacing is not None:
        matrix[:3, :3] *= numbers("ElementSpacing", spacing.split(), axes)[:3]
    if origin is not None:
        matrix[:3, 3] = numbers("Offset", origin.split(), axes)[:3]
    return matrix, () if direction is not None else (_NO_ORIENTATION,)
