"""Undo and redo of the changes that this module made to a segmentation, by name, with several levels.

A step holds the labels before and after inside the box that it changed, compressed, with the report and the review at
both moments. Undo reverts the step and nothing else: a voxel is restored only if it still has the value that the step
gave it, so that later edits stay, as do later review decisions. Redo follows the same rule. A segment that a step
created is removed by undo and restored by redo with all edits made to it.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass, replace
from enum import Enum

import numpy as np
import slicer
from DiffusionSegmentBackend.schema.report import Report
from numpy.typing import NDArray

from .correction_maps import RESULT_LABELS_ROLE, appliedScribbles, resultLabels, storeResultLabels, storeScribbles
from .label_map import readLabels, writeLabels
from .overlay_change import OverlayChange, OverlayState, overlayChange, overlayState, restoreOverlay
from .patch import Patch, patchOf
from .review import Region, ReviewList
from .segment_copy import SegmentCopy, copySegment, removeSegment, restoreSegment
from .segmented_scan import GEOMETRY_ATTRIBUTE, SegmentedScan, readReport

_LEVELS = 20


class StepName(Enum):
    """Kinds of steps that can be undone."""

    SEGMENT = "Segment"
    REVIEW = "Review"
    APPLY_CORRECTIONS = "Apply corrections"
    USE_ALTERNATIVE = "Use alternative"
    SIMILAR_REGION = "Similar region"

    def label(self) -> str:
        """The text after Undo and Redo, in the language of the application."""
        from slicer.i18n import tr as _

        texts: dict[StepName, str] = {
            StepName.SEGMENT: _("Segment"),
            StepName.REVIEW: _("Review"),
            StepName.APPLY_CORRECTIONS: _("Apply corrections"),
            StepName.USE_ALTERNATIVE: _("Use alternative"),
            StepName.SIMILAR_REGION: _("Similar region"),
        }
        return texts[self]

    def undoText(self) -> str:
        """Text of the Undo button, such as "Undo Apply corrections"."""
        from slicer.i18n import tr as _

        return str(_("Undo {step}")).format(step=self.label())

    def redoText(self) -> str:
        """Text of the Redo button, such as "Redo Apply corrections"."""
        from slicer.i18n import tr as _

        return str(_("Redo {step}")).format(step=self.label())


@dataclass(frozen=True)
class ReviewSnapshot:
    """Report, regions with their states, and status of the segments at one moment."""

    report: Report
    regions: tuple[Region, ...]
    geometry: str | None
    statuses: dict[str, int]


@dataclass(frozen=True)
class Snapshot:
    """A segmentation before a step; not compressed, because it is kept only until the step is done.

    `maps` are overlays that the step changes, as they were.
    """

    labels: NDArray[np.uint8]
    resultLabels: NDArray[np.uint8]
    scribbles: NDArray[np.uint8]
    review: ReviewSnapshot
    segments: frozenset[str] = frozenset()
    maps: tuple[OverlayState, ...] = ()

    def withMaps(self, maps: Iterable[slicer.vtkMRMLScalarVolumeNode]) -> Snapshot:
        """This snapshot with the current voxels and geometry of overlays that are about to change."""
        return replace(self, maps=tuple(overlayState(node) for node in maps))


@dataclass(frozen=True)
class Step:
    """One step; a patch is None where nothing changed."""

    name: StepName
    labels: Patch | None
    resultLabels: Patch | None
    scribbles: Patch | None
    maps: tuple[OverlayChange, ...]
    before: ReviewSnapshot
    after: ReviewSnapshot
    newSegments: tuple[SegmentCopy, ...] = ()

    @property
    def bytes(self) -> int:
        """Compressed size of the voxels."""
        patches = sum(patch.bytes for patch in (self.labels, self.resultLabels, self.scribbles) if patch is not None)
        maps = sum(change.bytes for change in self.maps)
        return patches + maps + sum(segment.bytes for segment in self.newSegments)


class History:
    """The steps of one segmentation; kept in memory, not in saved scenes."""

    def __init__(self, *, levels: int = _LEVELS) -> None:
        self._done: deque[Step] = deque(maxlen=levels)
        self._undone: list[Step] = []

    @property
    def undoText(self) -> str | None:
        """Text such as "Undo Apply corrections"; None when there is nothing to undo."""
        return self._done[-1].name.undoText() if self._done else None

    @property
    def redoText(self) -> str | None:
        """Text such as "Redo Apply corrections"; None when there is nothing to redo."""
        return self._undone[-1].name.redoText() if self._undone else None

    @property
    def bytes(self) -> int:
        """Memory used by all steps."""
        return sum(step.bytes for step in (*self._done, *self._undone))

    def record(self, name: StepName, scan: SegmentedScan, before: Snapshot) -> None:
        """Record the step from `before` to the current state; undone steps can then no longer be redone.

        Raises:
            DiffusionSegmentError: INPUT_MISSING or GEOMETRY when the nodes do not belong together.
        """
        after = _currentState(scan)
        step = Step(
            name,
            patchOf(before.labels, after.labels),
            patchOf(before.resultLabels, after.resultLabels),
            patchOf(before.scribbles, after.scribbles),
            tuple(overlayChange(state) for state in before.maps if state.node.GetScene() is not None),
            before.review,
            after.review,
            # During the other steps the user may add segments, which undo must not remove.
            _newSegments(scan, before, after) if name is StepName.SIMILAR_REGION else (),
        )
        self._done.append(step)
        self._undone.clear()

    def undo(self, scan: SegmentedScan) -> StepName | None:
        """Undo the last step; None when there is none. A `ReviewList` of the node must be reloaded afterwards.

        Raises:
            DiffusionSegmentError: INPUT_MISSING or GEOMETRY; the step can still be undone afterwards.
        """
        if not self._done:
            return None
        step = self._done[-1]
        segments = tuple(copySegment(scan, segment.segmentId) or segment for segment in step.newSegments)
        current = _restore(scan, step, backwards=True)
        for segment in segments:
            removeSegment(scan, segment.segmentId)
        self._done.pop()
        self._undone.append(replace(step, after=current, newSegments=segments))
        return step.name

    def redo(self, scan: SegmentedScan) -> StepName | None:
        """Redo the step that was undone last; None when there is none. Raises what `undo` raises."""
        if not self._undone:
            return None
        step = self._undone[-1]
        current = _restore(scan, step, backwards=False)
        for segment in step.newSegments:
            restoreSegment(scan, segment)
        self._undone.pop()
        self._done.append(replace(step, before=current))
        return step.name


def snapshot(scan: SegmentedScan) -> Snapshot:
    """The current segmentation, for `History.record` after a step.

    Raises:
        DiffusionSegmentError: INPUT_MISSING or GEOMETRY when the nodes do not belong together.
    """
    state = _currentState(scan)
    labels, result, scribbles = state.labels.copy(), state.resultLabels.copy(), state.scribbles.copy()
    return replace(state, labels=labels, resultLabels=result, scribbles=scribbles)


def _currentState(scan: SegmentedScan) -> Snapshot:
    """As `snapshot`, valid until the next change: its arrays may be those of the nodes."""
    labels = readLabels(scan, shared=True).labels
    stored = scan.segmentation.GetNodeReference(RESULT_LABELS_ROLE) is not None
    result = resultLabels(scan) if stored else np.zeros_like(labels)
    segments = frozenset(scan.segmentation.GetSegmentation().GetSegmentIDs())
    return Snapshot(labels, result, appliedScribbles(scan), _reviewOf(scan.segmentation), segments)


def emptySnapshot(scan: SegmentedScan) -> Snapshot:
    """The state before the first result of a scan."""
    empty = np.zeros(scan.box.shape, np.uint8)
    return Snapshot(empty, empty, empty, ReviewSnapshot(Report.from_partial_json({}), (), None, {}))


def _newSegments(scan: SegmentedScan, before: Snapshot, after: Snapshot) -> tuple[SegmentCopy, ...]:
    added = [name for name in sorted(after.segments - before.segments) if scan.label(name) is None]
    copies = (copySegment(scan, name) for name in added)
    return tuple(segment for segment in copies if segment is not None)


def _restore(scan: SegmentedScan, step: Step, *, backwards: bool) -> ReviewSnapshot:
    """Undo (`backwards`) or redo a step; returns the review before that, with the latest decisions."""
    scan.check()
    current = _reviewOf(scan.segmentation)
    origin, target = (step.after, step.before) if backwards else (step.before, step.after)
    if step.labels is not None:
        box = step.labels.box
        old, new = step.labels.sides(backwards)
        present = readLabels(scan, box=box).labels
        writeLabels(scan, np.where(present == old, new, present), box=box)
    if step.resultLabels is not None:
        storeResultLabels(scan, step.resultLabels.sides(backwards)[1], box=step.resultLabels.box)
    if step.scribbles is not None:
        storeScribbles(scan, step.scribbles.sides(backwards)[1], box=step.scribbles.box)
    for change in step.maps:
        if change.node.GetScene() is not None:
            restoreOverlay(change, backwards=backwards)
    _restoreReview(scan.segmentation, origin, target)
    return current


def _restoreReview(node: slicer.vtkMRMLSegmentationNode, origin: ReviewSnapshot, target: ReviewSnapshot) -> None:
    review = ReviewList(node)
    was = {region.number: region for region in origin.regions}
    later = [region for region in review.regions if region != was.get(region.number)]
    carried = [*later, *(r for r in target.regions if not any(one.isSameAs(r) for one in later))]
    logic = slicer.vtkSlicerSegmentationsModuleLogic
    for name, status in _statuses(node).items():
        if status == origin.statuses.get(name, logic.NotStarted):
            wanted = target.statuses.get(name, logic.NotStarted)
            if wanted != status:
                logic.SetSegmentStatus(node.GetSegmentation().GetSegment(name), wanted)
    if target.geometry is not None:
        node.SetAttribute(GEOMETRY_ATTRIBUTE, target.geometry)
    review.replaceReport(target.report, carried=carried)


def _reviewOf(node: slicer.vtkMRMLSegmentationNode) -> ReviewSnapshot:
    return ReviewSnapshot(
        readReport(node), ReviewList(node).regions, node.GetAttribute(GEOMETRY_ATTRIBUTE), _statuses(node)
    )


def _statuses(node: slicer.vtkMRMLSegmentationNode) -> dict[str, int]:
    logic = slicer.vtkSlicerSegmentationsModuleLogic
    segmentation = node.GetSegmentation()
    return {name: logic.GetSegmentStatus(segmentation.GetSegment(name)) for name in segmentation.GetSegmentIDs()}
