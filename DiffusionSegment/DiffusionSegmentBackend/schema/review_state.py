"""review.json: a reader's decisions about each organ and about each region of a result.

    {"organs": {"liver": "accepted", "spleen": "needs work"}, "regions": [{"index": 0, "state": "corrected"}]}

Organs go by their name in model.json, regions by their index in the `review` list of report.json. What is not named was
not reviewed.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import StrEnum

from ..errors import DiffusionSegmentError, ErrorCode
from .dataclass_json import SchemaError


class OrganState(StrEnum):
    """A reader's decision about an organ."""

    ACCEPTED = "accepted"
    NEEDS_WORK = "needs work"
    FLAGGED = "flagged"
    NOT_REVIEWED = "not reviewed"


class RegionState(StrEnum):
    """A reader's decision about a region to review."""

    OPEN = "open"
    ACCEPTED = "accepted"
    CORRECTED = "corrected"
    FLAGGED = "flagged"


@dataclass(frozen=True)
class RegionDecision:
    """The state of the region with this index in the report's list."""

    index: int
    state: RegionState


@dataclass(frozen=True)
class ReviewState:
    """The decisions about one case; `organs` by organ name."""

    organs: dict[str, OrganState] = field(default_factory=dict)
    regions: tuple[RegionDecision, ...] = ()

    def __post_init__(self) -> None:
        indices = [decision.index for decision in self.regions]
        if len(set(indices)) < len(indices):
            raise SchemaError("regions has an index twice")

    def organ(self, name: str) -> OrganState:
        """The state of an organ; NOT_REVIEWED where it is not named."""
        return self.organs.get(name, OrganState.NOT_REVIEWED)

    def region(self, index: int) -> RegionState:
        """The state of a region; OPEN where it is not named."""
        return next((one.state for one in self.regions if one.index == index), RegionState.OPEN)

    def check(self, *, organs: Sequence[str], regions: int) -> None:
        """Refuse decisions about organs or regions that the case does not have.

        Raises:
            DiffusionSegmentError: INPUT_VALUES.
        """
        unknown = [f"the organ '{name}'" for name in self.organs if name not in organs]
        unknown += [f"region {one.index}" for one in self.regions if not 0 <= one.index < regions]
        if unknown:
            raise DiffusionSegmentError(
                ErrorCode.INPUT_VALUES,
                f"The review names {unknown[0]}, which the result does not contain.",
                hint="Give the review of this result.",
            )
