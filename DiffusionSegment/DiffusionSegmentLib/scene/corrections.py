"""Edits of a segmentation as scribbles for the model, and the corrected result of the model."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from DiffusionSegmentBackend.errors import DiffusionSegmentError, ErrorCode
from DiffusionSegmentBackend.protocol.buffers import geometry_of, open_buffer
from DiffusionSegmentBackend.protocol.messages import Corrected
from DiffusionSegmentBackend.schema.correction_marks import CorrectionMarks
from numpy.typing import NDArray

from .box import Box, boxOfGrid
from .correction_maps import appliedScribbles, resultLabels, storeResultLabels, storeScribbles
from .correction_trace import withCorrection
from .label_map import readLabels, writeLabels
from .merge_policy import MergePolicy, lockedValues, merged
from .overlay_maps import openUncertaintyMaps, putMap
from .packed_array import pack
from .result import SceneResult, openRegions
from .review import ReviewList
from .segmented_scan import SegmentedScan, keepGeometry
from .volumes import volumeBuffer


@dataclass(frozen=True)
class Corrections(CorrectionMarks[NDArray[np.uint8]]):
    """Content of a correction request on the grid of the input; `count`: voxels edited since the last result."""

    count: int = 0


@dataclass(frozen=True)
class AppliedCorrection:
    """Result of a correction: the changed `box`, and the number of voxels edited since the request, which are kept."""

    result: SceneResult
    box: Box
    keptVoxels: int


def findCorrections(scan: SegmentedScan) -> Corrections:
    """Compare the segmentation with the last result; every voxel that differs becomes a scribble.

    Nothing is changed. A deleted segment counts as erased; a renamed one is identified by its id.

    Raises:
        DiffusionSegmentError: INPUT_MISSING for deleted nodes or without stored result labels, GEOMETRY for another
            volume or grid or edits outside the scan, INPUT_VALUES where two organs have the same voxel, OPTION without
            any edit.
    """
    result = resultLabels(scan)
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
    edited = present.labels != result
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
    """Put a corrected result into the nodes: labels inside its box, whole maps, the report, the list of regions.

    A voxel that was edited after the request keeps the edit; it differs from the stored result labels, so that
    `findCorrections` reports it next time. Locked organs do not change. Everything is read and checked before anything
    is written.

    Args:
        scan: the scan that is corrected.
        answer: the answer of the worker; its report is extended by this correction.
        sent: content of the request.
        shown: the result before the correction.

    Raises:
        DiffusionSegmentError: INPUT_MISSING for deleted nodes, GEOMETRY when the scan was moved or the answer does not
            fit it, INPUT_UNREADABLE or PROTOCOL for a damaged answer; the segmentation is then as before.
    """
    previous = resultLabels(scan)
    grid = volumeBuffer(scan.input)[1]
    arriving = np.array(open_buffer(answer.labels))
    maps = openUncertaintyMaps(answer, geometry_of(answer.regions))
    box = _answerBox(scan, answer)
    before = sent.labels
    if arriving.shape != box.shape or before.shape != scan.box.shape:
        raise DiffusionSegmentError(
            ErrorCode.GEOMETRY, "The result does not fit the input volume.", hint="Apply the corrections again."
        )
    regions = openRegions(answer.regions, scan.box.shape)
    now = readLabels(scan, box=box).labels
    newer = now != before[box.slices]
    settled = merged(before[box.slices], arriving, MergePolicy.RESPECT_LOCKED, lockedValues(scan))
    after = before.copy()
    after[box.slices] = settled
    report = withCorrection(answer.report, scan, previous, after, markedVoxels=sent.count)
    ReviewList(scan.segmentation).replaceReport(report)
    writeLabels(scan, np.where(newer, now, settled), box=box)
    storeResultLabels(scan, after)
    storeScribbles(scan, sent.scribbles)
    keepGeometry(scan.segmentation, grid)
    for kind, values in maps.items():
        node = shown.overlays.get(kind)
        if node is not None and node.GetScene() is not None:
            putMap(node, values, scan.input)
    result = replace(shown, regions=pack(regions) if regions is not None else None)
    return AppliedCorrection(result, box, int(np.count_nonzero(newer)))


def _answerBox(scan: SegmentedScan, answer: Corrected) -> Box:
    """The box of the scan that an answer covers.

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
