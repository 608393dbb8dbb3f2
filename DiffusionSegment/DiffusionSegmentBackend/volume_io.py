"""Reading a scan as hospitals and researchers keep it, writing maps in its geometry; each refusal in one clear line."""

from __future__ import annotations

import logging
import os
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import numpy as np
import SimpleITK as sitk
from numpy.typing import NDArray

from .buffers import from_os_error
from .errors import DiffusionSegmentError, ErrorCode
from .imaging.image_files import READABLE, reader_of, unreadable
from .imaging.nifti import SUFFIXES, write_nifti
from .volume import Volume, check_geometry

_FORMATS = {"GDCMImageIO"}
_MODALITY_TAG = "0008|0060"

_log = logging.getLogger(__name__)


def read_volume(path: Path | str) -> Volume:
    """Read a DICOM folder, NIfTI, NRRD, MHA or MetaImage file as (k, j, i) in the file's own values (HU for CT).

    Raises:
        DiffusionSegmentError: INPUT_MISSING, INPUT_UNREADABLE, INPUT_SHAPE, INPUT_VALUES, GEOMETRY or OUT_OF_MEMORY.
    """
    path = Path(path)
    try:
        if not path.exists():
            raise DiffusionSegmentError(ErrorCode.INPUT_MISSING, f"{path} does not exist.", hint="Check the path.")
        reader = None if path.is_dir() else reader_of(path)
        volume = reader(path) if reader is not None else Volume(*_read_with_itk(path))
    except MemoryError as error:
        raise DiffusionSegmentError(
            ErrorCode.OUT_OF_MEMORY, f"There is too little memory for {path}.", hint="Close programs, or crop the scan."
        ) from error
    except OSError as error:
        raise DiffusionSegmentError(
            ErrorCode.INPUT_UNREADABLE,
            f"{path} cannot be read ({error.strerror or error}).",
            hint="Check its permissions, or copy it.",
        ) from error
    _check_shape(volume.array, path)
    check_geometry(volume.index_to_lps, what=str(path))
    check_values(volume.array, what=str(path))
    spacing = " x ".join(f"{value:.4g}" for value in volume.spacing)
    _log.info("read %s: %s %s voxels of %s mm", path, volume.array.dtype, volume.shape_ijk, spacing)
    for note in volume.notes:
        _log.warning("%s: %s", path, note)
    return volume


def _read_with_itk(path: Path) -> tuple[NDArray, NDArray[np.float64]]:
    with _quiet_itk():
        image = _read_series(path) if path.is_dir() else _read_file(path)
    return sitk.GetArrayFromImage(image), _matrix_of(image)


@contextmanager
def _quiet_itk() -> Iterator[None]:
    """ITK writes its warnings to stderr, where a user expects one line of ours."""
    before = sitk.ProcessObject.GetGlobalWarningDisplay()
    sitk.ProcessObject.SetGlobalWarningDisplay(False)
    try:
        yield
    finally:
        sitk.ProcessObject.SetGlobalWarningDisplay(before)


def check_values(array: NDArray, *, what: str = "The scan") -> None:
    """Refuse NaN and infinity; `what` names what holds them.

    Raises:
        DiffusionSegmentError: INPUT_VALUES.
    """
    if np.issubdtype(array.dtype, np.floating) and not np.all(np.isfinite(array)):
        count = int(array.size - np.count_nonzero(np.isfinite(array)))
        raise DiffusionSegmentError(
            ErrorCode.INPUT_VALUES,
            f"{what} holds {count} voxels that are NaN or infinite.",
            hint="Replace them (air is -1000 HU) and run again.",
        )


def _read_file(path: Path) -> sitk.Image:
    try:
        reader = _reader_of(path)
        reader.ReadImageInformation()
        _check_header(reader, path)
        return reader.Execute()
    except (RuntimeError, ValueError, OSError) as error:
        raise _unreadable(path, error) from error


def _reader_of(path: Path) -> sitk.ImageFileReader:
    """A reader bound to a format that scans come in: ITK knows many others, which nobody needs here.

    Raises:
        ValueError: the file is of no such format.
    """
    reader = sitk.ImageFileReader()
    reader.SetFileName(str(path))
    name = reader.GetImageIOFromFileName(str(path))
    if name not in _FORMATS:
        raise ValueError(f"{name or 'unknown'} is not read")
    reader.SetImageIO(name)
    return reader


def _check_header(reader: sitk.ImageFileReader, path: Path) -> None:
    if reader.GetDimension() != 3:
        raise _not_a_volume(path, reader.GetDimension())
    if reader.GetNumberOfComponents() != 1:
        raise _colour(path, reader.GetNumberOfComponents())


def series_files(folder: Path) -> list[Path]:
    """The files of the folder's largest DICOM series, in the order in which `read_volume` stacks them along k.

    Raises:
        DiffusionSegmentError: INPUT_UNREADABLE without DICOM images.
    """
    reader = sitk.ImageSeriesReader
    try:
        with _quiet_itk():
            series = [reader.GetGDCMSeriesFileNames(str(folder), uid) for uid in reader.GetGDCMSeriesIDs(str(folder))]
    except RuntimeError as error:
        raise _unreadable(folder, error) from error
    if not series:
        raise DiffusionSegmentError(
            ErrorCode.INPUT_UNREADABLE, f"{folder} holds no DICOM images.", hint=f"Give a {READABLE}."
        )
    return [Path(name) for name in max(series, key=len)]


def _read_series(folder: Path) -> sitk.Image:
    files = [str(file) for file in series_files(folder)]
    if len(files) < 2:
        raise _not_a_volume(folder, 2)
    reader = sitk.ImageSeriesReader()
    reader.SetFileNames(files)
    try:
        image = reader.Execute()
        _check_slices(files, folder)
    except RuntimeError as error:
        raise _unreadable(folder, error) from error
    return image


def _check_slices(files: list[str], folder: Path) -> None:
    """Slices of one series must lie at even distances; a missing one would bend the anatomy unseen."""
    positions = []
    reader = sitk.ImageFileReader()
    for file in files:
        reader.SetFileName(file)
        reader.ReadImageInformation()
        direction = np.array(reader.GetDirection()).reshape(3, 3)
        positions.append(float(direction[:, 2] @ np.array(reader.GetOrigin())))
    gaps = np.abs(np.diff(positions))
    common = Counter(np.round(gaps, 2)).most_common(1)[0][0]
    if common <= 0 or np.any(np.abs(gaps - common) > 0.1 * common + 0.01):
        raise DiffusionSegmentError(
            ErrorCode.GEOMETRY,
            f"The slices of {folder} do not lie at even distances.",
            hint="A slice is missing or two series are mixed; export the series again.",
        )


def _check_shape(array: NDArray, path: Path) -> None:
    if array.dtype.names is not None:
        raise _colour(path, len(array.dtype.names))
    if array.dtype.kind not in "iuf":
        raise _colour(path, 2)
    if array.ndim == 4:
        raise _colour(path, array.shape[3])
    if array.ndim != 3 or min(array.shape) < 2:
        raise _not_a_volume(path, 2 if array.ndim == 3 else array.ndim)


def _matrix_of(image: sitk.Image) -> NDArray[np.float64]:
    matrix = np.eye(4)
    direction = np.array(image.GetDirection()).reshape(3, 3)
    matrix[:3, :3] = direction * np.array(image.GetSpacing())
    matrix[:3, 3] = image.GetOrigin()
    return matrix


def to_image(volume: Volume) -> sitk.Image:
    """SimpleITK image of a scalar (k, j, i) or vector (k, j, i, c) volume."""
    image = sitk.GetImageFromArray(np.ascontiguousarray(volume.array), isVector=volume.array.ndim == 4)
    spacing = volume.spacing
    image.SetSpacing([float(s) for s in spacing])
    image.SetOrigin([float(v) for v in volume.index_to_lps[:3, 3]])
    image.SetDirection([float(v) for v in (volume.index_to_lps[:3, :3] / spacing).ravel()])
    return image


def write_volume(volume: Volume, path: Path) -> None:
    """Write a compressed NIfTI (or what the suffix says).

    Raises:
        DiffusionSegmentError: DISK_FULL or OUTPUT_UNWRITABLE, then no partial file is left; GEOMETRY for a matrix that
            does not span space.
    """
    check_geometry(volume.index_to_lps)
    try:
        if path.name.endswith(SUFFIXES):
            write_nifti(volume, path)
        else:
            with _quiet_itk():
                sitk.WriteImage(to_image(volume), str(path), useCompression=True)
            # ITK does not notice that the last block found no room; what is written next to it does.
            if (full := _probe_write(path)) is not None:
                path.unlink(missing_ok=True)
                raise full
        if path.stat().st_size == 0:
            raise OSError(28, os.strerror(28))
    except (RuntimeError, OSError) as error:
        told = _unwritable(error, path)
        with suppress(OSError):
            path.unlink(missing_ok=True)
        raise told from error


def _unwritable(error: Exception, path: Path) -> DiffusionSegmentError:
    if isinstance(error, OSError):
        return from_os_error(error, path)
    return _probe_write(path) or DiffusionSegmentError(
        ErrorCode.OUTPUT_UNWRITABLE, f"{path} could not be written.", hint="Choose another folder."
    )


def _probe_write(path: Path) -> DiffusionSegmentError | None:
    """ITK does not say why a write failed: write a small block ourselves and read the reason off that."""
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


def _unreadable(path: Path, error: Exception) -> DiffusionSegmentError:
    text = str(error)
    if "direction" in text.lower() and ("singular" in text.lower() or "determinant" in text.lower()):
        return DiffusionSegmentError(
            ErrorCode.GEOMETRY,
            f"The direction matrix of {path} is singular: its axes do not span space.",
            hint="Export the scan again, or repair its header.",
        )
    if "spacing" in text.lower() and ("zero" in text.lower() or "negative" in text.lower()):
        return DiffusionSegmentError(
            ErrorCode.GEOMETRY,
            f"The voxel spacing of {path} is zero or negative.",
            hint="Export the scan again, or repair its header.",
        )
    return unreadable(path)


def _not_a_volume(path: Path, dimension: int) -> DiffusionSegmentError:
    return DiffusionSegmentError(
        ErrorCode.INPUT_SHAPE,
        f"{path} is a {dimension}D image; a 3D scan is needed.",
        hint="Choose one time point or the whole series.",
    )


def _colour(path: Path, components: int) -> DiffusionSegmentError:
    return DiffusionSegmentError(
        ErrorCode.INPUT_SHAPE,
        f"{path} has {components} values a voxel (colour); a scan has one.",
        hint="Export the original scan, not a screen capture.",
    )


def modality_of(path: Path) -> str | None:
    """DICOM modality ("CT", "MR", ...) where the input carries one."""
    with suppress(OSError):
        if path.is_file() and reader_of(path) is not None:
            return None
    with _quiet_itk():
        try:
            if path.is_dir():
                files = sitk.ImageSeriesReader.GetGDCMSeriesFileNames(str(path))
                if not files:
                    return None
                path = Path(files[0])
            reader = _reader_of(path)
            reader.ReadImageInformation()
        except (RuntimeError, ValueError, OSError):
            return None
    return reader.GetMetaData(_MODALITY_TAG).strip() if reader.HasMetaDataKey(_MODALITY_TAG) else None
