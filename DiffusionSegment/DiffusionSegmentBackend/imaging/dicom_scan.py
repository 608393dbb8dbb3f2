"""Reading of a DICOM file or folder as a volume, with its series."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from ..errors import DiffusionSegmentError, ErrorCode
from .dicom_grid import Stack
from .dicom_pixels import itk_warnings_off, read_values
from .dicom_series import Candidate, choose_series
from .sheared_grid import is_sheared
from .volume import Volume


@dataclass(frozen=True)
class SeriesName:
    """The series that was read. `key` selects it again in the same folder; `slices` is the number of images or frames.

    `path` is the file of the first slice.
    """

    key: str
    uid: str
    number: str
    description: str
    modality: str
    slices: int
    title: str
    path: Path


@dataclass(frozen=True)
class DicomScan:
    """`volume` (k, j, i), in HU for a CT unless `not_hounsfield` states why not."""

    volume: Volume
    series: SeriesName
    not_hounsfield: str


def read_dicom(path: Path, series: str | None = None, *, files: Sequence[Path] | None = None) -> DicomScan:
    """Read the scan in a DICOM file or folder, or in `files` of it; `series` is a UID, a series number or an index.

    Raises:
        DiffusionSegmentError: as `choose_series` and `read_values`.
    """
    chosen = choose_series(path, series, files=files)
    candidate, stack = chosen.candidate, chosen.stack
    with itk_warnings_off():
        array = read_values(stack.frames, modality=candidate.modality)
    notes = chosen.notes
    if is_sheared(stack.index_to_lps):
        notes = (*notes, "The slices are sheared (gantry tilt); results lie in the same sheared geometry.")
    return DicomScan(Volume(array, stack.index_to_lps, notes), _name(candidate), _not_hounsfield(candidate, stack))


def _name(candidate: Candidate) -> SeriesName:
    return SeriesName(
        key=candidate.key,
        uid=candidate.uid,
        number=candidate.number,
        description=candidate.description,
        modality=candidate.modality,
        slices=len(candidate.frames),
        title=candidate.title,
        path=candidate.frames[0].pixels.path,
    )


def _not_hounsfield(candidate: Candidate, stack: Stack) -> str:
    """Why the values of a CT are not HU, with a slice as example; empty if they are."""
    if candidate.modality != "CT":
        return ""
    return next((f"{frame.name} has {frame.unit}" for frame in stack.frames if frame.unit), "")


def check_hounsfield(scan: DicomScan) -> None:
    """Refuse a CT whose header does not state the rescaling to HU.

    Raises:
        DiffusionSegmentError: MODALITY.
    """
    if scan.not_hounsfield:
        raise DiffusionSegmentError(
            ErrorCode.MODALITY,
            f"The values of {scan.series.title} are not HU: {scan.not_hounsfield}.",
            hint="Export the original series with its rescale values.",
        )
