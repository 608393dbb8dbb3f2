"""Reading of label maps of 3D Slicer, ITK-SNAP and scripts on the voxels of their scan."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..errors import DiffusionSegmentError, ErrorCode
from .alignment import align_to_scan
from .compressed_files import first_bytes
from .image_files import refusals
from .nrrd import NrrdImage, read_nrrd
from .volume import Volume, check_geometry
from .volume_io import read_volume

LARGEST_LABEL = 255
_WHOLE = 1e-3
_SEGMENT = re.compile(r"Segment(\d+)_(Layer|LabelValue|Name)")
_AS_LABEL_MAP = "In 3D Slicer, export the segments as a label map (Segmentations module)."


def read_label_map(path: Path, scan: Volume, *, hint: str = "Resample the label map to the scan.") -> NDArray[np.uint8]:
    """The labels of a file, 0 to 255, in the scan's own (k, j, i).

    Flipped and permuted axes are undone, and a segmentation that Slicer cropped to its segments is padded. Any other
    label map must cover the scan, because voxels outside it may not have been annotated.

    Raises:
        DiffusionSegmentError: GEOMETRY for voxels that are not the scan's, INPUT_VALUES for numbers that are no labels
            and for overlapping segments, and what `read_volume` raises.
    """
    volume, cropped = _read(path)
    labels = Volume(whole_numbers(volume.array, path), volume.index_to_lps)
    what = f"The label map {path} and the scan"
    return align_to_scan(labels, scan, what=what, hint=hint, whole=not cropped)


def whole_numbers(array: NDArray[Any], path: Path) -> NDArray[np.uint8]:
    """Values as labels; floats are accepted if they are integers to a thousandth.

    Raises:
        DiffusionSegmentError: INPUT_VALUES, naming a value that is no label.
    """
    if array.dtype == np.uint8:
        return array
    rounded = np.rint(array) if array.dtype.kind == "f" else array
    off = array[np.abs(array - rounded) > _WHOLE] if array.dtype.kind == "f" else array[:0]
    if not off.size:
        off = array[(rounded < 0) | (rounded > LARGEST_LABEL)]
    if off.size:
        raise DiffusionSegmentError(
            ErrorCode.INPUT_VALUES,
            f"{path} is no label map: it holds the value {off.flat[0]:.7g}.",
            hint=f"Labels are whole numbers, 0 to {LARGEST_LABEL}; resample label maps to the nearest neighbour.",
        )
    return rounded.astype(np.uint8)


def _read(path: Path) -> tuple[Volume, bool]:
    """The volume of a label map, and whether it is a segmentation of Slicer, which may be cropped."""
    if not path.is_file() or not first_bytes(path, 4).startswith(b"NRRD"):
        return read_volume(path), False
    with refusals(path):
        image = read_nrrd(path)
    segments = _segments(image)
    if not segments:
        return read_volume(path), False
    check_geometry(image.index_to_lps, what=str(path))
    array = image.array if image.array.ndim == 3 else _merged(image, segments, path)
    return Volume(array, image.index_to_lps), True


def _segments(image: NrrdImage) -> dict[int, dict[str, str]]:
    """Layer, LabelValue and Name of each segment in the header of a .seg.nrrd file."""
    segments: dict[int, dict[str, str]] = {}
    for key, value in image.pairs.items():
        if (match := _SEGMENT.fullmatch(key)) is not None:
            segments.setdefault(int(match[1]), {})[match[2]] = value
    return segments


def _merged(image: NrrdImage, segments: dict[int, dict[str, str]], path: Path) -> NDArray[Any]:
    """The layers of a segmentation as one label map.

    Raises:
        DiffusionSegmentError: INPUT_VALUES where two segments share a voxel or a number.
    """
    values = [segment.get("LabelValue", "") for segment in segments.values()]
    twice = sorted({value for value in values if values.count(value) > 1})
    if twice:
        names = [s.get("Name", "?") for s in segments.values() if s.get("LabelValue", "") == twice[0]]
        raise _overlap(f"{path} numbers several segments {twice[0] or 'not at all'}: {', '.join(names)}.")
    result = np.zeros(image.array.shape[:3], dtype=image.array.dtype)
    for layer in np.moveaxis(image.array, 3, 0):
        if shared := int(np.count_nonzero((result != 0) & (layer != 0))):
            raise _overlap(f"Segments of {path} overlap: {shared} voxels have two.")
        result = np.where(layer != 0, layer, result)
    return result


def _overlap(message: str) -> DiffusionSegmentError:
    return DiffusionSegmentError(ErrorCode.INPUT_VALUES, message, hint=_AS_LABEL_MAP)
