"""Undo and redo of what this module did to a segmentation, by name, many levels.

A step holds the labels before and after inside the box that it changed, compressed, with the report and what the
reader had said of its regions at both moments. Undo takes back the step and nothing else: a voxel goes back only while
it still holds what the step gave it. What the reader has drawn since, inside or outside the box, stays; so does what he
has said of a region since. Redo keeps the same rule the other way round. A segment that a step made for the reader
vanishes on undo and comes back on redo, as the reader left it.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass, replace
from enum import Enum
from typing import Any

import numpy as np
import slicer
from slicer.util import arrayFromVolume, arrayFromVolumeModified

from .box import Box, boxAround
from .correction_maps import RESULT_LABELS_ROLE, appliedScribbles, resultLabels, storeResultLabels, storeScribbles
from .label_map import readLabels, writeLabels
from .packed_array import PackedArray, pack
from .review import Region, ReviewList
from .segment_copy import SegmentCopy, copySegment, removeSegment, restoreSegment
from .segmented_scan import GEOMETRY_ATTRIBUTE, SegmentedScan, readReport

_LEVELS = 20


class StepName(Enum):
    """What can be undone."""

    SEGMENT = "Segment"
    APPLY_CORRECTIONS = "Apply corrections"
    PICK_ALTERNATIVE = "Pick alternative"
    SIMILAR_REGION = "Similar region"

    def label(self) -> str:
        """The text after Undo and Redo, in the language of the application."""
        from slicer.i18n import tr as _

        return {
            StepName.SEGMENT: _("Segment"),
            StepName.APPLY_CORRECTIONS: _("Apply corrections"),
            StepName.PICK_ALTERNATIVE: _("Pick alternative"),
            StepName.SIMILAR_REGION: _("Similar region"),
        }[self]

    def undoText(self) -> str:
        """Text of the Undo button, such as "Undo Apply corrections"."""
        from slicer.i18n import tr as _

        return str(_("Undo {step}")).format(step=self.label())

    def redoText(self) -> str:
        """Text of the Redo button, such as "Redo Apply corrections"."""
        from slicer.i18n import tr as _

        return str(_("Redo {step}")).format(step=self.label())


_NOWHERE = Box((0, 0, 0), (0, 0, 0))
# Slices that are compared at a time: a mask of a whole scan would cost more than the comparison.
_SLICES = 16


@dataclass(frozen=True)
class Words:
    """What is said of a segmentation at one moment: its report, the regions with their states, the organs' status."""

    report: dict[str, Any]
    regions: tuple[Region, ...]
    geometry: str | None
    statuses: dict[str, int]


@dataclass(frozen=True)
class Snapshot:
    """A segmentation before a step, not compressed because it lives only until the step is done.

    `maps` are overlays that the step changes, with their values inside `mapsBox` alone.
    """

    labels: np.ndarray
    delivered: np.ndarray
    marks: np.ndarray
    words: Words
    segments: frozenset[str] = frozenset()
    maps: tuple[tuple[slicer.vtkMRMLScalarVolumeNode, np.ndarray], ...] = ()
    mapsBox: Box = _NOWHERE

    def withMaps(self, maps: Iterable[slicer.vtkMRMLScalarVolumeNode], box: Box) -> Snapshot:
        """The same, with overlays as they are now inside the box that is about to change."""
        return replace(self, maps=tuple((node, arrayFromVolume(node)[box.slices].copy()) for node in maps), mapsBox=box)


@dataclass(frozen=True)
class Patch:
    """The voxels of a box before and after."""

    box: Box
    before: PackedArray
    after: PackedArray


@dataclass(frozen=True)
class Step:
    """One thing that was done; a patch is None where nothing changed."""

    name: StepName
    labels: Patch | None
    delivered: Patch | None
    marks: Patch | None
    maps: tuple[tuple[slicer.vtkMRMLScalarVolumeNode, Patch], ...]
    before: Words
    after: Words
    made: tuple[SegmentCopy, ...] = ()

    @property
    def bytes(self) -> int:
        """Compressed size of its voxels."""
        patches = (self.labels, self.delivered, self.marks, *(patch for _, patch in self.maps))
        voxels = sum(len(patch.before.data) + len(patch.after.data) for patch in patches if patch is not None)
        return voxels + sum(segment.bytes for segment in self.made)


class History:
    """The steps of one segmentation. It is kept in memory, not in saved scenes."""

    def __init__(self, *, levels: int = _LEVELS) -> None:
        self._done: deque[Step] = deque(maxlen=levels)
        self._undone: list[Step] = []

    @property
    def undoText(self) -> str | None:
        """Such as "Undo Apply corrections"; None when there is nothing to undo."""
        return self._done[-1].name.undoText() if self._done else None

    @property
    def redoText(self) -> str | None:
        """Such as "Redo Apply corrections"; None when there is nothing to redo."""
        return self._undone[-1].name.redoText() if self._undone else None

    @property
    def bytes(self) -> int:
        """Memory that all steps take."""
        return sum(step.bytes for step in (*self._done, *self._undone))

    def record(self, name: StepName, scan: SegmentedScan, before: Snapshot) -> None:
        """Remember what has become of `before`; steps that were undone can then no longer be redone.

        Raises:
            DiffusionSegmentError: INPUT_MISSING or GEOMETRY when the nodes do not belong together.
        """
        after = _look(scan)
        step = Step(
            name,
            _patch(before.labels, after.labels),
            _patch(before.delivered, after.delivered),
            _patch(before.marks, after.marks),
            _mapPatches(before),
            before.words,
            after.words,
            # Other steps take time, in which the reader may add segments that are not theirs to take away.
            _madeSegments(scan, before, after) if name is StepName.SIMILAR_REGION else (),
        )
        self._done.append(step)
        self._undone.clear()

    def undo(self, scan: SegmentedScan) -> StepName | None:
        """Take the last step back; None when there is none. A `ReviewList` of the node must be reloaded afterwards.

        Raises:
            DiffusionSegmentError: INPUT_MISSING or GEOMETRY; the step can then still be undone.
        """
        if not self._done:
            return None
        step = self._done[-1]
        made = tuple(copySegment(scan, segment.segmentId) or segment for segment in step.made)
        left = _restore(scan, step, backwards=True)
        for segment in made:
            removeSegment(scan, segment.segmentId)
        self._done.pop()
        self._undone.append(replace(step, after=left, made=made))
        return step.name

    def redo(self, scan: SegmentedScan) -> StepName | None:
        """Do again what was undone last; None when there is nothing. Errors as `undo`."""
        if not self._undone:
            return None
        step = self._undone[-1]
        left = _restore(scan, step, backwards=False)
        for segment in step.made:
            restoreSegment(scan, segment)
        self._undone.pop()
        self._done.append(replace(step, before=left))
        return step.name


def snapshot(scan: SegmentedScan) -> Snapshot:
    """The segmentation now, to be given to `History.record` after a step.

    Raises:
        DiffusionSegmentError: INPUT_MISSING or GEOMETRY when the nodes do not belong together.
    """
    seen = _look(scan)
    return replace(seen, labels=seen.labels.copy(), delivered=seen.delivered.copy(), marks=seen.marks.copy())


def _look(scan: SegmentedScan) -> Snapshot:
    """As `snapshot`, good until the next change: its arrays may be those of the nodes."""
    labels = readLabels(scan, shared=True).labels
    known = scan.segmentation.GetNodeReference(RESULT_LABELS_ROLE) is not None
    delivered = resultLabels(scan) if known else np.zeros_like(labels)
    segments = frozenset(scan.segmentation.GetSegmentation().GetSegmentIDs())
    return Snapshot(labels, delivered, appliedScribbles(scan), _words(scan.segmentation), segments)


def emptySnapshot(scan: SegmentedScan) -> Snapshot:
    """What was before the first result of a scan: nothing."""
    nothing = np.zeros(scan.box.shape, np.uint8)
    return Snapshot(nothing, nothing, nothing, Words({}, (), None, {}))


def _madeSegments(scan: SegmentedScan, before: Snapshot, after: Snapshot) -> tuple[SegmentCopy, ...]:
    fresh = [name for name in sorted(after.segments - before.segments) if scan.label(name) is None]
    kept = (copySegment(scan, name) for name in fresh)
    return tuple(segment for segment in kept if segment is not None)


def _patch(before: np.ndarray, after: np.ndarray) -> Patch | None:
    box = _NOWHERE
    for first in range(0, len(before), _SLICES):
        part = slice(first, first + _SLICES)
        found = boxAround(before[part] != after[part])
        if found is not None:
            k, j, i = found.start
            box = box.joined(Box.ofShape(found.shape, (first + k, j, i)))
    return None if box.empty else Patch(box, pack(before[box.slices]), pack(after[box.slices]))


def _mapPatches(before: Snapshot) -> tuple[tuple[slicer.vtkMRMLScalarVolumeNode, Patch], ...]:
    box = before.mapsBox
    return tuple(
        (node, Patch(box, pack(values), pack(arrayFromVolume(node)[box.slices])))
        for node, values in before.maps
        if node.GetScene() is not None
    )


def _restore(scan: SegmentedScan, step: Step, *, backwards: bool) -> Words:
    """Go to the other side of a step; gives what was said on this side, the reader's latest words included."""
    scan.check()
    left = _words(scan.segmentation)
    origin, target = (step.after, step.before) if backwards else (step.before, step.after)
    if step.labels is not None:
        box = step.labels.box
        old, new = _sides(step.labels, backwards)
        present = readLabels(scan, box=box).labels
        writeLabels(scan, np.where(present == old, new, present), box=box)
    if step.delivered is not None:
        storeResultLabels(scan, _sides(step.delivered, backwards)[1], box=step.delivered.box)
    if step.marks is not None:
        storeScribbles(scan, _sides(step.marks, backwards)[1], box=step.marks.box)
    for node, patch in step.maps:
        if node.GetScene() is not None:
            arrayFromVolume(node)[patch.box.slices] = _sides(patch, backwards)[1]
            arrayFromVolumeModified(node)
    _restoreWords(scan.segmentation, origin, target)
    return left


def _sides(patch: Patch, backwards: bool) -> tuple[np.ndarray, np.ndarray]:
    """The voxels that the step left behind, and those to put in their place."""
    sides = patch.after.unpack(), patch.before.unpack()
    return sides if backwards else sides[::-1]


def _restoreWords(node: slicer.vtkMRMLSegmentationNode, origin: Words, target: Words) -> None:
    review = ReviewList(node)
    was = {region.number: region for region in origin.regions}
    since = [region for region in review.regions if region != was.get(region.number)]
    carried = [*since, *(r for r in target.regions if not any(one.isSameAs(r) for one in since))]
    logic = slicer.vtkSlicerSegmentationsModuleLogic
    for name, status in _statuses(node).items():
        if status == origin.statuses.get(name, logic.NotStarted):
            wanted = target.statuses.get(name, logic.NotStarted)
            if wanted != status:
                logic.SetSegmentStatus(node.GetSegmentation().GetSegment(name), wanted)
    if target.geometry is not None:
        node.SetAttribute(GEOMETRY_ATTRIBUTE, target.geometry)
    review.replaceReport(target.report, carried=carried)


def _words(node: slicer.vtkMRMLSegmentationNode) -> Words:
    return Words(readReport(node), ReviewList(node).regions, node.GetAttribute(GEOMETRY_ATTRIBUTE), _statuses(node))


def _statuses(node: slicer.vtkMRMLSegmentationNode) -> dict[str, int]:
    logic = slicer.vtkSlicerSegmentationsModuleLogic
    segmentation = node.GetSegmentation()
    return {name: logic.GetSegmentStatus(segmentation.GetSegment(name)) for name in segmentation.GetSegmentIDs()}
