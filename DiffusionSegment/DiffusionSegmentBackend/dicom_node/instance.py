"""What the node has to know of a received image, read from its header without its pixels."""

from __future__ import annotations

from dataclasses import dataclass
from io import BytesIO

import numpy as np
import pydicom
from pydicom.dataset import Dataset
from pydicom.uid import UID

from ..imaging.dicom_values import DAMAGE, number, numbers, text
from ..reporting.dicom_seg import MANUFACTURER

_TAGS = (
    "SOPClassUID",
    "SOPInstanceUID",
    "StudyInstanceUID",
    "SeriesInstanceUID",
    "Modality",
    "ImageType",
    "Manufacturer",
    "NumberOfFrames",
    "ImagePositionPatient",
    "ImageOrientationPatient",
)


@dataclass(frozen=True, kw_only=True)
class Instance:
    """A SOP instance. `position_mm` is that of the slice along its normal, None where the header states none.

    `set_aside` says why the instance is no slice of a scan to be segmented, and is empty if it is.
    """

    sop_uid: str
    series_uid: str
    study_uid: str
    position_mm: float | None = None
    frames: int = 1
    set_aside: str = ""


def read_instance(data: bytes, *, modality: str) -> Instance | None:
    """The instance in the bytes of a DICOM file; None if its header cannot be read or lacks a valid UID.

    `modality` is that of the scans to be segmented.
    """
    try:
        header = pydicom.dcmread(BytesIO(data), stop_before_pixels=True, specific_tags=list(_TAGS))
        uids = [text(header, name) for name in ("SOPInstanceUID", "SeriesInstanceUID", "StudyInstanceUID")]
        if not all(UID(uid).is_valid for uid in uids):
            return None
        return Instance(
            sop_uid=uids[0],
            series_uid=uids[1],
            study_uid=uids[2],
            position_mm=_position(header),
            frames=int(number(header, "NumberOfFrames", 1) or 1),
            set_aside=_reason(header, modality),
        )
    except (*DAMAGE, MemoryError):
        return None


def _position(header: Dataset) -> float | None:
    position = numbers(header, "ImagePositionPatient", 3)
    axes = numbers(header, "ImageOrientationPatient", 6)
    if position is None or axes is None:
        return None
    return float(np.cross(axes[:3], axes[3:]) @ np.array(position))


def _reason(header: Dataset, modality: str) -> str:
    kinds = text(header, "ImageType").upper().split("\\")
    if text(header, "Manufacturer") == MANUFACTURER:
        return "own result"
    if text(header, "Modality").upper() != modality:
        return "other modality"
    if "LOCALIZER" in kinds:
        return "localizer"
    if kinds[:2] == ["DERIVED", "SECONDARY"]:
        return "secondary image"
    return ""
