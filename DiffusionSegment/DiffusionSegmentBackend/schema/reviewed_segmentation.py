"""What report.json states of a segmentation from another source that was reviewed."""

from __future__ import annotations

from dataclasses import dataclass

from .segment_matching import SegmentMatch


@dataclass(frozen=True, kw_only=True)
class OtherSegment:
    """A segment that is no label of the model, and its value in reviewed.nii.gz."""

    name: str
    value: int


@dataclass(frozen=True, kw_only=True)
class ReviewedSegmentation:
    """The file, the segments that are labels of the model, and the others, which are kept and not judged.

    `not_covered` is the value in reviewed.nii.gz of voxels outside a label map that is smaller than the scan.
    """

    source: str | None = None
    not_covered: int | None = None
    matches: tuple[SegmentMatch, ...] = ()
    unmatched: tuple[OtherSegment, ...] = ()
