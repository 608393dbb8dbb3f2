"""The reader's edits as marks for the model, and the model's answer to them."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import slicer
from DiffusionSegmentBackend.errors import DiffusionSegmentError, ErrorCode
from DiffusionSegmentBackend.protocol.buffers import geometry_of, open_buffer
from DiffusionSegmentBackend.protocol.messages import Corrected
from slicer.util import arrayFromVolume, arrayFromVolumeModified

from .box import Box, boxOfGrid
from .correction_maps import appliedScribbles, resultLabels, storeResultLabels, storeScribbles
from .correction_trace import withCorrection
from .label_map import readLabels, writeLabels
from .merge_policy import MergePolicy, lockedValues, merged
from .overlay import OverlayKind
from .packed_array import pack
from .result import SceneResult, openRegions
from .review import ReviewList
from .segmented_scan import SegmentedScan, keepGeometry
from .volumes import volumeBuffer


@dataclass(frozen=True)
class Corrections:
    """What a correction request carries, both maps uint8 (k, j, i) in the input's grid.

    `labels`: the segmentation as it is now. `marks`: all in force, those of earlier corrections too; 0 not marked,
    1 marked as background, v + 1 marked as label v. `locked`: label values that only a mark may touch. `count`: voxels
    that are edited since the last answer.
    """

    labels: np.ndarray
    scribbles: np.ndarray
    locked: tuple[int, ...]
    count: int


@dataclass(frozen=True)
class AppliedCorrection:
    """What an answer did: the changed `box`, and how many voxels the reader edited meanwhile and therefore keeps."""

    result: SceneResult
    box: Box
    keptVoxels: int


def findCorrections(scan: SegmentedScan) -> Corrections:
    """Compare the segmentation with what was delivered; every voxel that differs is a mark, beside earlier ones.

    Nothing is changed. A segment that the reader deleted counts as erased, one that he renamed is still found, because
    ids stay.

    Raises:
        DiffusionSegmentError: INPUT_MISSING for deleted nodes or an unknown delivery, GEOMETRY for another volume or
            grid or edits outside the scan, INPUT_VALUES where two organs claim one voxel, OPTION without any edit.
    """
    delivered = resultLabels(scan)
    present = readLabels(scan)
    if present.overlapping:
        raise DiffusionSegmentError(
            ErrorCode.INPUT_VALUES,
            f"Two organs claim the same {present.overlapping} voxels.",
            hint="Paint them again with 'Modify other segments: Overwrite all' in Segment Editor.",
        )
    if present.outside:
        raise DiffusionSegmentError(
            ErrorCode.GEOMETRY,
            f"{present.outside} voxels were drawn outside the scan.",
            hint="Erase them in Segment Editor.",
        )
    edited = present.labels != delivered
    count = int(np.count_nonzero(edited))
    if not count:
        raise DiffusionSegmentError(
            ErrorCode.OPTION,
            "There are no corrections to apply.",
            hint="Correct the organs with Segment Editor first.",
        )
    scribbles = appliedScribbles(scan).copy()
    np.add(present.labels, 1, out=scribbles, where=edited)
    return Corrections(present.labels, scribbles, lockedValues(scan), count)


def applyCorrected(scan: SegmentedScan, answer: Corrected, sent: Corrections, shown: SceneResult) -> AppliedCorrection:
    """Put the model's answer into the nodes: labels and maps inside its box, the report, the list of regions.

    The report lists the correction, beside earlier ones: from what was delivered before to what is delivered now.

    `sent` is what the request carried; its marks are now in force. A voxel that the reader has edited since keeps the
    edit; it differs from what is remembered as delivered, so `findCorrections` finds it next time. Locked organs stay
    as they are. Everything is read and checked before anything is written.

    Raises:
        DiffusionSegmentError: INPUT_MISSING for deleted nodes, GEOMETRY when the scan was moved or the answer does not
            fit it, INPUT_UNREADABLE or PROTOCOL for a damaged answer; the segmentation is then as before.
    """
    delivered = resultLabels(scan)
    grid = volumeBuffer(scan.input)[1]
    arriving = np.array(open_buffer(answer.labels))
    maps = {
        OverlayKind.UNCERTAINTY: open_buffer(answer.uncertainty),
        OverlayKind.MUTUAL_INFORMATION: open_buffer(answer.mutual_information),
    }
    box = answerBox(scan, answer)
    before = sent.labels
    shapes = {array.shape for array in (arriving, *maps.values())}
    if shapes != {box.shape} or before.shape != scan.box.shape:
        raise DiffusionSegmentError(
            ErrorCode.GEOMETRY, "The result does not fit the input volume.", hint="Apply the corrections again."
        )
    regions = openRegions(answer.regions, scan.box.shape)
    now = readLabels(scan, box=box).labels
    newer = now != before[box.slices]
    settled = merged(before[box.slices], arriving, MergePolicy.RESPECT_LOCKED, lockedValues(scan))
    after = before.copy()
    after[box.slices] = settled
    report = withCorrection(answer.report, scan, delivered, after, markedVoxels=sent.count)
    ReviewList(scan.segmentation).replaceReport(report)
    writeLabels(scan, np.where(newer, now, settled), box=box)
    storeResultLabels(scan, after)
    storeScribbles(scan, sent.scribbles)
    keepGeometry(scan.segmentation, grid)
    for kind, array in maps.items():
        _writeMap(shown.overlays.get(kind), array, box)
    result = replace(shown, regions=pack(regions) if regions is not None else None)
    return AppliedCorrection(result, box, int(np.count_nonzero(newer)))


def answerBox(scan: SegmentedScan, answer: Corrected) -> Box:
    """The box of the scan's voxels that an answer is about.

    Raises:
        DiffusionSegmentError: GEOMETRY when the scan was moved since, or the answer does not fit it.
    """
    shape = tuple(answer.labels.shape)
    box = boxOfGrid(shape, geometry_of(answer.labels), volumeBuffer(scan.input)[1], what="The answer")
    if not scan.box.contains(box):
        raise DiffusionSegmentError(
            ErrorCode.GEOMETRY, "The result does not fit the input volume.", hint="Apply the corrections again."
        )
    return box


def _writeMap(node: slicer.vtkMRMLScalarVolumeNode | None, values: np.ndarray, box: Box) -> None:
    """The overlay may have been deleted by the reader; then there is nothing to bring up to date."""
    if node is None or node.GetScene() is None or node.GetImageData() is None:
        return
    array = arrayFromVolume(node)
    if Box.ofShape(array.shape).contains(box):
        array[box.slices] = values
        arrayFromVolumeModified(node)
