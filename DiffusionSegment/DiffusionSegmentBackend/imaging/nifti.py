"""NIfTI-1 and NIfTI-2 with nibabel, which unlike ITK keeps NaN and any affine matrix, and detects truncated files."""

from __future__ import annotations

import zlib
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
from nibabel.filebasedimages import ImageFileError
from nibabel.fileholders import FileHolder
from nibabel.imageglobals import LoggingOutputSuppressor
from nibabel.spatialimages import HeaderDataError
from nibabel.wrapstruct import WrapStructError
from numpy.typing import NDArray

from ..errors import DiffusionSegmentError, ErrorCode
from .compressed_files import first_bytes, open_decompressed
from .nifti_geometry import has_shear, nifti_geometry
from .text_headers import NotAVolume
from .volume import Volume

SUFFIXES = (".nii", ".nii.gz")
HEADER_BYTES = 540
_RAS_TO_LPS = np.diag([-1.0, -1.0, 1.0, 1.0])
_DAMAGE = (
    ImageFileError,
    HeaderDataError,
    WrapStructError,
    EOFError,
    OSError,
    zlib.error,
    ValueError,
    TypeError,
    OverflowError,
)
_IMAGES: dict[bytes, Any] = {
    b"n+1": nibabel.nifti1.Nifti1Image,
    b"ni1": nibabel.nifti1.Nifti1Pair,
    b"n+2": nibabel.nifti2.Nifti2Image,
    b"ni2": nibabel.nifti2.Nifti2Pair,
}


def nifti_magic(head: bytes) -> bytes | None:
    """One of n+1, ni1, n+2, ni2 for a file whose decompressed content begins with `head`, else None."""
    for size, start in ((348, 344), (540, 4)):
        lengths = {size.to_bytes(4, "little"), size.to_bytes(4, "big")}
        if head[:4] in lengths and (magic := head[start : start + 3]) in _IMAGES:
            return magic
    return None


def read_nifti(path: Path) -> Volume:
    """Read a NIfTI file, compressed or not, with the geometry of 3D Slicer.

    Values are rescaled by the header; the array is (k, j, i).

    Raises:
        DiffusionSegmentError: INPUT_UNREADABLE when the file is damaged, INPUT_MISSING for a header without its voxels,
            INPUT_VALUES for an intercept without a slope, GEOMETRY for a spacing that is not positive.
        NotAVolume: the image does not have three axes.
    """
    kind = _IMAGES[nifti_magic(first_bytes(path, HEADER_BYTES)) or b"n+1"]
    try:
        header, array = _loaded(path, kind)
    except _DAMAGE as error:
        short = isinstance(error, EOFError) or str(error).startswith(("Expected ", "mmap length"))
        what = "was cut short: it holds fewer voxels than its header says" if short else "is a damaged NIfTI image"
        hint = "Copy or export it again."
        raise DiffusionSegmentError(ErrorCode.INPUT_UNREADABLE, f"{path} {what}.", hint=hint) from error
    _check_offset(header, path, kind)
    _check_rescaling(header, path)
    while array.ndim > 3 and array.shape[-1] == 1:
        array = array[..., 0]
    if array.ndim != 3:
        raise NotAVolume(f"{array.ndim}D image")
    i, j, k = array.shape
    try:
        geometry = nifti_geometry(header, (i, j, k))
    except ValueError as error:
        raise DiffusionSegmentError(
            ErrorCode.GEOMETRY, f"The header of {path} is damaged: {error}.", hint="Export the scan again."
        ) from error
    return Volume(_plain(array).T, geometry.index_to_lps, geometry.notes)


def _loaded(path: Path, kind: Any) -> tuple[Any, NDArray[Any]]:
    """The unmodified header of the file, and the array (i, j, k, ...)."""
    with ExitStack() as stack, LoggingOutputSuppressor():
        streams: dict[str, Any] = {
            name: stack.enter_context(open_decompressed(_part(path, name, kind))) for name, _ in kind.files_types
        }
        files = {name: FileHolder(fileobj=stream) for name, stream in streams.items()}
        first = streams.get("header", streams["image"])
        header = kind.header_class.from_fileobj(first, check=False)
        first.seek(0)
        # Mapped read-only: a private mapping would count as memory of the process.
        return header, np.asanyarray(kind.from_file_map(files, mmap="r").dataobj)


def _part(path: Path, name: str, kind: Any) -> Path:
    """The file with header or voxels of a pair (.hdr, .img); else the file itself."""
    if name == "header" or len(kind.files_types) == 1:
        return path
    stem = path.name.removesuffix(".gz").rpartition(".")[0]
    for suffix in (".img", ".img.gz", ".IMG"):
        if (part := path.with_name(stem + suffix)).is_file():
            return part
    raise DiffusionSegmentError(
        ErrorCode.INPUT_MISSING, f"{path} is a header without voxels.", hint=f"Put {stem}.img beside it."
    )


def _check_offset(header: Any, path: Path, kind: Any) -> None:
    """Refuse an offset of the voxels inside the header, which readers interpret differently.

    Raises:
        DiffusionSegmentError: INPUT_UNREADABLE.
    """
    first = int(kind.header_class.single_vox_offset)
    if len(kind.files_types) == 1 and not float(header["vox_offset"]) >= first:
        raise DiffusionSegmentError(
            ErrorCode.INPUT_UNREADABLE,
            f"The header of {path} lets the voxels begin at byte {float(header['vox_offset']):g}, inside itself.",
            hint=f"Set vox_offset to {first}, or export the scan again.",
        )


def _check_rescaling(header: Any, path: Path) -> None:
    """Refuse an intercept with a slope of zero, which readers interpret differently.

    Raises:
        DiffusionSegmentError: INPUT_VALUES.
    """
    slope, intercept = float(header["scl_slope"]), float(header["scl_inter"])
    next_to_zero = abs(slope) < np.finfo(np.float64).eps
    if next_to_zero and (slope != 0 or (np.isfinite(intercept) and intercept != 0)):
        raise DiffusionSegmentError(
            ErrorCode.INPUT_VALUES,
            f"The header of {path} rescales values with a slope of {slope:g} and an intercept of {intercept:g}.",
            hint="Set scl_slope to 1, or scl_inter to 0.",
        )


def _plain(array: NDArray[Any]) -> NDArray[Any]:
    """In native byte order, with floats in single precision."""
    if array.dtype.kind == "f" and array.dtype.itemsize != 4:
        return array.astype(np.float32)
    return array if array.dtype.isnative else array.astype(array.dtype.newbyteorder("="))


def write_nifti(volume: Volume, path: Path, *, slope: float | None = None) -> None:
    """Write (k, j, i) or (k, j, i, c) with its exact matrix; components become the fifth axis, as ITK reads vectors.

    With a `slope` in the header, readers multiply the stored values by it. A sheared matrix stands in the sform alone:
    a qform cannot hold it, and ITK would take that.

    Raises:
        OSError: the disk is full or the folder cannot be written.
    """
    array = volume.array.T if volume.array.ndim == 3 else volume.array.transpose(2, 1, 0, 3)[:, :, :, None, :]
    image = nibabel.nifti1.Nifti1Image(array, _RAS_TO_LPS @ volume.index_to_lps, dtype=array.dtype)
    image.header.set_xyzt_units("mm")
    image.set_qform(image.affine, code=0 if has_shear(volume.index_to_lps) else 1)
    image.set_sform(image.affine, code=1)
    if volume.array.ndim == 4:
        image.header.set_intent("vector")
    if slope is not None:
        image.header.set_slope_inter(slope, 0.0)
    # `save` would make a copy without the slope.
    image.to_filename(path)
