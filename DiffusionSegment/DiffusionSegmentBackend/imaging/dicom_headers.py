"""Headers of DICOM files: the series of a file, and the position and rescaling of each of its frames.

Every file and every frame is read with pydicom; no value is assumed to be that of the first one.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from pydicom.dataset import Dataset
from pydicom.filereader import read_partial
from pydicom.tag import BaseTag, Tag
from pydicom.uid import UID

from .dicom_storage import StoredPixels, stored_pixels
from .dicom_values import DAMAGE, first_item, number, numbers, text

PIXEL_TAGS = (0x7FE00010, 0x7FE00008, 0x7FE00009)
_PREAMBLE = 128
_NO_HU_TYPES = ("", "HU", "US", "HU_MOD")
# Modality of an image that does not state it, by its class.
_MODALITIES = {
    "1.2.840.10008.5.1.4.1.1.2": "CT",
    "1.2.840.10008.5.1.4.1.1.2.1": "CT",
    "1.2.840.10008.5.1.4.1.1.2.2": "CT",
    "1.2.840.10008.5.1.4.1.1.4": "MR",
    "1.2.840.10008.5.1.4.1.1.4.1": "MR",
    "1.2.840.10008.5.1.4.1.1.4.4": "MR",
    "1.2.840.10008.5.1.4.1.1.128": "PT",
    "1.2.840.10008.5.1.4.1.1.130": "PT",
    "1.2.840.10008.5.1.4.1.1.128.1": "PT",
    "1.2.840.10008.5.1.4.1.1.20": "NM",
}
SCANS = ("CT", "MR")
_SECONDARY_CAPTURES = "1.2.840.10008.5.1.4.1.1.7"
# Tags that distinguish the stacks of a series, in the order in which they are tried.
STACK_TAGS = (
    ("TemporalPositionIndex", "time point"),
    ("TemporalPositionIdentifier", "time point"),
    ("NominalPercentageOfCardiacPhase", "cardiac phase"),
    ("StackID", "stack"),
    ("AcquisitionNumber", "acquisition"),
    ("EchoTime", "echo time"),
    ("DiffusionBValue", "b-value"),
    ("ConvolutionKernel", "kernel"),
    ("KVP", "kVp"),
    ("ImageType", "image type"),
    ("SliceThickness", "slice thickness"),
    ("AcquisitionDateTime", "acquisition at"),
    ("AcquisitionTime", "acquisition at"),
    ("TriggerTime", "trigger time"),
    ("ContentTime", "content time"),
    ("SeriesTime", "series time"),
)
_FRAME_TAGS = {
    "AcquisitionNumber": ("FrameContentSequence", "FrameAcquisitionNumber"),
    "AcquisitionDateTime": ("FrameContentSequence", "FrameAcquisitionDateTime"),
    "TemporalPositionIndex": ("FrameContentSequence", "TemporalPositionIndex"),
    "StackID": ("FrameContentSequence", "StackID"),
    "EchoTime": ("MREchoSequence", "EffectiveEchoTime"),
    "DiffusionBValue": ("MRDiffusionSequence", "DiffusionBValue"),
    "NominalPercentageOfCardiacPhase": ("CardiacSynchronizationSequence", "NominalPercentageOfCardiacPhase"),
    "SliceThickness": ("PixelMeasuresSequence", "SliceThickness"),
    "ImageType": ("CTImageFrameTypeSequence", "FrameType"),
    "ConvolutionKernel": ("CTReconstructionSequence", "ConvolutionKernel"),
    "KVP": ("CTXRayDetailsSequence", "KVP"),
}
_READ = (
    "SOPClassUID",
    "SOPInstanceUID",
    "StudyInstanceUID",
    "SeriesInstanceUID",
    "SeriesNumber",
    "SeriesDescription",
    "SpecificCharacterSet",
    "Modality",
    "InstanceNumber",
    "ImagePositionPatient",
    "ImageOrientationPatient",
    "PixelSpacing",
    "Rows",
    "Columns",
    "SamplesPerPixel",
    "PhotometricInterpretation",
    "BitsAllocated",
    "BitsStored",
    "HighBit",
    "PixelRepresentation",
    "PixelPaddingValue",
    "PixelPaddingRangeLimit",
    "NumberOfFrames",
    "RescaleSlope",
    "RescaleIntercept",
    "RescaleType",
    "ModalityLUTSequence",
    "SharedFunctionalGroupsSequence",
    "PerFrameFunctionalGroupsSequence",
    "DirectoryRecordSequence",
    *(name for name, _ in STACK_TAGS),
)
_READ_TAGS: list[BaseTag | int] = [Tag(name) for name in _READ]


@dataclass(frozen=True)
class Frame:
    """One slice: its geometry in LPS mm and the rescaling of its stored values.

    `spacing` is DICOM's PixelSpacing: mm between rows, then between columns. `unit` states why the values of a CT are
    not HU, and is empty if they are. `stack_values` holds the values of `STACK_TAGS`.
    """

    pixels: StoredPixels
    number: int
    sop_uid: str
    position: tuple[float, ...] | None
    orientation: tuple[float, ...] | None
    spacing: tuple[float, ...] | None
    slope: float
    intercept: float
    unit: str
    localizer: bool
    stack_values: tuple[str, ...]

    @property
    def name(self) -> str:
        """The file's name, and the frame's number where there are several."""
        name = self.pixels.path.name
        return name if self.pixels.frames == 1 else f"frame {self.number + 1} of {name}"


@dataclass(frozen=True)
class DicomFile:
    """One file. `excluded` names its kind if it is not a scan; `damage` states what is wrong with it."""

    path: Path
    series_uid: str
    series_number: str
    description: str
    modality: str
    rank: int
    excluded: str
    damage: str
    frames: tuple[Frame, ...]


def is_dicom(path: Path) -> bool:
    """Whether a file begins like a DICOM file, with or without preamble."""
    try:
        with open(path, "rb") as file:
            return _begins_as_dicom(file.read(_PREAMBLE + 4))
    except OSError:
        return False


def _begins_as_dicom(head: bytes) -> bool:
    """Whether there is a preamble, or, as in old files, a first element of group 2 or 8."""
    if head[_PREAMBLE:] == b"DICM":
        return True
    if len(head) < 8 or head[0] not in (2, 8) or head[1] != 0 or head[3] != 0:
        return False
    explicit = head[4:6].isalpha() and head[4:6].isupper()
    return explicit or 0 < struct.unpack("<I", head[4:8])[0] <= 256


def read_header(path: Path) -> DicomFile | None:
    """Read the header of a file; None if it is not a DICOM file, or a DICOMDIR. To be called within `lenient`."""
    try:
        with open(path, "rb") as file:
            if not _begins_as_dicom(file.read(_PREAMBLE + 4)):
                return None
            file.seek(0)
            header, pixels = _parse(file)
    except (*DAMAGE, MemoryError) as error:  # a damaged length may ask for more than there is
        return _damaged(path, Dataset(), f"cannot be read ({type(error).__name__})")
    if "DirectoryRecordSequence" in header:
        return None
    try:
        return _described(path, header, pixels)
    except DAMAGE as error:
        return _damaged(path, header, f"has a damaged header ({type(error).__name__})")


def _parse(file: BinaryIO) -> tuple[Dataset, tuple[int, int] | None]:
    """The header, and offset and length of the value of the pixel data, if any."""
    pixel_elements: list[tuple[str | None, int]] = []

    def at_pixels(tag: int, vr: str | None, length: int) -> bool:
        if tag in PIXEL_TAGS:
            pixel_elements.append((vr, length))
        return tag in PIXEL_TAGS

    header = read_partial(file, stop_when=at_pixels, force=True, specific_tags=_READ_TAGS)
    if not pixel_elements:
        return header, None
    vr, length = pixel_elements[0]
    return header, (file.tell() + (12 if vr in ("OB", "OW", "OF", "OD", "UN", "OL", "OV") else 8), length)


def _described(path: Path, header: Dataset, pixels: tuple[int, int] | None) -> DicomFile:
    if pixels is None and not text(header, "SOPClassUID"):
        return _damaged(path, header, "is cut short: its header is not whole")
    excluded, rank = _kind(header, has_pixels=pixels is not None)
    frames: tuple[Frame, ...] = ()
    damage = ""
    if not excluded:
        if pixels is None:
            return _damaged(path, header, "is cut short: it ends before its pixels")
        try:
            stored = stored_pixels(path, header, *pixels)
            frames = _frames(header, stored)
        except ValueError as error:
            damage = str(error)
    return DicomFile(
        path=path,
        series_uid=text(header, "SeriesInstanceUID"),
        series_number=text(header, "SeriesNumber"),
        description=text(header, "SeriesDescription"),
        modality=_modality(header),
        rank=rank,
        excluded=excluded,
        damage=damage,
        frames=frames,
    )


def _damaged(path: Path, header: Dataset, damage: str) -> DicomFile:
    return DicomFile(
        path=path,
        series_uid=text(header, "SeriesInstanceUID"),
        series_number=text(header, "SeriesNumber"),
        description=text(header, "SeriesDescription"),
        modality=_modality(header),
        rank=0,
        excluded="",
        damage=damage,
        frames=(),
    )


def _modality(header: Dataset) -> str:
    return text(header, "Modality").upper() or _MODALITIES.get(text(header, "SOPClassUID"), "")


def _kind(header: Dataset, *, has_pixels: bool) -> tuple[str, int]:
    """The kind of a file that is not a scan, else "", and a rank: 0 for CT and MR, more for unusual choices."""
    sop_class, modality = UID(text(header, "SOPClassUID")), _modality(header)
    known = sop_class in _MODALITIES
    name = sop_class.name.removesuffix(" Storage").removesuffix(" Image") if sop_class else "image"
    image = has_pixels or "Rows" in header
    if not image and not known:
        return name, 0
    if number(header, "SamplesPerPixel", 1) != 1 or text(header, "PhotometricInterpretation") not in (
        "",
        "MONOCHROME1",
        "MONOCHROME2",
    ):
        return f"colour {name}" if has_pixels else "", 0
    if "LOCALIZER" in text(header, "ImageType").upper():
        return "localizer", 0
    if known:
        return "", 0 if modality in SCANS else 1
    private = sop_class.name == sop_class
    placed = "ImagePositionPatient" in header or "PerFrameFunctionalGroupsSequence" in header
    secondary = sop_class == _SECONDARY_CAPTURES or sop_class.startswith(f"{_SECONDARY_CAPTURES}.")
    if placed and modality in SCANS and (private or secondary):
        return "", 0 if private else 2
    return name, 0


def _frames(header: Dataset, pixels: StoredPixels) -> tuple[Frame, ...]:
    shared = first_item(header, "SharedFunctionalGroupsSequence")
    groups = list(header.get("PerFrameFunctionalGroupsSequence") or [])
    if groups and len(groups) != pixels.frames:
        raise ValueError(f"describes {len(groups)} of its {pixels.frames} frames")
    if pixels.frames > 1 and not groups:
        raise ValueError(f"holds {pixels.frames} frames without a position for each")
    return tuple(_frame(header, shared, own, pixels, n) for n, own in enumerate(groups or [Dataset()]))


def _frame(header: Dataset, shared: Dataset, own: Dataset, pixels: StoredPixels, n: int) -> Frame:
    grouped = bool(len(shared) or len(own))

    def group(name: str) -> Dataset:
        """The data set with a value: of this frame, of all frames, or of a single-frame image."""
        return (first_item(own, name) or first_item(shared, name) or header) if grouped else header

    def stack_value(name: str) -> str:
        path = _FRAME_TAGS.get(name) if grouped else None
        return (text(group(path[0]), path[1]) if path else "") or text(header, name)

    rescale = group("PixelValueTransformationSequence")
    slope, intercept = number(rescale, "RescaleSlope", None), number(rescale, "RescaleIntercept", None)
    if slope == 0:
        raise ValueError("has a RescaleSlope of 0")
    kinds = ("CTImageFrameTypeSequence", "MRImageFrameTypeSequence") if grouped else ()
    return Frame(
        pixels=pixels,
        number=n,
        sop_uid=text(header, "SOPInstanceUID"),
        position=numbers(group("PlanePositionSequence"), "ImagePositionPatient", 3),
        orientation=numbers(group("PlaneOrientationSequence"), "ImageOrientationPatient", 6),
        spacing=numbers(group("PixelMeasuresSequence"), "PixelSpacing", 2),
        slope=1.0 if slope is None else slope,
        intercept=0.0 if intercept is None else intercept,
        unit=_unit(rescale, slope, intercept),
        localizer=any("LOCALIZER" in text(group(kind), "FrameType").upper() for kind in kinds),
        stack_values=tuple(stack_value(name) for name, _ in STACK_TAGS),
    )


def _unit(rescale: Dataset, slope: float | None, intercept: float | None) -> str:
    """Why the values are not HU; empty if they are."""
    if slope is None or intercept is None:
        table = ", but a table" if rescale.get("ModalityLUTSequence") else ""
        return f"no RescaleSlope and RescaleIntercept{table}"
    kind = text(rescale, "RescaleType").upper()
    return "" if kind in _NO_HU_TYPES else f"RescaleType {kind}"
