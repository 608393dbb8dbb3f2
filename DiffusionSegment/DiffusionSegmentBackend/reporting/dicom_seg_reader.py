"""A DICOM SEG file back as labels, with the names and codes of its segments."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import highdicom
import numpy as np
import pydicom
from highdicom.seg import Segmentation, segread
from numpy.typing import NDArray
from pydicom.errors import InvalidDicomError

from ..errors import DiffusionSegmentError, ErrorCode
from ..imaging.dicom_grid import position_tolerance
from ..imaging.volume import Volume, check_geometry

_SAME_DIRECTION = 1e-3
_SAME_PLACE_MM = 0.05


@dataclass(frozen=True)
class CodedTerm:
    """A coded term, such as SCT 10200004 Liver."""

    scheme: str
    value: str
    meaning: str


@dataclass(frozen=True)
class Segment:
    """One segment. `name` is the tracking id's last part, model.json's name where this program wrote the file."""

    number: int
    name: str
    title: str
    category: CodedTerm
    code: CodedTerm
    modifier: CodedTerm | None
    colour: tuple[int, int, int] | None
    tracking_uid: str | None


@dataclass(frozen=True)
class DicomSegmentation:
    """`labels` holds segment numbers, 0 for none, in (k, j, i); the series and images that it refers to by UID."""

    labels: Volume
    segments: tuple[Segment, ...]
    series_uid: str
    image_uids: tuple[str, ...]

    def with_values(self, values: Mapping[str, int]) -> NDArray[np.uint8]:
        """The labels with each segment numbered as `values` says by name.

        Raises:
            DiffusionSegmentError: INPUT_VALUES for a segment that has no value there.
        """
        numbers = np.zeros(max(segment.number for segment in self.segments) + 1, dtype=np.uint8)
        for segment in self.segments:
            if segment.name not in values:
                raise DiffusionSegmentError(
                    ErrorCode.INPUT_VALUES,
                    f"The segment '{segment.title}' is none of the model's organs.",
                    hint="Choose the model that made the segmentation.",
                )
            numbers[segment.number] = values[segment.name]
        return numbers[self.labels.array]


def read_dicom_seg(path: Path, *, scan: Volume | None = None) -> DicomSegmentation:
    """Read a binary DICOM SEG; its frames may lie in any order.

    With `scan` the labels have its geometry, whatever way its slices run; without, they reach from the first stored
    slice to the last, since empty slices are not stored.

    Raises:
        DiffusionSegmentError: INPUT_MISSING, INPUT_UNREADABLE, INPUT_SHAPE, INPUT_VALUES when segments overlap,
            GEOMETRY when the frames do not lie on the scan's slices or not at even distances.
    """
    segmentation = _open(path)
    try:
        frames = [_frame(segmentation, number) for number in range(int(segmentation.NumberOfFrames))]
        grid = scan or _own_grid(segmentation, [position for position, _ in frames], path)
        _check_plane(segmentation, grid, path)
        labels = _labels(segmentation, frames, grid, path)
        segments = tuple(_segment(item) for item in segmentation.SegmentSequence)
        series = segmentation.ReferencedSeriesSequence[0]
        images = tuple(str(item.ReferencedSOPInstanceUID) for item in series.ReferencedInstanceSequence)
        return DicomSegmentation(Volume(labels, grid.index_to_lps), segments, str(series.SeriesInstanceUID), images)
    except (AttributeError, KeyError, IndexError, TypeError, ValueError) as error:
        raise _unreadable(path) from error


def _open(path: Path) -> Segmentation:
    if not path.is_file():
        raise DiffusionSegmentError(ErrorCode.INPUT_MISSING, f"{path} does not exist.", hint="Check the path.")
    try:
        segmentation = segread(path)
    except (InvalidDicomError, OSError, ValueError, AttributeError, KeyError, TypeError, IndexError) as error:
        raise _unreadable(path) from error
    if segmentation.SegmentationType != "BINARY":
        raise DiffusionSegmentError(
            ErrorCode.INPUT_SHAPE, f"{path} is not a binary segmentation.", hint="Export it with binary segments."
        )
    return segmentation


def _frame(segmentation: Segmentation, number: int) -> tuple[NDArray[np.float64], int]:
    """Position in LPS mm and segment number of a frame; what all frames share is stored once."""
    own = segmentation.PerFrameFunctionalGroupsSequence[number]
    shared = segmentation.SharedFunctionalGroupsSequence[0]
    position = np.array(own.PlanePositionSequence[0].ImagePositionPatient, dtype=np.float64)
    source = own if "SegmentIdentificationSequence" in own else shared
    return position, int(source.SegmentIdentificationSequence[0].ReferencedSegmentNumber)


def _plane(segmentation: Segmentation) -> NDArray[np.float64]:
    """The steps along i and j in LPS mm as columns (3, 2)."""
    shared = segmentation.SharedFunctionalGroupsSequence[0]
    direction = np.array(shared.PlaneOrientationSequence[0].ImageOrientationPatient, dtype=np.float64)
    between_rows, between_columns = (float(v) for v in shared.PixelMeasuresSequence[0].PixelSpacing)
    return np.stack([direction[:3] * between_columns, direction[3:] * between_rows], axis=1)


def _own_grid(segmentation: Segmentation, positions: list[NDArray[np.float64]], path: Path) -> Volume:
    """The geometry that the stored frames span; a volume without memory of its own, for its shape."""
    plane = _plane(segmentation)
    normal = np.cross(plane[:, 0], plane[:, 1])
    normal /= np.linalg.norm(normal)
    heights = np.array([normal @ position for position in positions])
    levels = np.unique(np.round(heights, 3))
    step = _slice_distance(segmentation, levels, path)
    matrix = np.eye(4)
    matrix[:3, :2], matrix[:3, 2] = plane, _step(np.array(positions), heights, normal, step)
    matrix[:3, 3] = positions[int(heights.argmin())]
    check_geometry(matrix)
    shape = (round((levels[-1] - levels[0]) / step) + 1, int(segmentation.Rows), int(segmentation.Columns))
    return Volume(np.broadcast_to(np.uint8(0), shape), matrix)


def _step(
    positions: NDArray[np.float64], heights: NDArray[np.float64], normal: NDArray[np.float64], distance: float
) -> NDArray[np.float64]:
    """From slice to slice: along the normal, unless the positions lie on another line (gantry tilt)."""
    aside = positions - heights[:, None] * normal
    number = np.round((heights - heights.min()) / distance)
    number -= number.mean()
    shear = number @ aside / (float(number @ number) or 1.0)
    beside = np.abs(shear).max() * np.ptp(number) > _SAME_PLACE_MM
    return normal * distance + (shear if beside else 0.0)


def _slice_distance(segmentation: Segmentation, levels: NDArray[np.float64], path: Path) -> float:
    """The distance stated, where all levels lie on it; else the least distance between two frames."""
    measures = segmentation.SharedFunctionalGroupsSequence[0].PixelMeasuresSequence[0]
    stated = measures.get("SpacingBetweenSlices") or measures.get("SliceThickness")
    gaps = np.diff(levels)
    for step in (*([float(stated)] if stated else []), *([float(gaps.min())] if len(gaps) else [])):
        off = levels - levels[0] - step * np.round((levels - levels[0]) / step)
        if np.abs(off).max() <= position_tolerance(step):
            return step
    raise DiffusionSegmentError(
        ErrorCode.GEOMETRY, f"The frames of {path} are not evenly spaced.", hint="Read it with its scan."
    )


def _check_plane(segmentation: Segmentation, grid: Volume, path: Path) -> None:
    same_size = grid.array.shape[1:] == (int(segmentation.Rows), int(segmentation.Columns))
    if not same_size or not np.allclose(_plane(segmentation), grid.index_to_lps[:3, :2], atol=_SAME_DIRECTION):
        raise _elsewhere(path)


def _labels(
    segmentation: Segmentation, frames: list[tuple[NDArray[np.float64], int]], grid: Volume, path: Path
) -> NDArray[np.uint8]:
    """Each frame goes to the slice that its position names, so the order of the frames does not matter."""
    labels = np.zeros(grid.array.shape, dtype=np.uint8)
    inverse = np.linalg.inv(grid.index_to_lps)
    allowed = position_tolerance(float(grid.spacing[2]))
    for number, (position, segment) in enumerate(frames):
        k = round(float((inverse @ [*position, 1.0])[2]))
        on_slice = grid.index_to_lps @ (0, 0, k, 1)
        if not 0 <= k < len(labels) or not np.allclose(on_slice[:3], position, atol=allowed):
            raise _elsewhere(path)
        inside = segmentation.get_stored_frame(number + 1) > 0
        if np.any(labels[k][inside]):
            raise DiffusionSegmentError(
                ErrorCode.INPUT_VALUES,
                f"Segments of {path} overlap, which a label map cannot hold.",
                hint="Import it into Slicer instead.",
            )
        labels[k][inside] = segment
    return labels


def _segment(item: pydicom.Dataset) -> Segment:
    kind = item.SegmentedPropertyTypeCodeSequence[0]
    modifier = kind.get("SegmentedPropertyTypeModifierCodeSequence")
    colour = item.get("RecommendedDisplayCIELabValue")
    title = str(item.SegmentLabel)
    return Segment(
        number=int(item.SegmentNumber),
        name=str(item.get("TrackingID", title)).rpartition("/")[2],
        title=title,
        category=_term(item.SegmentedPropertyCategoryCodeSequence[0]),
        code=_term(kind),
        modifier=_term(modifier[0]) if modifier else None,
        colour=_rgb(colour) if colour else None,
        tracking_uid=str(item.TrackingUID) if "TrackingUID" in item else None,
    )


def _term(code: pydicom.Dataset) -> CodedTerm:
    return CodedTerm(str(code.CodingSchemeDesignator), str(code.CodeValue), str(code.CodeMeaning))


def _rgb(value: list[int]) -> tuple[int, int, int]:
    lightness, a, b = (int(v) for v in value)
    red, green, blue = highdicom.color.CIELabColor.from_dicom_value((lightness, a, b)).to_rgb()
    return int(red), int(green), int(blue)


def _elsewhere(path: Path) -> DiffusionSegmentError:
    return DiffusionSegmentError(
        ErrorCode.GEOMETRY, f"{path} and the scan differ in geometry.", hint="Give the scan that it was made from."
    )


def _unreadable(path: Path) -> DiffusionSegmentError:
    return DiffusionSegmentError(
        ErrorCode.INPUT_UNREADABLE, f"{path} is not a readable DICOM SEG, or is damaged.", hint="Export it again."
    )
