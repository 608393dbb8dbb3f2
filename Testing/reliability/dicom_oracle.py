"""A second reader of DICOM from the headers of pydicom, to check the geometry and values of accepted series."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pydicom
from DiffusionSegmentBackend.imaging.volume import Volume
from numpy.typing import NDArray
from pydicom.dataset import Dataset
from pydicom.uid import UID, ExplicitVRBigEndian, ExplicitVRLittleEndian

from .target import demand

_ROUNDING_MM = 0.06
_SHARE = 0.11  # of the distance between slices, the tolerance of a slice position
_STEP_SHARE = 0.01


@dataclass(frozen=True)
class HandSlice:
    """One slice: LPS mm of its first pixel, steps to the next column and row, values (j, i), and their mask."""

    position: NDArray[np.float64]
    to_column: NDArray[np.float64]
    to_row: NDArray[np.float64]
    values: NDArray[np.float64]
    measured: NDArray[np.bool_]


def read_by_hand(folder: Path) -> tuple[list[HandSlice], int]:
    """All slices and frames of a folder that pydicom can read, and the number of files that it cannot read."""
    slices: list[HandSlice] = []
    unread = 0
    for path in sorted(folder.iterdir()):
        try:
            slices += _slices(pydicom.dcmread(path, force=True))
        except Exception:  # also MemoryError for a length in a damaged header
            unread += 1
    return slices, unread


def _slices(image: Dataset) -> Iterator[HandSlice]:
    cells = _cells(image)
    shared = image.SharedFunctionalGroupsSequence[0] if "SharedFunctionalGroupsSequence" in image else Dataset()
    for n, frame in enumerate(cells):
        own = image.PerFrameFunctionalGroupsSequence[n] if "PerFrameFunctionalGroupsSequence" in image else Dataset()
        orientation = np.array(_value(image, shared, own, "PlaneOrientation", "ImageOrientationPatient"), dtype=float)
        orientation = (orientation.reshape(2, 3) / np.linalg.norm(orientation.reshape(2, 3), axis=1)[:, None]).ravel()
        between_rows, between_columns = _value(image, shared, own, "PixelMeasures", "PixelSpacing")
        slope = _value(image, shared, own, "PixelValueTransformation", "RescaleSlope")
        intercept = _value(image, shared, own, "PixelValueTransformation", "RescaleIntercept")
        yield HandSlice(
            position=np.array(_value(image, shared, own, "PlanePosition", "ImagePositionPatient"), dtype=float),
            to_column=orientation[:3] * float(between_columns),
            to_row=orientation[3:] * float(between_rows),
            values=frame * float(1 if slope is None else slope) + float(intercept or 0),
            measured=_measured(image, frame),
        )


def _value(image: Dataset, shared: Dataset, own: Dataset, group: str, name: str) -> object:
    for groups in (own, shared):
        if f"{group}Sequence" in groups:
            return groups[f"{group}Sequence"][0].get(name)
    value = image.get(name)
    return None if value == "" else value


def _cells(image: Dataset) -> NDArray[np.float64]:
    """Stored values (frames, j, i) with their sign; unused bits are masked."""
    shape = (int(image.get("NumberOfFrames") or 1), int(image.Rows), int(image.Columns))
    syntax = UID(image.file_meta.get("TransferSyntaxUID", ExplicitVRLittleEndian))
    if syntax.is_encapsulated:
        for name, usual in (("PhotometricInterpretation", "MONOCHROME2"), ("SamplesPerPixel", 1)):
            if name not in image:
                setattr(image, name, usual)
        return np.asarray(image.pixel_array, dtype=np.float64).reshape(shape)
    bytes_each = int(image.BitsAllocated) // 8
    order = ">" if syntax == ExplicitVRBigEndian else "<"
    cells = np.frombuffer(image.PixelData, f"{order}u{bytes_each}", count=int(np.prod(shape))).astype(np.int64)
    stored = int(image.BitsStored)
    cells = (cells >> (int(image.get("HighBit", stored - 1)) + 1 - stored)) & ((1 << stored) - 1)
    if int(image.get("PixelRepresentation") or 0) == 1:
        cells = np.where(cells >= 1 << (stored - 1), cells - (1 << stored), cells)
    return cells.reshape(shape).astype(np.float64)


def _measured(image: Dataset, cells: NDArray[np.float64]) -> NDArray[np.bool_]:
    if "PixelPaddingValue" not in image:
        return np.ones(cells.shape, dtype=bool)
    bits = int(image.BitsAllocated)
    ends = [int(image.get(n, image.PixelPaddingValue)) for n in ("PixelPaddingValue", "PixelPaddingRangeLimit")]
    reach = [end + shift for end in ends for shift in (0, 1 << bits, -(1 << bits))]
    low, high = min(ends), max(ends)
    return ~(((cells >= low) & (cells <= high)) | np.isin(cells, reach))


def check_by_hand(volume: Volume, folder: Path) -> None:
    """Compare an accepted series with the headers of its files.

    Raises:
        Broken: a slice has another position or other values, or is missing without a note.
    """
    by_hand, unread = read_by_hand(folder)
    unknown = unread * -(-len(volume.array) // len(list(folder.iterdir())))
    matrix = volume.index_to_lps
    allowed = _SHARE * float(volume.spacing[2]) + _ROUNDING_MM
    for k, values in enumerate(volume.array):
        position = matrix[:3] @ (0, 0, k, 1)
        near = [
            s for s in by_hand if np.linalg.norm(s.position - position) <= allowed and s.values.shape == values.shape
        ]
        if not near and unknown:
            # The slices of a file that pydicom cannot read are unknown here, including all its frames.
            unknown -= 1
            continue
        demand(near, f"no header has a slice at the position of slice {k}")
        demand(any(_same_plane(s, matrix) for s in near), f"slice {k} has other steps than in its header")
        demand(any(_same_values(s, values) for s in near), f"slice {k} has other values than in its header")
    demand(len(by_hand) <= len(volume.array) or volume.notes, "a slice was dropped without a note")


def _same_plane(by_hand: HandSlice, matrix: NDArray[np.float64]) -> bool:
    return all(
        np.linalg.norm(matrix[:3, n] - step) <= _STEP_SHARE * np.linalg.norm(step)
        for n, step in enumerate((by_hand.to_column, by_hand.to_row))
    )


def _same_values(by_hand: HandSlice, values: NDArray) -> bool:
    return bool(np.allclose(by_hand.values[by_hand.measured], values[by_hand.measured], rtol=1e-5, atol=1e-3))
