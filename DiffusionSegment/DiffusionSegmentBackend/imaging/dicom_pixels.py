"""Pixel values of DICOM frames: from stored bits to rescaled values, with the header of each frame.

Uncompressed pixels are read directly; compressed ones are decoded by GDCM, one frame at a time, from a file with the
pixels only, so that no other part of the header can change the values.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import SimpleITK as sitk
from numpy.typing import NDArray
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.encaps import encapsulate, generate_frames
from pydicom.uid import UID, DeflatedExplicitVRLittleEndian, ExplicitVRBigEndian, SecondaryCaptureImageStorage

from ..errors import DiffusionSegmentError, ErrorCode
from .dicom_headers import Frame
from .dicom_storage import StoredPixels
from .dicom_values import DAMAGE

AIR_HU = -1024
# A padding value in the range of tissue is used only if it is at the corners of the image.
_TISSUE_HU = (-250.0, 1500.0)
_THREADS = 4


def read_values(frames: Sequence[Frame], *, modality: str) -> NDArray[Any]:
    """The frames as (k, j, i): int16 or int32 if every slope and intercept is an integer, else float32.

    Values of a CT are HU if the header states slope and intercept. Padding becomes air in a CT, else the lowest value.

    Raises:
        DiffusionSegmentError: INPUT_UNREADABLE for pixels that cannot be decoded, INPUT_SHAPE where sizes differ.
    """
    dtypes = _dtypes(frames)
    for dtype in dtypes[:-1]:
        with suppress(_DoesNotFit):
            return _read_as(dtype, frames, modality)
    return _read_as(dtypes[-1], frames, modality)


@contextmanager
def itk_warnings_off() -> Iterator[None]:
    """Suppress the warnings of ITK on standard error."""
    before = sitk.ProcessObject.GetGlobalWarningDisplay()
    sitk.ProcessObject.SetGlobalWarningDisplay(False)
    try:
        yield
    finally:
        sitk.ProcessObject.SetGlobalWarningDisplay(before)


class _DoesNotFit(Exception):
    """A value exceeds the range of the type."""


def _read_as(dtype: type[np.generic], frames: Sequence[Frame], modality: str) -> NDArray[Any]:
    first = frames[0].pixels
    array = np.empty((len(frames), first.rows, first.columns), dtype=dtype)

    def read(k: int) -> None:
        try:
            _measure(_stored(frames[k]), frames[k], array[k], modality)
        except (*DAMAGE, RuntimeError) as error:
            raise _undecodable(frames[k], error) from error

    try:
        with ThreadPoolExecutor(max_workers=_THREADS) as pool:
            for _ in pool.map(read, range(len(frames))):
                pass
    finally:
        _packed.cache_clear()
        _inflated.cache_clear()
    return array


def same_pixels(first: Frame, second: Frame) -> bool:
    """Whether two frames store the same values; False if one cannot be decoded."""
    try:
        return bool(np.array_equal(_stored(first), _stored(second)))
    except (*DAMAGE, RuntimeError):
        return False


def _dtypes(frames: Sequence[Frame]) -> list[type[np.generic]]:
    """The types to try: the smallest possible integers, else float32."""
    lowest, highest = 0.0, 0.0
    for frame in frames:
        if frame.slope != int(frame.slope) or frame.intercept != int(frame.intercept):
            return [np.float32]
        reach = _reach(frame, *_stored_range(frame.pixels))
        lowest, highest = min(lowest, *reach), max(highest, *reach)
    if lowest < -(2**31) or highest >= 2**31:
        return [np.float32]
    return [np.int16, np.int32] if lowest < -(2**15) or highest >= 2**15 else [np.int16]


def _stored_range(pixels: StoredPixels) -> tuple[int, int]:
    bits = pixels.bits_stored
    return (-(2 ** (bits - 1)), 2 ** (bits - 1) - 1) if pixels.signed else (0, 2**bits - 1)


def _reach(frame: Frame, low: int, high: int) -> tuple[float, float]:
    return low * frame.slope + frame.intercept, high * frame.slope + frame.intercept


def _measure(cells: NDArray[Any], frame: Frame, values: NDArray[Any], modality: str) -> None:
    """Stored cells (j, i) into `values`: overlay bits and padding masked, sign, slope and intercept of this frame."""
    stored = _signed(cells, frame.pixels)
    outside = _outside(cells, stored, frame)
    if values.dtype == np.float32:
        with np.errstate(over="ignore"):
            values[...] = stored * np.float64(frame.slope) + frame.intercept
    else:
        limits = np.iinfo(values.dtype)
        reach = _reach(frame, int(stored.min()), int(stored.max()))
        if min(reach) < limits.min or max(reach) > limits.max:
            raise _DoesNotFit
        # Intermediate results may wrap around, and wrap back because the result is in range.
        values[...] = stored.astype(values.dtype, copy=False)
        if frame.slope != 1:
            values *= np.int64(frame.slope).astype(values.dtype)
        if frame.intercept != 0:
            values += np.int64(frame.intercept).astype(values.dtype)
    if outside is not None and outside.any():
        inside = values[~outside]
        values[outside] = AIR_HU if modality == "CT" else inside.min() if inside.size else 0


def _signed(cells: NDArray[Any], pixels: StoredPixels) -> NDArray[Any]:
    """The bits of the value, sign-extended."""
    bits = pixels.bits_allocated
    signed = cells.view(np.dtype(f"i{bits // 8}"))
    unsigned = cells.view(np.dtype(f"u{bits // 8}"))
    left, right = bits - 1 - pixels.high_bit, bits - pixels.bits_stored
    if right == 0:
        return signed if pixels.signed else unsigned
    # Shifts remove the bits above and below the value.
    return ((signed << left) >> right) if pixels.signed else ((unsigned << left) >> right)


def _outside(cells: NDArray[Any], stored: NDArray[Any], frame: Frame) -> NDArray[np.bool_] | None:
    """Mask of the padding that the header states; None without any."""
    padding = frame.pixels.padding
    if padding is None:
        return None
    bits = frame.pixels.bits_allocated
    ends = sorted(_bits_as_value(end, bits, signed=frame.pixels.signed) for end in padding)
    outside = (stored >= ends[0]) & (stored <= ends[1])
    if padding[0] == padding[1]:
        outside |= cells.view(np.dtype(f"u{bits // 8}")) == padding[0]
    tissue = [_TISSUE_HU[0] < end * frame.slope + frame.intercept < _TISSUE_HU[1] for end in ends]
    corners = outside[[0, 0, -1, -1], [0, -1, 0, -1]]
    return None if any(tissue) and not corners.all() else outside


def _bits_as_value(pattern: int, bits: int, *, signed: bool) -> int:
    return pattern - (1 << bits) if signed and pattern >= 1 << (bits - 1) else pattern


def _stored(frame: Frame) -> NDArray[Any]:
    """The stored cells (j, i) of a frame in native byte order."""
    pixels = frame.pixels
    if UID(pixels.syntax).is_encapsulated and pixels.syntax != DeflatedExplicitVRLittleEndian:
        return _decoded(frame)
    dtype = np.dtype(f"{'>' if pixels.syntax == ExplicitVRBigEndian else '<'}u{pixels.bits_allocated // 8}")
    start = pixels.offset + frame.number * pixels.frame_bytes
    if pixels.syntax == DeflatedExplicitVRLittleEndian:
        data = _inflated(pixels.path)[frame.number * pixels.frame_bytes :][: pixels.frame_bytes]
    else:
        with open(pixels.path, "rb") as file:
            file.seek(start)
            data = file.read(pixels.frame_bytes)
    if len(data) < pixels.frame_bytes:
        raise EOFError("cut short")
    cells = np.frombuffer(data, dtype=dtype).reshape(pixels.rows, pixels.columns)
    return cells.astype(dtype.newbyteorder("="), copy=False)


@lru_cache(maxsize=2 * _THREADS)
def _inflated(path: Path) -> bytes:
    return bytes(pydicom.dcmread(path).PixelData)


@lru_cache(maxsize=2 * _THREADS)
def _packed(pixels: StoredPixels) -> tuple[bytes, ...]:
    """The compressed frames of a file."""
    with open(pixels.path, "rb") as file:
        file.seek(pixels.offset)
        value = file.read() if pixels.length is None else file.read(pixels.length)
    return tuple(generate_frames(value, number_of_frames=pixels.frames))


def _decoded(frame: Frame) -> NDArray[Any]:
    """The cells of a compressed frame."""
    pixels = frame.pixels
    image = Dataset()
    image.file_meta = FileMetaDataset()
    image.file_meta.TransferSyntaxUID = UID(pixels.syntax)
    image.file_meta.MediaStorageSOPClassUID = image.SOPClassUID = SecondaryCaptureImageStorage
    image.file_meta.MediaStorageSOPInstanceUID = image.SOPInstanceUID = UID("1.2.3")
    image.Rows, image.Columns, image.SamplesPerPixel = pixels.rows, pixels.columns, 1
    image.PhotometricInterpretation = "MONOCHROME2"
    # All bits, because GDCM would mask those above BitsStored and hide a contradiction of header and pixels.
    image.BitsAllocated = image.BitsStored = pixels.bits_allocated
    image.HighBit = pixels.bits_allocated - 1
    image.PixelRepresentation = int(pixels.signed)
    image.PixelData = encapsulate([_packed(pixels)[frame.number]])
    image["PixelData"].VR = "OB"
    image["PixelData"].is_undefined_length = True
    with tempfile.TemporaryDirectory(prefix="frame-") as folder:
        file = Path(folder) / "frame.dcm"
        image.save_as(file, enforce_file_format=True)
        reader = sitk.ImageFileReader()
        reader.SetImageIO("GDCMImageIO")
        reader.SetFileName(str(file))
        decoded = sitk.GetArrayFromImage(reader.Execute())
    cells = np.ascontiguousarray(decoded.reshape(pixels.rows, pixels.columns))
    cells = cells.astype(np.dtype(f"u{pixels.bits_allocated // 8}"))
    above = cells >> pixels.high_bit >> 1
    # Some decoders extend the sign, some do not.
    sign = (1 << (pixels.bits_allocated - pixels.high_bit - 1)) - 1
    if not np.all((above == 0) | (above == sign) if pixels.signed else above == 0):
        raise ValueError("the pixels have more bits than the header says")
    return cells


def _undecodable(frame: Frame, error: Exception) -> DiffusionSegmentError:
    syntax = UID(frame.pixels.syntax).name
    reason = "are cut short" if isinstance(error, EOFError) else f"cannot be decoded ({syntax})"
    return DiffusionSegmentError(
        ErrorCode.INPUT_UNREADABLE,
        f"The pixels of {frame.pixels.path} {reason}.",
        hint="Copy or export the series again, uncompressed if it can be.",
    )
