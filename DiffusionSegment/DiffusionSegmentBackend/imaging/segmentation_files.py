"""Segmentations from any source with the names and codes of their segments: label maps, .seg.nrrd and DICOM SEG."""

from __future__ import annotations

import json
import re
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import nibabel
import numpy as np
from numpy.typing import NDArray

from ..errors import DiffusionSegmentError, ErrorCode
from ..schema.segment_matching import SegmentName, terms_of_entry
from .compressed_files import first_bytes
from .dicom_headers import is_dicom
from .dicom_seg_files import read_dicom_seg
from .image_files import refusals
from .label_maps import LARGEST_LABEL, whole_numbers
from .nrrd import NrrdImage, read_nrrd
from .resampled_labels import FittedLabels, fit_to_scan
from .segment_layers import Layer, merged
from .volume import Volume, check_geometry
from .volume_io import Scan, read_volume

_SEGMENT = re.compile(r"Segment(\d+)_(Layer|LabelValue|Name|Tags)")
_TERMINOLOGY = re.compile(r"(?:^|\|)TerminologyEntry:(.*?)(?=\|\w|\|?$)")
_DATASET = "dataset.json"
_MAX_NAMES_BYTES = 2**20
_UNREADABLE = (OSError, ValueError, TypeError, KeyError, AttributeError, RecursionError, EOFError, zlib.error)
_NAMES_HINT = 'Write --labels "1=spleen,2=liver", or name a JSON file {"1": "spleen"}.'


@dataclass(frozen=True)
class SegmentationFile:
    """A segmentation on the voxels of its scan.

    Attributes:
        labels: (k, j, i), uint8, 0 background.
        names: the segments by their value in `labels`; those of the file without a voxel too.
        has_names: whether the file, or one beside it, names the segments.
        covered: mask (k, j, i) of the voxels inside a label map; None where the file covers the scan.
        notes: sentences for the user on how it was brought onto the voxels of the scan.
    """

    labels: NDArray[np.uint8]
    names: dict[int, SegmentName]
    has_names: bool
    covered: NDArray[np.bool_] | None = None
    notes: tuple[str, ...] = ()


def read_segmentation(
    path: Path, scan: Scan, *, names: Mapping[int, str] | None = None, force: bool = False
) -> SegmentationFile:
    """Read a segmentation on the voxels of a scan (k, j, i), resampled where its own are others (`fit_to_scan`).

    A label map may be that of a crop of the scan: the rest of the scan is unknown. A .seg.nrrd and a DICOM SEG are
    cropped to their segments by the programs that write them: the rest is background.

    Names are those of the file (.seg.nrrd, DICOM SEG, the NIfTI files of TotalSegmentator), else those of `labels` in a
    dataset.json of nnU-Net beside it. A value without a name is a segment of its own, "label 7".

    Args:
        path: the file.
        scan: the scan.
        names: names by value, in place of all others; for label maps alone.
        force: accept a DICOM SEG of another patient or frame of reference.

    Raises:
        DiffusionSegmentError: GEOMETRY for a segmentation beside the scan and for another patient, INPUT_VALUES for
            numbers that are no labels and for overlapping segments, OPTION for `names` of a file that has its own, and
            what reading raises.
    """
    if not path.exists():
        raise DiffusionSegmentError(ErrorCode.INPUT_MISSING, f"{path} does not exist.", hint="Check the path.")
    what = f"The segmentation {path.name}"
    if path.is_file() and is_dicom(path):
        _refuse_names(names, path)
        volume, segments = read_dicom_seg(path, scan.dicom, force=force)
        return _fitted(fit_to_scan(volume, scan.volume, what=what, whole=False), segments, has_names=True)
    image = _seg_nrrd(path)
    if image is not None:
        _refuse_names(names, path)
        volume, segments = _segments(image, path)
        return _fitted(fit_to_scan(volume, scan.volume, what=what, whole=False), segments, has_names=True)
    volume = read_volume(path)
    numbers = whole_numbers(volume.array, path)
    fitted = fit_to_scan(Volume(numbers, volume.index_to_lps), scan.volume, what=what)
    stated = dict(names) if names is not None else names_in_nifti(path) or names_in_dataset(path.parent / _DATASET)
    listed = {value: SegmentName(name=name) for value, name in stated.items() if value}
    # Slice by slice, which is faster than np.unique, and a count of all takes eight times the memory of the labels.
    counts = sum(np.bincount(plane.ravel(), minlength=LARGEST_LABEL + 1) for plane in numbers)
    for value in np.flatnonzero(counts).tolist():
        if value:
            listed.setdefault(value, SegmentName(name=f"label {value}"))
    return _fitted(fitted, dict(sorted(listed.items())), has_names=bool(stated))


def _fitted(fitted: FittedLabels, names: dict[int, SegmentName], *, has_names: bool) -> SegmentationFile:
    return SegmentationFile(fitted.labels, names, has_names, fitted.covered, fitted.notes)


def parse_names(text: str) -> dict[int, str]:
    """Names by value from "1=spleen,2=liver", or from a JSON file: {"1": "spleen"}, {"spleen": 1}, or a dataset.json.

    Raises:
        DiffusionSegmentError: OPTION.
    """
    if "=" in text:
        try:
            pairs = [part.split("=", 1) for part in text.split(",") if part.strip()]
            return {_value(value): name.strip() for value, name in pairs}
        except ValueError as error:
            raise DiffusionSegmentError(ErrorCode.OPTION, f"'{text}' are no names.", hint=_NAMES_HINT) from error
    try:
        names = _names_of(json.loads(Path(text).read_text(encoding="utf-8")))
    except _UNREADABLE as error:
        raise DiffusionSegmentError(
            ErrorCode.OPTION, f"{text} holds no names ({type(error).__name__}).", hint=_NAMES_HINT
        ) from error
    if not names:
        raise DiffusionSegmentError(ErrorCode.OPTION, f"{text} holds no names.", hint=_NAMES_HINT)
    return names


def names_in_dataset(path: Path) -> dict[int, str]:
    """The names by value in a dataset.json of nnU-Net; none if it is missing, damaged or has regions."""
    try:
        return _names_of(json.loads(path.read_text(encoding="utf-8"))) if path.is_file() else {}
    except _UNREADABLE:
        return {}


def names_in_nifti(path: Path) -> dict[int, str]:
    """The names by value in a label table in the header of a NIfTI file, as TotalSegmentator writes it; else none."""
    if not path.name.lower().endswith((".nii", ".nii.gz")):
        return {}
    try:
        header: Any = nibabel.load(path).header
        texts = [bytes(item.get_content()) for item in header.extensions]
        for text in texts:
            # A table needs no entities, with which a small file could take all memory.
            if b"LabelTable" in text and b"<!" not in text.replace(b"<![CDATA[", b"") and len(text) < _MAX_NAMES_BYTES:
                root = ElementTree.fromstring(text.rstrip(b"\0 \n"))
                labels = {_value(label.get("Key", "")): (label.text or "").strip() for label in root.iter("Label")}
                return {value: name for value, name in labels.items() if value and name}
    except (*_UNREADABLE, nibabel.filebasedimages.ImageFileError, ElementTree.ParseError):
        return {}
    return {}


def _names_of(raw: Any) -> dict[int, str]:
    """Names by value of {"1": "spleen"} or {"spleen": 1}, or of the `labels` of a dataset.json.

    Raises:
        ValueError, TypeError, AttributeError: it is something else.
    """
    labels = raw.get("labels", raw)
    pairs = [(key, name) if str(key).strip().isdecimal() else (name, key) for key, name in labels.items()]
    return {number: str(name) for value, name in pairs if (number := _value(value))}


def _value(value: object) -> int:
    number = int(str(value).strip())
    if not 0 <= number <= LARGEST_LABEL:
        raise ValueError(f"{number} is no label")
    return number


def _refuse_names(names: Mapping[int, str] | None, path: Path) -> None:
    if names is not None:
        raise DiffusionSegmentError(
            ErrorCode.OPTION, f"{path} names its segments itself.", hint="Use --match NAME=ORGAN instead of --labels."
        )


def _seg_nrrd(path: Path) -> NrrdImage | None:
    """The image of a segmentation of 3D Slicer; None for any other file."""
    if not path.is_file() or not first_bytes(path, 4).startswith(b"NRRD"):
        return None
    with refusals(path):
        image = read_nrrd(path)
    return image if any(_SEGMENT.fullmatch(key) for key in image.pairs) else None


def _segments(image: NrrdImage, path: Path) -> tuple[Volume, dict[int, SegmentName]]:
    """The segments of a .seg.nrrd, numbered from 1, in one label map."""
    check_geometry(image.index_to_lps, what=str(path))
    entries: dict[int, dict[str, str]] = {}
    for key, value in image.pairs.items():
        if (match := _SEGMENT.fullmatch(key)) is not None:
            entries.setdefault(int(match[1]), {})[match[2]] = value
    array = image.array if image.array.ndim == 4 else image.array[..., None]
    layers, names = [], {}
    for number, entry in enumerate((entries[index] for index in sorted(entries)), start=1):
        name = entry.get("Name", f"segment {number}")
        code, modifier = terms_of_entry(_entry_in(entry.get("Tags", "")))
        names[number] = SegmentName(name=name, code=code, modifier=modifier)
        layer, label = _integer(entry.get("Layer", "0")), _integer(entry.get("LabelValue", str(number)))
        there = 0 <= layer < array.shape[3]
        layers.append(Layer(name, array[..., layer] == label if there else np.zeros(array.shape[:3], dtype=bool)))
    return Volume(merged(layers, array.shape[:3], path), image.index_to_lps), names


def _entry_in(tags: str) -> str:
    match = _TERMINOLOGY.search(tags)
    return match[1] if match else ""


def _integer(text: str) -> int:
    return int(text) if text.strip().isdecimal() else -1
