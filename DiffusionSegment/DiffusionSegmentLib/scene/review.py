"""The review of a result: regions that may be wrong, their states, and the status of the segments."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import slicer
from DiffusionSegmentBackend.errors import DiffusionSegmentError, ErrorCode
from DiffusionSegmentBackend.schema.report import Report
from DiffusionSegmentBackend.schema.review_state import RegionState

from .segmented_scan import REPORT_ATTRIBUTE, readReport

REVIEW_ATTRIBUTE = "DiffusionSegment.review"
_SAME_REGION_MM = 5.0
_BACKGROUND = "background"


def stateLabel(state: RegionState) -> str:
    """The text of a state in the panel, in the language of the application."""
    from slicer.i18n import tr as _

    texts: dict[RegionState, str] = {
        RegionState.OPEN: _("Open"),
        RegionState.ACCEPTED: _("Accepted"),
        RegionState.CORRECTED: _("Corrected"),
        RegionState.FLAGGED: _("Flagged"),
    }
    return texts[state]


@dataclass(frozen=True)
class Region:
    """One region that may be wrong: `number` is its index in the report, `score` the mL expected to be wrong."""

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
        """The one or two organs of the region, without the background."""
        return frozenset({self.organ, self.competingOrgan} - {_BACKGROUND})

    def isSameAs(self, other: Region) -> bool:
        """Whether both regions have the same two organs and centroids within 5 mm."""
        return self.organs == other.organs and self.distanceTo(other) <= _SAME_REGION_MM

    def distanceTo(self, other: Region) -> float:
        """Distance between the centroids, mm."""
        return float(np.linalg.norm(np.subtract(self.centroidLPS, other.centroidLPS)))


class ReviewList:
    """The regions of one segmentation in the order of the report, worst first.

    Report and states are attributes of the node, so that they are saved with it; two lists of one node are equal after
    `reload`. Every change is written to the node at once.
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
        """Read the list again after another object changed the node.

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
        """Make a region the current one; its organs that are not finished become InProgress.

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
        """The region (default: the current one) is correct as it is."""
        return self.setState(RegionState.ACCEPTED, number)

    def flag(self, number: int | None = None) -> Region | None:
        """The region (default: the current one) needs a second look."""
        return self.setState(RegionState.FLAGGED, number)

    def markCorrected(self, number: int | None = None) -> Region | None:
        """The region (default: the current one) was corrected."""
        return self.setState(RegionState.CORRECTED, number)

    def setState(self, state: RegionState, number: int | None = None) -> Region | None:
        """Set the state of a region (default: the current one; None when no region is selected).

        Raises:
            IndexError: when there is no such region.
        """
        index = self._current if number is None else number
        if index is None:
            return None
        if not 0 <= index < len(self._regions):
            raise IndexError(f"There is no region {index}.")
        return self._change(index, state=state, visited=True)

    def replaceReport(self, report: Report, *, carried: Sequence[Region] | None = None) -> None:
        """Set a new report; states are carried over between regions of the same organs within 5 mm, nearest first.

        `carried` are the regions whose states are carried over (default: those of this list).
        """
        regions = carriedOver(self._regions if carried is None else carried, readRegions(report))
        before = self.current
        self._segmentation.SetAttribute(REPORT_ATTRIBUTE, json.dumps(report.to_json()))
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
        """Update the status of the segment, which the table of Segment Editor shows."""
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
    """The `new` regions with the states of the same `old` regions; each old region is used once."""
    pairs = sorted(
        (one.distanceTo(other), a, b) for a, one in enumerate(old) for b, other in enumerate(new) if one.isSameAs(other)
    )
    carried = list(new)
    usedOld: set[int] = set()
    usedNew: set[int] = set()
    for _, a, b in pairs:
        if a not in usedOld and b not in usedNew:
            usedOld.add(a)
            usedNew.add(b)
            carried[b] = replace(new[b], state=old[a].state, visited=old[a].visited)
    return carried


def storeReport(segmentation: slicer.vtkMRMLSegmentationNode, report: Report) -> None:
    """Store the report of a new run with a segmentation; states are carried over, see `ReviewList.replaceReport`."""
    try:
        review = ReviewList(segmentation)
    except DiffusionSegmentError:
        # The hint for a damaged list is to segment again, which must not fail for the same reason.
        segmentation.RemoveAttribute(REPORT_ATTRIBUTE)
        segmentation.RemoveAttribute(REVIEW_ATTRIBUTE)
        review = ReviewList(segmentation)
    review.replaceReport(report)


def readRegions(report: Report) -> list[Region]:
    """The regions of a report, all open."""
    return [
        Region(
            number=number,
            organ=region.organ,
            competingOrgan=region.competing_organ,
            centroidLPS=region.centroid_lps_mm,
            volumeMl=region.volume_ml,
            score=region.score,
            sentence=region.sentence,
        )
        for number, region in enumerate(report.review)
    ]


def _damaged(segmentation: slicer.vtkMRMLSegmentationNode) -> DiffusionSegmentError:
    return DiffusionSegmentError(
        ErrorCode.INPUT_UNREADABLE,
        f"The review stored with {segmentation.GetName()} is damaged.",
        hint="Segment the scan again.",
    )
