"""Reading of scans in all supported formats, and writing of maps in their geometry."""

from __future__ import annotations

import logging
import os
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import SimpleITK as sitk
from numpy.typing import NDArray

from ..errors import DiffusionSegmentError, ErrorCode, from_os_error, out_of_memory
from .dicom_headers import is_dicom
from .dicom_pixels import itk_warnings_off
from .dicom_scan import DicomScan, check_hounsfield, read_dicom
from .dicom_series import SUFFIXES as DICOM_SUFFIXES
from .image_files import reader_of, unreadable
from .nifti import SUFFIXES, write_nifti
from .shear import straightened
from .volume import Volume, check_geometry, check_values

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Scan:
    """A scan and, if it is DICOM, its series."""

    volume: Volume
    dicom: DicomScan | None = None

    @property
    def modality(self) -> str | None:
        """DICOM modality ("CT", "MR", ...) if the input states one."""
        return (self.dicom.series.modality or None) if self.dicom is not None else None


def read_volume(path: Path | str, *, series: str | None = None) -> Volume:
    """Read a DICOM folder or file, NIfTI, NRRD or MHA as (k, j, i) in the file's own values, HU for a CT.

    `series` selects one of several DICOM series: its UID, its number, or its index in the list of the error.

    Raises:
        DiffusionSegmentError: as `read_scan`, and MODALITY for a DICOM CT whose values are not HU.
    """
    scan = read_scan(path, series=series)
    if scan.dicom is not None:
        check_hounsfield(scan.dicom)
    return scan.volume


def read_scan(path: Path | str, *, series: str | None = None, files: Sequence[Path] | None = None) -> Scan:
    """As `read_volume`, with the DICOM series that was read, and without a check of HU.

    `files` are the DICOM files to read where they are not all of `path`.

    Raises:
        DiffusionSegmentError: INPUT_MISSING, INPUT_UNREADABLE, INPUT_SHAPE, INPUT_VALUES, GEOMETRY, OUT_OF_MEMORY, and
            OPTION where several DICOM series could be meant.
    """
    path = Path(path)
    try:
        if not path.exists():
            raise DiffusionSegmentError(ErrorCode.INPUT_MISSING, f"{path} does not exist.", hint="Check the path.")
        scan = _read(path, series, files)
    except MemoryError as error:
        raise out_of_memory(str(path)) from error
    except OSError as error:
        raise DiffusionSegmentError(
            ErrorCode.INPUT_UNREADABLE,
            f"{path} cannot be read ({error.strerror or error}).",
            hint="Check its permissions, or copy it.",
        ) from error
    volume = scan.volume
    _check_shape(volume.array, path)
    check_geometry(volume.index_to_lps, what=str(path))
    check_values(volume.array, what=str(path))
    spacing = " x ".join(f"{value:.4g}" for value in volume.spacing)
    _log.info("read %s: %s %s voxels of %s mm", path, volume.array.dtype, volume.shape_ijk, spacing)
    for note in volume.notes:
        _log.warning("%s: %s", path, note)
    return scan


def _read(path: Path, series: str | None, files: Sequence[Path] | None) -> Scan:
    reader = None if path.is_dir() else reader_of(path)
    if reader is not None:
        return Scan(reader(path))
    if files is not None or _holds_dicom(path):
        dicom = read_dicom(path, series, files=files)
        return Scan(dicom.volume, dicom)
    raise unreadable(path)


def _holds_dicom(path: Path) -> bool:
    return path.is_dir() or path.suffix.lower() in DICOM_SUFFIXES or path.name.upper() == "DICOMDIR" or is_dicom(path)


def _check_shape(array: NDArray[Any], path: Path) -> None:
    if array.dtype.names is not None:
        raise _colour(path, len(array.dtype.names))
    if array.dtype.kind not in "iuf":
        raise _colour(path, 2)
    if array.ndim == 4:
        raise _colour(path, array.shape[3])
    if array.ndim != 3 or min(array.shape) < 2:
        raise _not_a_volume(path, 2 if array.ndim == 3 else array.ndim)


def to_image(volume: Volume) -> sitk.Image:
    """SimpleITK image of a scalar (k, j, i) or vector (k, j, i, c) volume."""
    image = sitk.GetImageFromArray(np.ascontiguousarray(volume.array), isVector=volume.array.ndim == 4)
    spacing = volume.spacing
    image.SetSpacing([float(s) for s in spacing])
    image.SetOrigin([float(v) for v in volume.index_to_lps[:3, 3]])
    image.SetDirection([float(v) for v in (volume.index_to_lps[:3, :3] / spacing).ravel()])
    return image


def write_volume(volume: Volume, path: Path, *, slope: float | None = None) -> None:
    """Write a compressed NIfTI (or what the suffix says); a `slope`, for NIfTI alone, is as in `write_nifti`.

    Raises:
        DiffusionSegmentError: DISK_FULL or OUTPUT_UNWRITABLE, then no partial file is left; GEOMETRY for a matrix that
            does not span space.
    """
    check_geometry(volume.index_to_lps)
    try:
        if path.name.endswith(SUFFIXES):
            write_nifti(volume, path, slope=slope)
        else:
            with itk_warnings_off():
                sitk.WriteImage(to_image(volume), str(path), useCompression=True)
            # ITK does not notice a full disk at the last block; another write does.
            if (full := _probe_write(path)) is not None:
                path.unlink(missing_ok=True)
                raise full
        if path.stat().st_size == 0:
            raise OSError(28, os.strerror(28))
    except (RuntimeError, OSError) as error:
        failure = _unwritable(error, path)
        with suppress(OSError):
            path.unlink(missing_ok=True)
        raise failure from error


def _unwritable(error: Exception, path: Path) -> DiffusionSegmentError:
    if isinstance(error, OSError):
        return from_os_error(error, path)
    return _probe_write(path) or DiffusionSegmentError(
        ErrorCode.OUTPUT_UNWRITABLE, f"{path} could not be written.", hint="Choose another folder."
    )


def _probe_write(path: Path) -> DiffusionSegmentError | None:
    """The error of a small write beside `path`, because ITK does not state why a write failed; None on success."""
    trial = path.with_name(f".{path.name[:40]}.trial")
    try:
        with open(trial, "wb") as file:
            file.write(b"\0" * 65536)
            file.flush()
            os.fsync(file.fileno())
    except OSError as error:
        return from_os_error(error, path)
    finally:
        trial.unlink(missing_ok=True)
    return None


def _not_a_volume(path: Path, dimension: int) -> DiffusionSegmentError:
    return DiffusionSegmentError(
        ErrorCode.INPUT_SHAPE,
        f"{path} is a {dimension}D image; a 3D scan is needed.",
        hint="Choose one time point or the whole series.",
    )


def _colour(path: Path, components: int) -> DiffusionSegmentError:
    return DiffusionSegmentError(
        ErrorCode.INPUT_SHAPE,
        f"{path} has {components} values per voxel (colour); a scan has one.",
        hint="Export the original scan, not a screen capture.",
    )


def write_map(volume: Volume, path: Path) -> None:
    """Write a map of a scan; of a sheared scan on its straight grid, because readers of NIfTI do not support shear.

    Raises:
        DiffusionSegmentError: as `write_volume`.
    """
    write_volume(straightened(volume), path)
