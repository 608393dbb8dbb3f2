"""Alternatives of a region to review: other plausible labels of its voxels."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class RegionAlternative:
    """Other labels of some voxels of a region.

    Attributes:
        probability: of these labels, 0..1; those of all alternatives of a region and of its present labels add to 1.
        volume_ml: volume of the voxels that change.
        sentence: the largest change.
        start_ijk: voxel (i, j, k) of the scan at which the marks of the alternative begin.
    """

    probability: float
    volume_ml: float
    sentence: str
    start_ijk: tuple[int, int, int]


@dataclass(frozen=True, kw_only=True)
class AlternativesOfRegion:
    """The alternatives of one region, most likely first; none where no other labels are plausible.

    `centroid_lps_mm` is that of the region in report.json.
    """

    centroid_lps_mm: tuple[float, float, float]
    alternatives: tuple[RegionAlternative, ...] = ()
