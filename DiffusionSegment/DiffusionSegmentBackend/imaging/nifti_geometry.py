"""Geometry of a NIfTI header by the rules of ITK 5.4, with which 3D Slicer 5.8 and 5.10 read it.

A header may hold two transforms, the qform (a rotation) and the sform (any affine), and states spacing a third time in
pixdim. Readers differ for a header that contradicts itself; results must match the scan as displayed, so Slicer's
choice is used, with a note.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

_RAS_TO_LPS = np.diag([-1.0, -1.0, 1.0, 1.0])
_SCANNER_ANAT = 1
# Tolerances of itk::NiftiImageIO::SetImageIOOrientationFromNIfTI.
_ORTHONORMAL = 1e-4
_SIMILAR = 1e-4
# Smaller differences are invisible, and result from quaternions in single precision.
_NOTABLE_MM = 0.1
_MM_BY_UNIT = {1: 1000.0, 3: 1e-3}
_UNIT_NAMES = {1: "metres", 3: "micrometres"}
_LONGEST_QUATERNION = 1.01
_LARGEST_MM = 1e6
# Axes of the sform are voxel sides; a shorter one is no direction.
_MIN_AXIS_MM = 1e-3
_MAX_CODE = 5


@dataclass(frozen=True)
class NiftiGeometry:
    """`index_to_lps`, the 4x4 matrix from (i, j, k, 1) to LPS mm, and notes for the user."""

    index_to_lps: NDArray[np.float64]
    notes: tuple[str, ...]


def nifti_geometry(header: Mapping[str, NDArray[Any]], shape_ijk: tuple[int, int, int]) -> NiftiGeometry:
    """The geometry that ITK reads from a NIfTI-1 or NIfTI-2 header.

    The order of preference is that of itk::NiftiImageIO in ITK 5.4 (itkNiftiImageIO.cxx,
    SetImageIOOrientationFromNIfTI): without either code, axes along LPS from the origin; a sform without shear where it
    is the only one, is called SCANNER_ANAT or says what the qform says; else the qform. Spacing is always pixdim's, and
    xyzt_units scale all lengths. A sheared sform without a qform is refused there; it is taken as it is here.

    Raises:
        ValueError: the header's spacing is not positive, or a transform holds NaN or numbers that no scan has, even
            where the other would be taken.
    """
    unit = int(header["xyzt_units"]) & 7
    mm = _MM_BY_UNIT.get(unit, 1.0)
    spacing = np.asarray(header["pixdim"], dtype=np.float64)[1:4] * mm
    if not (np.all(np.isfinite(spacing)) and np.all(spacing > 0)):
        raise ValueError("voxel spacing is zero or negative")
    affine, note = _preferred(_qform(header, spacing, mm), _sform(header, mm), header, spacing, shape_ijk)
    read_as = f"The header gives lengths in {_UNIT_NAMES[unit]}; they were read as such." if unit in _UNIT_NAMES else ""
    return NiftiGeometry(_RAS_TO_LPS @ affine, tuple(text for text in (note, read_as) if text))


def _preferred(
    qform: NDArray[np.float64] | None,
    sform: NDArray[np.float64] | None,
    header: Mapping[str, NDArray[Any]],
    spacing: NDArray[np.float64],
    shape_ijk: tuple[int, int, int],
) -> tuple[NDArray[np.float64], str]:
    """The affine to RAS mm, and a note, which may be empty."""
    if sform is None and qform is None:
        note = "The header does not say how the patient lies (no qform, no sform): left and right may be swapped."
        return np.diag([-spacing[0], -spacing[1], spacing[2], 1.0]), note
    if sform is None:
        assert qform is not None
        return qform, ""
    straight = None if has_shear(sform) else _with_spacing(sform, spacing)
    if qform is None:
        chosen = sform if straight is None else straight
        return chosen, _spacing_note(sform, chosen, shape_ijk)
    if straight is not None and (int(header["sform_code"]) == _SCANNER_ANAT or _similar(sform, qform)):
        note = _difference_note(qform, straight, shape_ijk, taken="sform")
        return straight, note or _spacing_note(sform, straight, shape_ijk)
    return qform, _difference_note(sform, qform, shape_ijk, taken="qform")


def has_shear(matrix: NDArray[np.float64]) -> bool:
    """Whether the axes (columns) of a 4x4 or 3x3 matrix are not at right angles, by ITK's tolerance.

    ITK, and Slicer with it, reads no NIfTI whose axes are sheared.
    """
    axes = matrix[:3, :3] / np.maximum(np.linalg.norm(matrix[:3, :3], axis=0), 1e-30)
    return not bool(np.all(np.abs(axes @ axes.T - np.eye(3)) <= _ORTHONORMAL))


def _is_stated(header: Mapping[str, NDArray[Any]], name: str) -> bool:
    """Whether a transform is stated, by its code; ITK and nibabel differ for codes that the standard does not know."""
    code = int(header[name])
    if code > _MAX_CODE:
        raise ValueError(f"its {name} is {code}, which the standard does not know")
    return code > 0


def _sform(header: Mapping[str, NDArray[Any]], mm: float) -> NDArray[np.float64] | None:
    if not _is_stated(header, "sform_code"):
        return None
    rows = np.array([np.asarray(header[f"srow_{axis}"]).tolist() for axis in "xyz"]) * mm
    if not (np.all(np.abs(rows) <= _LARGEST_MM) and np.all(np.linalg.norm(rows[:, :3], axis=0) > _MIN_AXIS_MM)):
        raise ValueError("its sform is damaged")
    return np.vstack([rows, [0.0, 0.0, 0.0, 1.0]])


def _qform(header: Mapping[str, NDArray[Any]], spacing: NDArray[np.float64], mm: float) -> NDArray[np.float64] | None:
    """nifti1.h, method 2: a unit quaternion, whose real part is implied, and qfac = pixdim[0] for the third axis."""
    if not _is_stated(header, "qform_code"):
        return None
    b, c, d = (float(header[f"quatern_{name}"]) for name in "bcd")
    square = b * b + c * c + d * d
    offset = np.array([float(header[f"qoffset_{axis}"]) for axis in "xyz"]) * mm
    if not (square <= _LONGEST_QUATERNION and np.all(np.abs(offset) <= _LARGEST_MM)):
        raise ValueError("its qform is damaged")
    a, b, c, d = np.array([np.sqrt(max(0.0, 1.0 - square)), b, c, d]) / np.sqrt(max(1.0, square))
    rotation = np.array(
        [
            [a * a + b * b - c * c - d * d, 2 * (b * c - a * d), 2 * (b * d + a * c)],
            [2 * (b * c + a * d), a * a + c * c - b * b - d * d, 2 * (c * d - a * b)],
            [2 * (b * d - a * c), 2 * (c * d + a * b), a * a + d * d - b * b - c * c],
        ]
    )
    affine = np.eye(4)
    affine[:3, :3] = rotation * spacing * (1.0, 1.0, -1.0 if float(header["pixdim"][0]) < 0 else 1.0)
    affine[:3, 3] = offset
    return affine


def _with_spacing(affine: NDArray[np.float64], spacing: NDArray[np.float64]) -> NDArray[np.float64]:
    result = affine.copy()
    result[:3, :3] *= spacing / np.linalg.norm(affine[:3, :3], axis=0)
    return result


def _similar(first: NDArray[np.float64], second: NDArray[np.float64]) -> bool:
    """Whether directions, spacings and origins of two affines are nearly the same."""
    lengths = [np.linalg.norm(affine[:3, :3], axis=0) for affine in (first, second)]
    directions = [affine[:3, :3] / length for affine, length in zip((first, second), lengths, strict=True)]
    pairs = (directions, lengths, (first[:3, 3], second[:3, 3]))
    return all(bool(np.all(np.abs(one - other) <= _SIMILAR)) for one, other in pairs)


def _apart_mm(first: NDArray[np.float64], second: NDArray[np.float64], shape_ijk: tuple[int, int, int]) -> float:
    """The largest distance in mm between the positions of a corner voxel by two affines."""
    corners = np.array([[i, j, k, 1] for i in (0, 1) for j in (0, 1) for k in (0, 1)], dtype=np.float64)
    corners[:, :3] *= np.array(shape_ijk) - 1
    return float(np.linalg.norm((corners @ (first - second).T)[:, :3], axis=1).max())


def _difference_note(
    other: NDArray[np.float64], chosen: NDArray[np.float64], shape_ijk: tuple[int, int, int], *, taken: str
) -> str:
    apart = _apart_mm(other, chosen, shape_ijk)
    if not apart > _NOTABLE_MM:
        return ""
    where = f"The header's qform and sform place the scan up to {apart:.4g} mm apart"
    return f"{where}; the {taken} was taken, as 3D Slicer does."


def _spacing_note(sform: NDArray[np.float64], chosen: NDArray[np.float64], shape_ijk: tuple[int, int, int]) -> str:
    if not _apart_mm(sform, chosen, shape_ijk) > _NOTABLE_MM:
        return ""
    taken, left = (" x ".join(f"{v:.4g}" for v in np.linalg.norm(m[:3, :3], axis=0)) for m in (chosen, sform))
    return f"The header's pixdim gives {taken} mm voxels, its sform {left} mm; pixdim was taken, as 3D Slicer does."
