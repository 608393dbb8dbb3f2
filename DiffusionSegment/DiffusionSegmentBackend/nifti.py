"""NIfTI through nibabel, which unlike ITK keeps NaN, notices a truncated file and any affine matrix."""

from __future__ import annotations

import zlib
from pathlib import Path

import nibabel
import numpy as np
from nibabel.filebasedimages import ImageFileError
from nibabel.spatialimages import HeaderDataError
from nibabel.wrapstruct import WrapStructError

from .errors import DiffusionSegmentError, ErrorCode
from .volume import Volume

SUFFIXES = (".nii", ".nii.gz")
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


def read_nifti(path: Path) -> tuple[np.ndarray, np.ndarray]:
    """The array with its axes reversed, (k, j, i) for a volume, scaled as the header says, and its matrix to LPS mm.

    Raises:
        DiffusionSegmentError: INPUT_UNREADABLE when the file is damaged or no NIfTI.
    """
    try:
        # Mapped to be read: a private copy would count as memory of ours, however little of it is touched.
        image = nibabel.nifti1.Nifti1Image.from_filename(path, mmap="r")
        array = np.asanyarray(image.dataobj)
        affine = np.asarray(image.affine, dtype=np.float64)
    except _DAMAGE as error:
        raise DiffusionSegmentError(
            ErrorCode.INPUT_UNREADABLE,
            f"{path} is not a readable NIfTI image, or is damaged.",
            hint="Copy or export it again.",
        ) from error
    while array.ndim > 3 and array.shape[-1] == 1:
        array = array[..., 0]
    if array.dtype == np.float64:
        array = array.astype(np.float32)
    return array.T, _RAS_TO_LPS @ affine


def write_nifti(volume: Volume, path: Path) -> None:
    """Write (k, j, i) or (k, j, i, c) with its exact matrix; components become the fifth axis, as ITK reads vectors.

    Raises:
        OSError: the disk is full or the folder cannot be written.
    """
    array = volume.array.T if volume.array.ndim == 3 else volume.array.transpose(2, 1, 0, 3)[:, :, :, None, :]
    image = nibabel.nifti1.Nifti1Image(array, _RAS_TO_LPS @ volume.index_to_lps, dtype=array.dtype)
    image.header.set_xyzt_units("mm")
    image.set_qform(image.affine, code=1)
    image.set_sform(image.affine, code=1)
    if volume.array.ndim == 4:
        image.header.set_intent("vector")
    nibabel.nifti1.save(image, path)
