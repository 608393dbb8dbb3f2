"""The review of a result: its regions of doubt, what the reader said of each, and the organs' status in Slicer."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from enum import Enum
from typing import Any

import numpy as np
import slicer
from DiffusionSegmentBackend.errors import DiffusionSegmentError, ErrorCode

from .segmented_scan import REPORT_ATTRIBUTE, readReport

REVIEW_ATTRIBUTE = "DiffusionSegment.review"
_SAME_REGION_MM = 5.0
_BACKGROUND = "background"


class RegionState(Enum):
    """What the reader said of a region. Saved scenes keep the value, so members are never renamed."""

    OPEN = "open"
    ACCEPTED = "accepted"
    CORRECTED = "corrected"
    FLAGGED = "flagged"

    def label(self) -> str:
        """The text in the panel, in the language of the application."""
        from slicer.i18n import tr as _

        return {
            RegionState.OPEN: _("Open"),
            RegionState.ACCEPTED: _("Accepted"),
            RegionState.CORRECTED: _("Corrected"),
            RegionState.FLAGGED: _("Flagged"),
        }[self]


@dataclass(frozen=True)
class Region:
    """One region of doubt: `number` is its place in the report from 0 on, `score` the mL expected to be wrong."""

    number: int
    organ: str
    competingOrgan: str
    centroidLPS: tuple[float, float, float]
    volumeMl: float
    score: float
    sentence: str
    state: RegionState = RegionState.OPEN
    visited: bool = False

    @property
    def organs(self) -> frozenset[str]:
        """The one or two organs concerned; the background is none."""
        return frozenset({self.organ, self.competingOrgan} - {_BACKGROUND})

    def isSameAs(self, other: Region) -> bool:
        """Whether both are about the same doubt: the same two organs, within 5 mm."""
        return self.organs == other.organs and self.distanceTo(other) <= _SAME_REGION_MM

    def distanceTo(self, other: Region) -> float:
        """Between the centroids, mm."""
        return float(np.linalg.norm(np.subtract(self.centroidLPS, other.centroidLPS)))


class ReviewList:
    """The regions of one segmentation, worst first as the report ranks them.

    Report and states live in attributes of the node, so that they are saved and loaded with it; two lists of one node
    see the same after `reload`. Every change is written to the node at once.
    """

    def __init__(self, segmentation: slicer.vtkMRMLSegmentationNode) -> None:
        """Read the list of a node; a segmentation without a report has an empty one.

        Raises:
            DiffusionSegmentError: INPUT_UNREADABLE when a saved scene was damaged.
        """
        self._segmentation = segmentation
        self._regions: list[Region] = []
        self._current: int | None = None
        self.reload()

    @property
    def regions(self) -> tuple[Region, ...]:
        """All regions with their states."""
        return tuple(self._regions)

    @property
    def current(self) -> Region | None:
        """The selected region; None before the first is selected."""
        return self._regions[self._current] if self._current is not None else None

    def count(self, state: RegionState) -> int:
        """How many regions are in `state`."""
        return sum(region.state is state for region in self._regions)

    def reload(self) -> None:
        """Read the list again, after somebody else (undo, a loaded scene) changed the node.

        Raises:
            DiffusionSegmentError: INPUT_UNREADABLE when a saved scene was damaged.
        """
        regions = readRegions(readReport(self._segmentation))
        try:
            stored = json.loads(self._segmentation.GetAttribute(REVIEW_ATTRIBUTE) or "{}")
            states, visited = stored.get("states", []), stored.get("visited", [])
            current = stored.get("current")
            if len(states) == len(visited) == len(regions):
                regions = [
                    replace(region, state=RegionState(state), visited=bool(seen))
                    for region, state, seen in zip(regions, states, visited, strict=True)
                ]
        except (ValueError, AttributeError, TypeError) as error:
            raise _damaged(self._segmentation) from error
        self._regions = regions
        self._current = current if isinstance(current, int) and 0 <= current < len(regions) else None

    def select(self, number: int) -> Region:
        """Make a region the current one; its organs, where not yet finished, become InProgress.

        Raises:
            IndexError: when there is no such region.
        """
        if not 0 <= number < len(self._regions):
            raise IndexError(f"There is no region {number}.")
        self._current = number
        return self._change(number, visited=True)

    def next(self) -> Region | None:
        """Select the region after the current one, the first after the last; None in an empty list."""
        return self._step(1)

    def previous(self) -> Region | None:
        """Select the region before the current one, the last before the first; None in an empty list."""
        return self._step(-1)

    def accept(self, number: int | None = None) -> Region | None:
        """The region (default: the current one) is right as it is."""
        return self.setState(RegionState.ACCEPTED, number)

    def flag(self, number: int | None = None) -> Region | None:
        """Somebody else must look at the region (default: the current one)."""
        return self.setState(RegionState.FLAGGED, number)

    def markCorrected(self, number: int | None = None) -> Region | None:
        """The reader has corrected the region (default: the current one)."""
        return self.setState(RegionState.CORRECTED, number)

    def setState(self, state: RegionState, number: int | None = None) -> Region | None:
        """Set the state of a region (default: the current one; None when no region is selected).

        Raises:
            IndexError: when there is no such region.
        """
        place = self._current if number is None else number
        if place is None:
            return None
        if not 0 <= place < len(self._regions):
            raise IndexError(f"There is no region {place}.")
        return self._change(place, state=state, visited=True)

    def replaceReport(self, report: dict[str, Any], *, carried: Sequence[Region] | None = None) -> None:
        """Take a new report; states stay with their regions, matched by organs and place (5 mm), nearest first.

        `carried` are the regions whose states count (default: those of this list).

        Raises:
            DiffusionSegmentError: INPUT_UNREADABLE for a report without the fields of a region; nothing changes then.
        """
        regions = carriedOver(self._regions if carried is None else carried, readRegions(report))
        before = self.current
        self._segmentation.SetAttribute(REPORT_ATTRIBUTE, json.dumps(report))
        self._regions = regions
        self._current = next((r.number for r in regions if before is not None and r.isSameAs(before)), None)
        self._store()
        for name in sorted({organ for region in regions for organ in region.organs}):
            self._updateStatus(name)

    def _step(self, by: int) -> Region | None:
        if not self._regions:
            return None
        start = self._current if self._current is not None else (-1 if by > 0 else 0)
        return self.select((start + by) % len(self._regions))

    def _change(self, number: int, *, visited: bool, state: RegionState | None = None) -> Region:
        old = self._regions[number]
        self._regions[number] = replace(old, visited=visited, state=state or old.state)
        self._store()
        for name in sorted(old.organs):
            self._updateStatus(name)
        return self._regions[number]

    def _store(self) -> None:
        stored = {
            "states": [region.state.value for region in self._regions],
            "visited": [region.visited for region in self._regions],
            "current": self._current,
        }
        self._segmentation.SetAttribute(REVIEW_ATTRIBUTE, json.dumps(stored))

    def _updateStatus(self, organ: str) -> None:
        """Slicer's own status of the segment, as Segment Editor's table shows it."""
        segment = self._segmentation.GetSegmentation().GetSegment(organ)
        regions = [region for region in self._regions if organ in region.organs]
        if segment is None or not any(region.visited for region in regions):
            return
        states = {region.state for region in regions}
        logic = slicer.vtkSlicerSegmentationsModuleLogic
        if RegionState.FLAGGED in states:
            status = logic.Flagged
        elif states <= {RegionState.ACCEPTED, RegionState.CORRECTED}:
            status = logic.Completed
        else:
            status = logic.InProgress
        if logic.GetSegmentStatus(segment) != status:
            logic.SetSegmentStatus(segment, status)


def carriedOver(old: Sequence[Region], new: Sequence[Region]) -> list[Region]:
    """The `new` regions with the states of the `old` ones that are about the same doubt; each old one counts once."""
    pairs = sorted(
        (one.distanceTo(other), a, b) for a, one in enumerate(old) for b, other in enumerate(new) if one.isSameAs(other)
    )
    carried, spent = list(new), set()
    done: set[int] = set()
    for _, a, b in pairs:
        if a not in spent and b not in done:
            spent.add(a)
            done.add(b)
            carried[b] = replace(new[b], state=old[a].state, visited=old[a].visited)
    return carried


def takeReport(segmentation: slicer.vtkMRMLSegmentationNode, report: dict[str, Any]) -> None:
    """Give a segmentation the report of a new run; states stay with their regions, see `ReviewList.replaceReport`.

    Raises:
        DiffusionSegmentError: INPUT_UNREADABLE for a report without the fields of a region.
    """
    try:
        review = ReviewList(segmentation)
    except DiffusionSegmentError:
        # The advice for a damaged list is to segment again, so that must not fail for the same reason.
        segmentation.RemoveAttribute(REPORT_ATTRIBUTE)
        segmentation.RemoveAttribute(REVIEW_ATTRIBUTE)
        review = ReviewList(segmentation)
    review.replaceReport(report)


def readRegions(report: dict[str, Any]) -> list[Region]:
    """The regions of a report, all open.

    Raises:
        DiffusionSegmentError: INPUT_UNREADABLE for a report without the fields of a region.
    """
    try:
        return [_region(number, item) for number, item in enumerate(report.get("review", []))]
    except (KeyError, TypeError, ValueError) as error:
        raise DiffusionSegmentError(
            ErrorCode.INPUT_UNREADABLE, "The report's list of regions is damaged.", hint="Segment the scan again."
        ) from error


def _region(number: int, item: dict[str, Any]) -> Region:
    x, y, z = (float(value) for value in item["centroid_lps_mm"])
    return Region(
        number=number,
        organ=str(item["organ"]),
        competingOrgan=str(item["rival"]),
        centroidLPS=(x, y, z),
        volumeMl=float(item["volume_ml"]),
        score=float(item["score"]),
        sentence=str(item["sentence"]),
    )


def _damaged(segmentation: slicer.vtkMRMLSegmentationNode) -> DiffusionSegmentError:
    return DiffusionSegmentError(
        ErrorCode.INPUT_UNREADABLE,
        f"The review kept with {segmentation.GetName()} is damaged.",
        hint="Segment the scan again.",
    )
