"""The common grid of all frames of a stack, with checks of every position, orientation and pixel spacing.

The grid's third axis follows from the positions, not from the normal of the slices, so that gantry tilt is a shear.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..errors import DiffusionSegmentError, ErrorCode
from .dicom_headers import Frame

# Tolerance of positions: half a unit of the first decimal, plus a fraction of the distance between slices.
_ROUNDING_MM = 0.051
_DISTANCE_FRACTION = 0.1
_SAME_HEIGHT_MM = 1e-3
_SPACING_NOISE = 1e-3
_ORIENTATION_NOISE = 2e-3  # about half a voxel at the far corner of 512
_SKEW = 0.02
_HINT = "Export the series again; if it holds several stacks, export each as a series of its own."


@dataclass(frozen=True, eq=False)
class Stack:
    """Frames in the order of k, and the matrix from (i, j, k, 1) to LPS mm."""

    frames: tuple[Frame, ...]
    index_to_lps: NDArray[np.float64]


def stack_frames(frames: Sequence[Frame], *, what: str) -> Stack:
    """Sort the frames along the normal of their slices and fit a grid to them; `what` names them in errors.

    Raises:
        DiffusionSegmentError: GEOMETRY, with the first slice that is not on the grid.
    """
    _check_complete(frames, what)
    rows, columns = _axes(frames, what)
    spacing = _spacing(frames, what)
    normal = np.cross(rows, columns)
    positions = np.array([frame.position for frame in frames], dtype=np.float64)
    order = np.argsort(positions @ normal, kind="stable")
    frames, positions = [frames[n] for n in order], positions[order]
    _check_distances(frames, positions @ normal, what)
    origin, step = _line(positions)
    rows, columns, step, origin = _straightened(rows, columns, step, origin, len(frames), min(spacing))
    _check_beside(frames, positions, origin, step, normal, min(spacing), what)
    matrix = np.eye(4)
    matrix[:3, 0], matrix[:3, 1] = rows * spacing[1], columns * spacing[0]
    matrix[:3, 2], matrix[:3, 3] = step, origin
    return Stack(tuple(frames), matrix)


def _check_complete(frames: Sequence[Frame], what: str) -> None:
    for frame in frames:
        for value, name in (
            (frame.position, "ImagePositionPatient"),
            (frame.orientation, "ImageOrientationPatient"),
            (frame.spacing, "PixelSpacing"),
        ):
            if value is None:
                raise _refusal(f"{frame.name} of {what} has no usable {name}: its position is unknown.")


def unit_axes(frame: Frame) -> NDArray[np.float64] | None:
    """Unit vectors (2, 3) of increasing column and row index; None if the orientation is invalid."""
    axes = np.array(frame.orientation, dtype=np.float64).reshape(2, 3)
    length = np.linalg.norm(axes, axis=1)
    if np.any(np.abs(length - 1) > _SKEW):
        return None
    axes /= length[:, None]
    return axes if abs(float(axes[0] @ axes[1])) < _SKEW else None


def _axes(frames: Sequence[Frame], what: str) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """The mean directions of rows and columns, made orthogonal, after a check of each slice."""
    all_axes = []
    for frame in frames:
        axes = unit_axes(frame)
        if axes is None:
            raise _refusal(f"The rows and columns of {frame.name} of {what} are not at right angles.")
        all_axes.append(axes)
    stacked = np.stack(all_axes)
    middle = np.median(stacked, axis=0)
    off = np.abs(stacked - middle).max(axis=(1, 2))
    worst = int(off.argmax())
    if off[worst] > _ORIENTATION_NOISE:
        raise _refusal(f"{frames[worst].name} of {what} is rotated against the other slices.")
    rows, columns = stacked.mean(axis=0)
    return _right_angled(rows, columns)


def _right_angled(rows: NDArray[Any], columns: NDArray[Any]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Two orthogonal unit vectors, each rotated from its input by the same small angle."""
    between, across = rows + columns, rows - columns
    between, across = between / np.linalg.norm(between), across / np.linalg.norm(across)
    return (between + across) / np.sqrt(2), (between - across) / np.sqrt(2)


def _spacing(frames: Sequence[Frame], what: str) -> tuple[float, float]:
    spacing = np.array([frame.spacing for frame in frames], dtype=np.float64)
    middle = np.median(spacing, axis=0)
    if np.any(middle <= 0):
        raise _refusal(f"The PixelSpacing of {what} is zero or negative.")
    off = np.abs(spacing / middle - 1).max(axis=1)
    worst = int(off.argmax())
    if off[worst] > _SPACING_NOISE:
        stated = " x ".join(f"{v:.4g}" for v in spacing[worst])
        usual = " x ".join(f"{v:.4g}" for v in middle)
        raise _refusal(
            f"The PixelSpacing of {what} changes: {stated} mm in {frames[worst].name}, {usual} mm in other slices."
        )
    return float(middle[0]), float(middle[1])


def position_tolerance(distance: float) -> float:
    """Tolerance in mm of the position of a slice, for slices (or pixels) at a distance of `distance` mm."""
    return _DISTANCE_FRACTION * distance + _ROUNDING_MM


def _check_distances(frames: Sequence[Frame], heights: NDArray[np.float64], what: str) -> None:
    """Check that slices are evenly spaced: none missing, none duplicated, no change of the distance."""
    gaps, index = np.diff(heights), np.arange(len(heights))
    usual = float(np.median(gaps))
    off = np.abs(gaps - usual)
    n = int(off.argmax())
    if (twice := np.flatnonzero(gaps < _SAME_HEIGHT_MM)).size:
        one, other = frames[twice[0]].name, frames[twice[0] + 1].name
        raise _refusal(
            f"The slices of {what} are not evenly spaced: {one} and {other} lie at the same height, "
            "as where two stacks overlap."
        )
    drift = np.abs(heights - np.polyval(np.polyfit(index, heights, 1), index)) if len(heights) > 2 else np.zeros(1)
    if off[n] > _DISTANCE_FRACTION * usual + 2 * _ROUNDING_MM or drift.max() > position_tolerance(usual):
        missing = gaps[n] / usual - 1
        cause = ": slices are missing" if missing > 0.9 and abs(missing - round(missing)) < 0.1 else ""
        raise _refusal(
            f"The slices of {what} are not evenly spaced: {gaps[n]:.2f} mm between {frames[n].name} and "
            f"{frames[n + 1].name}, {usual:.2f} mm elsewhere{cause}."
        )


def _line(positions: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """First point and step of the evenly spaced line that fits the positions best (least squares)."""
    index = np.arange(len(positions)) - (len(positions) - 1) / 2
    step = (index @ positions) / float(index @ index)
    return positions.mean(axis=0) + index[0] * step, step


def _straightened(
    rows: NDArray[np.float64],
    columns: NDArray[np.float64],
    step: NDArray[np.float64],
    origin: NDArray[np.float64],
    count: int,
    pixel: float,
) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
    """Remove a shear within rounding: of the positions in a short stack, of the orientation in a long one."""
    normal = np.cross(rows, columns)
    aside = step - (step @ normal) * normal
    if np.linalg.norm(aside) * (count - 1) <= position_tolerance(pixel):
        return rows, columns, (step @ normal) * normal, origin + aside * (count - 1) / 2
    if np.linalg.norm(aside) < _ORIENTATION_NOISE * np.linalg.norm(step):
        along = step / np.linalg.norm(step)
        rows, columns = (v - (v @ along) * along for v in (rows, columns))
        rows, columns = _right_angled(rows / np.linalg.norm(rows), columns / np.linalg.norm(columns))
    return rows, columns, step, origin


def _check_beside(
    frames: Sequence[Frame],
    positions: NDArray[np.float64],
    origin: NDArray[np.float64],
    step: NDArray[np.float64],
    normal: NDArray[np.float64],
    pixel: float,
    what: str,
) -> None:
    off = positions - origin - np.arange(len(positions))[:, None] * step
    aside = np.linalg.norm(off - (off @ normal)[:, None] * normal, axis=1)
    worst = int(aside.argmax())
    if aside[worst] > position_tolerance(pixel):
        raise _refusal(f"{frames[worst].name} of {what} lies {aside[worst]:.1f} mm away from the line of the others.")


def _refusal(message: str) -> DiffusionSegmentError:
    return DiffusionSegmentError(ErrorCode.GEOMETRY, message, hint=_HINT)
