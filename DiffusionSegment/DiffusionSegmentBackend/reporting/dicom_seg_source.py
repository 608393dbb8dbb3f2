"""The images that a DICOM SEG references, as input of highdicom: geometry, UIDs, patient and study.

Values are copied to new headers, so that values which violate the standard do not reach the DICOM SEG. Attributes that
may be empty are then left empty, with a note.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pydicom
from pydicom.config import RAISE
from pydicom.datadict import dictionary_VR
from pydicom.dataset import Dataset
from pydicom.uid import UID
from pydicom.valuerep import TM, DSfloat, validate_value

from ..errors import DiffusionSegmentError, ErrorCode
from ..imaging.dicom_grid import Stack, unit_axes
from ..imaging.dicom_headers import Frame, is_dicom
from ..imaging.dicom_series import choose_series
from ..imaging.dicom_values import DAMAGE, numbers, text
from ..imaging.volume import Volume

_UIDS = ("SOPClassUID", "SOPInstanceUID", "StudyInstanceUID", "SeriesInstanceUID", "FrameOfReferenceUID")
_THE_SAME = ("SOPClassUID", "StudyInstanceUID", "SeriesInstanceUID", "FrameOfReferenceUID")
# Type 2 attributes of the standard: present, but may be empty.
_MAY_BE_EMPTY = (
    "PatientID",
    "PatientName",
    "PatientBirthDate",
    "PatientSex",
    "AccessionNumber",
    "StudyID",
    "StudyDate",
    "StudyTime",
    "ReferringPhysicianName",
    "PositionReferenceIndicator",
)
_MAY_BE_ABSENT = (
    "Modality",
    "IssuerOfPatientID",
    "OtherPatientIDs",
    "PatientAge",
    "PatientSize",
    "PatientWeight",
    "EthnicGroup",
    "PatientIdentityRemoved",
    "DeidentificationMethod",
    "StudyDescription",
    "ClinicalTrialSponsorName",
    "ClinicalTrialProtocolID",
    "ClinicalTrialSubjectID",
    "Manufacturer",
    "ManufacturerModelName",
    "DeviceSerialNumber",
    "SoftwareVersions",
    "InstitutionName",
    "LossyImageCompression",
    "LossyImageCompressionRatio",
    "LossyImageCompressionMethod",
)
_ALLOWED = {
    "PatientSex": ("M", "F", "O"),
    "LossyImageCompression": ("00", "01"),
    "PatientIdentityRemoved": ("YES", "NO"),
}
_DATE = re.compile(r"(?!0000)\d{4}(0[1-9]|1[0-2])(0[1-9]|[12]\d|3[01])")
_EXPORT_AGAIN = "Export the series again from where it was acquired."


@dataclass(frozen=True)
class SegSource:
    """`images` is one header a slice, or one of a multi-frame image, in the order of the volume's slices.

    `frame_numbers` are those of the slices in a multi-frame image, from 1; empty where there is one file a slice.
    `geometry` is a volume without its own memory; `notes` are sentences for the user.
    """

    images: tuple[Dataset, ...]
    frame_numbers: tuple[int, ...]
    geometry: Volume
    notes: tuple[str, ...]


def read_seg_source(scan: Path, series: str | None = None) -> SegSource:
    """The images of a DICOM series, as a file or a folder; call it within `lenient`.

    Raises:
        DiffusionSegmentError: INPUT_MISSING, INPUT_UNREADABLE or INPUT_SHAPE for images that a DICOM SEG cannot refer
            to, and as `choose_series`.
    """
    if not scan.is_dir() and not is_dicom(scan):
        raise DiffusionSegmentError(
            ErrorCode.INPUT_UNREADABLE if scan.exists() else ErrorCode.INPUT_MISSING,
            f"{scan} is not a DICOM folder or file.",
            hint="DICOM SEG refers to the images of a DICOM series: give those.",
        )
    stack = choose_series(scan, series).stack
    pixels = stack.frames[0].pixels
    shape = (len(stack.frames), pixels.rows, pixels.columns)
    geometry = Volume(np.broadcast_to(np.uint8(0), shape), stack.index_to_lps)
    headers = _headers(stack)
    _check_uids(headers)
    left_out: set[str] = set()
    several = any(frame.pixels.frames > 1 for frame in stack.frames) or _functional_groups(headers[0])
    if several and len(headers) > 1:
        raise DiffusionSegmentError(
            ErrorCode.INPUT_SHAPE,
            f"{scan} keeps this series in {len(headers)} multi-frame files; a DICOM SEG refers to one.",
            hint="Export the series as one multi-frame file, or with one file a slice.",
        )
    if several:
        images = [_multi_frame(headers[0], stack, left_out)]
    else:
        images = [_single(header, stack, k, left_out) for k, header in enumerate(headers)]
    note = f"Left empty, because the scan's header has there what DICOM does not allow: {', '.join(sorted(left_out))}."
    numbers_of = tuple(frame.number + 1 for frame in stack.frames) if several else ()
    return SegSource(tuple(images), numbers_of, geometry, (note,) if left_out else ())


def _functional_groups(header: Dataset) -> bool:
    return "PerFrameFunctionalGroupsSequence" in header


def _headers(stack: Stack) -> list[Dataset]:
    """The header of every file, in the order of the slices; each file once."""
    headers: list[Dataset] = []
    for path in dict.fromkeys(frame.pixels.path for frame in stack.frames):
        try:
            headers.append(pydicom.dcmread(path, stop_before_pixels=True, force=True))
        except DAMAGE as error:
            raise DiffusionSegmentError(
                ErrorCode.INPUT_UNREADABLE, f"{path} is damaged or no DICOM file.", hint=_EXPORT_AGAIN
            ) from error
    return headers


def _check_uids(headers: Sequence[Dataset]) -> None:
    """Check that the UIDs, by which a DICOM SEG references images, are present, valid and consistent."""
    for name in _UIDS:
        values = [text(header, name) for header in headers]
        for value, header in zip(values, headers, strict=True):
            if not value:
                raise _unusable(f"{header.filename} lacks {name}, which DICOM SEG refers to.")
            if not UID(value).is_valid:
                raise _unusable(f"{name} of {header.filename} is no valid UID: DICOM SEG cannot refer to it.")
        if name in _THE_SAME and len(set(values)) > 1:
            raise _unusable(f"{name} is not the same in all slices: DICOM SEG cannot refer to them.")
        if name == "SOPInstanceUID" and len(set(values)) < len(values):
            raise _unusable("SOPInstanceUID is the same in several slices: DICOM SEG cannot tell them apart.")


def _unusable(message: str) -> DiffusionSegmentError:
    return DiffusionSegmentError(ErrorCode.INPUT_UNREADABLE, message, hint=_EXPORT_AGAIN)


def _general(header: Dataset, left_out: set[str]) -> Dataset:
    """UIDs, patient and study, with values that the standard allows; names of others are added to `left_out`."""
    image = Dataset()
    for name in _UIDS:
        setattr(image, name, text(header, name))
    for name in (*_MAY_BE_EMPTY, *_MAY_BE_ABSENT):
        value = text(header, name)
        value = value.upper() if name in _ALLOWED else value
        if value and not _is_allowed(name, value):
            left_out.add(name)
            value = ""
        if value or name in _MAY_BE_EMPTY:
            setattr(image, name, value.split("\\") if "\\" in value else value)
    if image.get("PatientIdentityRemoved") == "YES" and "DeidentificationMethod" not in image:
        del image.PatientIdentityRemoved
    return image


def _is_allowed(name: str, value: str) -> bool:
    kind = dictionary_VR(name)
    parts = value.split("\\")
    try:
        for part in parts:
            validate_value(kind, part, RAISE)
        if kind == "TM":
            TM(value)
    except (ValueError, TypeError, OverflowError):
        return False
    if kind == "PN" and not _is_name(value):
        return False
    if kind == "DA" and not all(_DATE.fullmatch(part) for part in parts):
        return False
    return value in _ALLOWED.get(name, (value,)) and (len(parts) == 1 or name in _SEVERAL)


_SEVERAL = ("OtherPatientIDs", "SoftwareVersions", "LossyImageCompressionRatio", "LossyImageCompressionMethod")


def _is_name(value: str) -> bool:
    groups = value.split("=")
    return len(groups) <= 3 and all(len(group) <= 64 and group.count("^") <= 4 for group in groups)


def _single(header: Dataset, stack: Stack, k: int, left_out: set[str]) -> Dataset:
    """The header of slice k, with the stack's common axes."""
    image = _general(header, left_out)
    image.Rows, image.Columns = stack.frames[k].pixels.rows, stack.frames[k].pixels.columns
    _measures(image, stack, numbers(header, "SliceThickness", 1))
    image.ImageOrientationPatient = _orientation(stack)
    image.ImagePositionPatient = _position(stack.frames[k])
    return image


def _multi_frame(header: Dataset, stack: Stack, left_out: set[str]) -> Dataset:
    """The header of a multi-frame image with the stack's frames only, in the order of k."""
    image = _general(header, left_out)
    pixels = stack.frames[0].pixels
    image.Rows, image.Columns, image.NumberOfFrames = pixels.rows, pixels.columns, len(stack.frames)
    shared, measures, orientation = Dataset(), Dataset(), Dataset()
    _measures(measures, stack, None)
    orientation.ImageOrientationPatient = _orientation(stack)
    shared.PixelMeasuresSequence, shared.PlaneOrientationSequence = [measures], [orientation]
    image.SharedFunctionalGroupsSequence = [shared]
    frames = []
    for frame in stack.frames:
        own, position = Dataset(), Dataset()
        position.ImagePositionPatient = _position(frame)
        own.PlanePositionSequence = [position]
        frames.append(own)
    image.PerFrameFunctionalGroupsSequence = frames
    return image


def _measures(image: Dataset, stack: Stack, thickness: tuple[float, ...] | None) -> None:
    """Set spacings by the positions, because scanners state the slice distance wrongly or not at all."""
    columns, rows, _ = np.linalg.norm(stack.index_to_lps[:3, :3], axis=0)
    distance = slice_distance(stack.index_to_lps)
    image.PixelSpacing = [_decimal(rows), _decimal(columns)]
    image.SliceThickness = _decimal(thickness[0] if thickness and thickness[0] > 0 else distance)
    image.SpacingBetweenSlices = _decimal(distance)


def slice_distance(index_to_lps: np.ndarray) -> float:
    """Distance between neighbouring slices at a right angle to them, in mm."""
    normal = np.cross(index_to_lps[:3, 0], index_to_lps[:3, 1])
    return float(abs(index_to_lps[:3, 2] @ normal) / np.linalg.norm(normal))


def _orientation(stack: Stack) -> list[float]:
    axes = stack.index_to_lps[:3, :2] / np.linalg.norm(stack.index_to_lps[:3, :2], axis=0)
    stated = unit_axes(stack.frames[0])
    # The stated values if they are the same, for 1 instead of 0.999999999.
    if stated is not None and np.allclose(stated.T, axes, atol=1e-6):
        axes = stated.T
    return [_decimal(value) for value in axes.T.ravel()]


def _position(frame: Frame) -> list[float]:
    assert frame.position is not None
    return [_decimal(value) for value in frame.position]


def _decimal(value: float) -> float:
    """The value as written with the 16 characters of a DICOM decimal string."""
    return DSfloat(float(value), auto_format=True)
