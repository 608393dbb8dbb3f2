"""Similarity of every voxel of a scan to a voxel that the user points at, by frozen features.

The similarity is a weighted mean over levels of the cosine between the features of two voxels, after the mean over the
body was subtracted: deep features have a large common component, which would make all voxels similar. The weights
decrease from fine to coarse. Of the variants tried (equal weights, middle levels only, channels scaled by their
standard deviation) this one segments the organ around a point best, measured on 13 organs.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from scipy import ndimage
from torch import Tensor

from ...errors import DiffusionSegmentError, ErrorCode
from ...imaging.volume import Grid, Volume
from ...models.model import Model
from ..dense_features import DenseFeatures, scan_features
from ..prepare import BODY_THRESHOLD
from ..progress import Progress, silent
from ..restore import restore_map

_WEIGHTS = (2.0, 1.5, 1.0, 0.5, 0.25)
_MIN_NORM = 1e-6
# Similarity outside the body's box.
_OUTSIDE = -1.0


@dataclass(frozen=True)
class DenseDescriptors:
    """Features of a whole scan, centred on the mean over the body and normalised by level, in half precision.

    Attributes:
        levels: level l is (channels[l], z / 2^l, y / 2^l, x / 2^l), padded at the far end.
        grid: the trunk's grid over the scan.
        offset: first voxel (z, y, x) of the levels' box.
        inside: shape (z, y, x) of the box without padding.
    """

    levels: tuple[Tensor, ...]
    grid: Grid
    offset: tuple[int, int, int]
    inside: tuple[int, int, int]


def describe_scan(volume: Volume, model: Model, *, progress: Progress = silent) -> DenseDescriptors:
    """Compute the descriptors of a scan (k, j, i), from which the similarity to any point is fast.

    Raises:
        DiffusionSegmentError: GEOMETRY; whatever `progress` raises.
    """
    return descriptors_of(scan_features(volume, model, progress=progress))


def descriptors_of(dense: DenseFeatures) -> DenseDescriptors:
    """Descriptors from the features of a scan."""
    body = (dense.image > BODY_THRESHOLD).float()[None, None]
    levels = []
    with torch.inference_mode():
        for n, level in enumerate(dense.levels):
            weight = F.avg_pool3d(body, 2**n)[0]
            features = level.float()
            mean = (features * weight).sum(dim=(1, 2, 3), keepdim=True) / weight.sum().clamp(min=_MIN_NORM)
            centred = features - mean
            levels.append((centred / centred.norm(dim=0, keepdim=True).clamp(min=_MIN_NORM)).half())
    return DenseDescriptors(tuple(levels), dense.grid, dense.offset, dense.inside)


def similarity_on_grid(descriptors: DenseDescriptors, point_lps: tuple[float, float, float]) -> Volume:
    """Similarity -1..1 of every voxel of the body's box to the voxel at a point in LPS mm, float32 (z, y, x).

    The map has the geometry of the trunk's grid, which is small enough to be updated while the mouse moves.

    Raises:
        DiffusionSegmentError: OPTION for a point outside the scan or its body.
    """
    z, y, x = _voxel(descriptors, point_lps)
    size = descriptors.levels[0].shape[1:]
    weights = _WEIGHTS[: len(descriptors.levels)]
    total = torch.zeros(size)
    with torch.inference_mode():
        for n, (level, weight) in enumerate(zip(descriptors.levels, weights, strict=True)):
            query = level[:, z // 2**n, y // 2**n, x // 2**n].float()
            cosine = torch.stack([torch.tensordot(query, part.float(), dims=1) for part in level.unbind(dim=1)])
            if n:
                cosine = F.interpolate(cosine[None, None], size=size, mode="trilinear", align_corners=False)[0, 0]
            total.add_(cosine, alpha=weight / sum(weights))
    nz, ny, nx = descriptors.inside
    matrix = descriptors.grid.index_to_lps.copy()
    matrix[:3, 3] = descriptors.grid.lps(np.array(descriptors.offset))
    return Volume(total[:nz, :ny, :nx].clamp(-1, 1).contiguous().numpy(), matrix)


def similarity_map(descriptors: DenseDescriptors, point_lps: tuple[float, float, float]) -> NDArray[np.float32]:
    """`similarity_on_grid` in the scan's own geometry (k, j, i); outside the body's box -1.

    Raises:
        DiffusionSegmentError: OPTION for a point outside the scan or its body.
    """
    similarity = similarity_on_grid(descriptors, point_lps)
    return restore_map(similarity.array, descriptors.offset, descriptors.grid, outside=_OUTSIDE)


def similar_region(similarity: Volume, point_lps: tuple[float, float, float], threshold: float) -> NDArray[np.bool_]:
    """Mask of the connected component at a point in LPS mm of the voxels with at least `threshold`, -1..1.

    `similarity` is a map on the grid or in the scan's geometry. The mask is empty if the point is below the threshold.

    Raises:
        DiffusionSegmentError: OPTION for a threshold out of range or a point outside the map.
    """
    if not -1 <= threshold <= 1:
        raise DiffusionSegmentError(ErrorCode.OPTION, f"The threshold is {threshold:g}.", hint="Choose -1 to 1.")
    components, _ = ndimage.label(similarity.array >= threshold)
    component = components[voxel_at(similarity, point_lps)]
    mask: NDArray[np.bool_] = np.logical_and(components == component, components > 0)
    return mask


def voxel_at(volume: Volume, point_lps: tuple[float, float, float]) -> tuple[int, int, int]:
    """The voxel (k, j, i) of a volume that contains a point in LPS mm.

    Raises:
        DiffusionSegmentError: OPTION for a point outside the volume.
    """
    i, j, k = _rounded(volume.index_to_lps, point_lps)
    if not all(0 <= index < size for index, size in zip((i, j, k), volume.shape_ijk, strict=True)):
        raise _outside(point_lps)
    return k, j, i


def _voxel(descriptors: DenseDescriptors, point_lps: tuple[float, float, float]) -> tuple[int, int, int]:
    x, y, z = _rounded(descriptors.grid.index_to_lps, point_lps)
    voxel = (z - descriptors.offset[0], y - descriptors.offset[1], x - descriptors.offset[2])
    if not all(0 <= index < size for index, size in zip(voxel, descriptors.inside, strict=True)):
        raise _outside(point_lps)
    return voxel


def _rounded(index_to_lps: NDArray[np.float64], point_lps: tuple[float, float, float]) -> tuple[int, int, int]:
    if not np.all(np.isfinite(point_lps)):
        raise _outside(point_lps)
    index = np.linalg.inv(index_to_lps) @ (*point_lps, 1.0)
    i, j, k = (int(n) for n in np.floor(index[:3] + 0.5))
    return i, j, k


def _outside(point_lps: tuple[float, float, float]) -> DiffusionSegmentError:
    point = ", ".join(f"{v:g}" for v in point_lps)
    return DiffusionSegmentError(
        ErrorCode.OPTION,
        f"The point {point} (LPS mm) lies outside the scan's body.",
        hint="Choose a point inside the patient.",
    )
