"""Readers of image files by their content: NIfTI, NRRD or MetaImage."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from ..errors import DiffusionSegmentError, ErrorCode
from .compressed_files import GZIP_MAGIC, first_bytes
from .meta_image import read_meta_image
from .nifti import nifti_magic, read_nifti
from .nrrd import read_nrrd
from .text_headers import NotAVolume
from .volume import Volume

READABLE = "DICOM folder, NIfTI, NRRD or MHA"
_HEAD_BYTES = 4096
_META_SUFFIXES = (".mha", ".mhd")
_UNPACK = "Unpack it first."
_NO_SCAN = f"Give a {READABLE}."
# Other kinds of files by their first bytes, and the next step.
_OTHERS = {
    b"PK\x03\x04": ("a ZIP archive", _UNPACK),
    b"Rar!": ("a RAR archive", _UNPACK),
    b"7z\xbc\xaf": ("a 7z archive", _UNPACK),
    b"\xfd7zXZ": ("an xz archive", _UNPACK),
    b"(\xb5/\xfd": ("a Zstandard archive", _UNPACK),
    b"BZh": ("a bzip2 archive", _UNPACK),
    b"version https://git-lfs": ("a Git LFS pointer, not the image itself", "Fetch it with `git lfs pull`."),
    b"\x89PNG": ("a picture (PNG)", _NO_SCAN),
    b"\xff\xd8\xff": ("a picture (JPEG)", _NO_SCAN),
    b"II*\0": ("a picture (TIFF)", _NO_SCAN),
    b"MM\0*": ("a picture (TIFF)", _NO_SCAN),
    b"\x89HDF": ("an HDF5 file", _NO_SCAN),
    b"\x93NUMPY": ("a NumPy array, without voxel size and place", "Save it as NIfTI, with its affine."),
    b"%PDF": ("a PDF document", _NO_SCAN),
    b"<!DOCTYPE": ("a web page, perhaps an error of the download", "Download it again."),
    b"<html": ("a web page, perhaps an error of the download", "Download it again."),
}
_ANALYZE = ("an Analyze 7.5 image, which does not tell left from right", "Convert the original scan to NIfTI.")
# The length of its header, in either order of bytes.
_ANALYZE_SIZES = (b"\x5c\x01\0\0", b"\0\0\x01\x5c")
_TWICE = ("compressed twice", "Decompress it once with gzip.")


def reader_of(path: Path) -> Callable[[Path], Volume] | None:
    """The reader of a file; None for one that is neither NIfTI nor NRRD nor MetaImage.

    Raises:
        OSError: the file cannot be read.
    """
    header = header_of(path)
    head = first_bytes(header, _HEAD_BYTES)
    if nifti_magic(head) is not None:
        return lambda _: _read_nifti(header)
    if head.startswith(b"NRRD"):
        return _read_nrrd
    if b"NDims" in head and (b"ElementType" in head or path.suffix.lower() in _META_SUFFIXES):
        return _read_meta_image
    return None


def header_of(path: Path) -> Path:
    """The .hdr beside an .img; any other file is its own header."""
    stem = path.name.removesuffix(".gz").removesuffix(".GZ")
    if stem.lower().endswith(".img"):
        for suffix in (".hdr", ".hdr.gz", ".HDR"):
            if (header := path.with_name(stem[:-4] + suffix)).is_file():
                return header
    return path


def unreadable(path: Path) -> DiffusionSegmentError:
    """The error of a file that is not an image, with its kind if known."""
    what, hint = _what_is(path) or ("not a readable image, or is damaged", _NO_SCAN)
    return DiffusionSegmentError(ErrorCode.INPUT_UNREADABLE, f"{path} is {what}.", hint=hint)


def _what_is(path: Path) -> tuple[str, str] | None:
    """The kind of a file that is not an image, and the next step; None if unknown."""
    try:
        size, head = path.stat().st_size, first_bytes(path, _HEAD_BYTES)
    except OSError:
        return None
    if size == 0:
        return "empty", "Copy or export it again."
    if head.startswith(GZIP_MAGIC):
        return _TWICE
    if head[:4] in _ANALYZE_SIZES and len(head) >= 348:
        return _ANALYZE
    return next((kind for magic, kind in _OTHERS.items() if head.startswith(magic)), None)


@contextmanager
def refusals(path: Path) -> Iterator[None]:
    """Convert the errors of a reader.

    Raises:
        DiffusionSegmentError: INPUT_SHAPE for an image without three axes of space, else INPUT_UNREADABLE.
    """
    try:
        yield
    except NotAVolume as error:
        raise DiffusionSegmentError(
            ErrorCode.INPUT_SHAPE,
            f"{path} is a {error}; a 3D scan is needed.",
            hint="Choose one time point or the whole series.",
        ) from error
    except (ValueError, OverflowError, OSError) as error:
        reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
        raise DiffusionSegmentError(
            ErrorCode.INPUT_UNREADABLE, f"{path} cannot be read: {reason}.", hint="Copy or export it again."
        ) from error


def _read_nifti(path: Path) -> Volume:
    with refusals(path):
        return read_nifti(path)


def _read_nrrd(path: Path) -> Volume:
    with refusals(path):
        image = read_nrrd(path)
    return Volume(image.array, image.index_to_lps, image.notes)


def _read_meta_image(path: Path) -> Volume:
    with refusals(path):
        return read_meta_image(path)
