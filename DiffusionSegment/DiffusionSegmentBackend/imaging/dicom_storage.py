"""Storage of the pixels of a DICOM file, by its header."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from pydicom.dataset import Dataset
from pydicom.uid import UID, DeflatedExplicitVRLittleEndian, ExplicitVRBigEndian

from .dicom_values import number, whole_number

_UNDEFINED_LENGTH = 0xFFFFFFFF
_MAX_FRAMES = 100_000
_MAX_SIDE = 65_535


@dataclass(frozen=True)
class StoredPixels:
    """Storage of the pixels of one file. `offset` and `length` (bytes) are those of the value of the pixel data.

    `length` is None for compressed frames. `padding` is the range of stored values outside the image.
    """

    path: Path
    syntax: str
    offset: int
    length: int | None
    frames: int
    rows: int
    columns: int
    bits_allocated: int
    bits_stored: int
    high_bit: int
    signed: bool
    padding: tuple[int, int] | None

    @property
    def frame_bytes(self) -> int:
        """Bytes of one uncompressed frame."""
        return self.rows * self.columns * self.bits_allocated // 8


def stored_pixels(path: Path, header: Dataset, offset: int, length: int) -> StoredPixels:
    """The storage of a file's pixels.

    Raises:
        ValueError: with what is wrong, as the end of a sentence that begins with the file's name.
    """
    syntax = str(header.file_meta.get("TransferSyntaxUID") or _guessed_syntax(header))
    rows, columns = (whole_number(header, name, 1, _MAX_SIDE) for name in ("Rows", "Columns"))
    allocated = whole_number(header, "BitsAllocated", 1, 64)
    stored = whole_number(header, "BitsStored", 1, 64)
    high = whole_number(header, "HighBit", 0, 63, default=stored - 1)
    frames = whole_number(header, "NumberOfFrames", 1, _MAX_FRAMES, default=1)
    packed = length == _UNDEFINED_LENGTH and high != stored - 1  # a codec has no bits below the value
    swapped = allocated == 8 and syntax == ExplicitVRBigEndian
    if allocated not in (8, 16, 32) or not stored <= high + 1 <= allocated or swapped or packed:
        raise ValueError(f"stores {stored} of {allocated} bits, which is not supported")
    whole_number(header, "SamplesPerPixel", 1, 1, default=1)
    pixels = StoredPixels(
        path=path,
        syntax=syntax,
        offset=offset,
        length=None if length == _UNDEFINED_LENGTH else length,
        frames=frames,
        rows=rows,
        columns=columns,
        bits_allocated=allocated,
        bits_stored=stored,
        high_bit=high,
        signed=whole_number(header, "PixelRepresentation", 0, 1) == 1,
        padding=_padding(header, allocated),
    )
    if pixels.length is None and not UID(syntax).is_encapsulated:
        raise ValueError("stores compressed pixels under an uncompressed transfer syntax")
    if pixels.length is not None and syntax != DeflatedExplicitVRLittleEndian:
        available = min(pixels.length, path.stat().st_size - offset)
        if available < pixels.frame_bytes * frames and not UID(syntax).is_encapsulated:
            raise ValueError(f"is cut short: {available} of {pixels.frame_bytes * frames} bytes of pixels are there")
    return pixels


def _guessed_syntax(header: Dataset) -> str:
    implicit, little = header.original_encoding
    if not little:
        return "1.2.840.10008.1.2.2"
    return "1.2.840.10008.1.2" if implicit else "1.2.840.10008.1.2.1"


def _padding(header: Dataset, allocated: int) -> tuple[int, int] | None:
    """PixelPaddingValue to PixelPaddingRangeLimit, as bit patterns, because writers confuse the sign."""
    patterns = []
    for name in ("PixelPaddingValue", "PixelPaddingRangeLimit"):
        value = header.get(name)
        # Without a VR in the file, the sign is unknown and pydicom returns bytes.
        bits = int.from_bytes(value, "little") if isinstance(value, bytes) and value else number(header, name, None)
        if bits is not None:
            patterns.append(int(bits) & ((1 << allocated) - 1))
    return (patterns[0], patterns[-1]) if "PixelPaddingValue" in header and patterns else None
