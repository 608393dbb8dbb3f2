"""review.json: the reader's decisions about each organ and about each region of a result.

    {"organs": {"liver": "accepted", "spleen": "needs work"}, "regions": [{"index": 0, "state": "corrected"}]}

Organs go by their name in model.json, regions by their place in the `review` list of report.json. What is not named was
not looked at.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import Enum
from pathlib import Path
from typing import Any

from ..errors import DiffusionSegmentError, ErrorCode, unknown_name

_HINT = "Save the review again."


class OrganState(str, Enum):
    """What the reader thinks of an organ."""

    ACCEPTED = "accepted"
    NEEDS_WORK = "needs work"
    FLAGGED = "flagged"
    NOT_REVIEWED = "not reviewed"


class RegionState(str, Enum):
    """What the reader did about a region of doubt."""

    ACCEPTED = "accepted"
    CORRECTED = "corrected"
    FLAGGED = "flagged"
    OPEN = "open"


@dataclass(frozen=True)
class Review:
    """The decisions about one case. `organs` is by organ name, `regions` by index in the report's list."""

    organs: dict[str, OrganState] = field(default_factory=dict)
    regions: dict[int, RegionState] = field(default_factory=dict)

    def organ(self, name: str) -> OrganState:
        """The state of an organ; NOT_REVIEWED where the reader said nothing."""
        return self.organs.get(name, OrganState.NOT_REVIEWED)

    def region(self, index: int) -> RegionState:
        """The state of a region; OPEN where the reader said nothing."""
        return self.regions.get(index, RegionState.OPEN)

    def check(self, *, organs: Sequence[str], regions: int) -> None:
        """Refuse decisions about organs or regions that the case does not have.

        Raises:
            DiffusionSegmentError: INPUT_VALUES.
        """
        strange = [f"the organ '{name}'" for name in self.organs if name not in organs]
        strange += [f"region {index}" for index in self.regions if not 0 <= index < regions]
        if strange:
            raise DiffusionSegmentError(
                ErrorCode.INPUT_VALUES,
                f"The review names {strange[0]}, which the result does not contain.",
                hint="Give the review of this result.",
            )


def read_review(path: Path) -> Review:
    """Read and check review.json.

    Raises:
        DiffusionSegmentError: INPUT_MISSING, INPUT_UNREADABLE when it is not as agreed, OPTION for an unknown state.
    """
    if not path.is_file():
        raise DiffusionSegmentError(ErrorCode.INPUT_MISSING, f"{path} does not exist.", hint="Check the path.")
    try:
        return _parse(json.loads(path.read_text(encoding="utf-8")))
    except (ValueError, KeyError, TypeError, AttributeError, OSError, RecursionError) as error:
        raise DiffusionSegmentError(
            ErrorCode.INPUT_UNREADABLE, f"{path} is not a review ({type(error).__name__}: {error}).", hint=_HINT
        ) from error


def _parse(raw: dict[str, Any]) -> Review:
    organs = {str(name): _organ_state(state) for name, state in raw.get("organs", {}).items()}
    regions: dict[int, RegionState] = {}
    for item in raw.get("regions", []):
        index = item["index"]
        if type(index) is not int or index in regions:
            raise ValueError(f"region index {index!r} is no whole number, or comes twice")
        regions[index] = _region_state(item["state"])
    return Review(organs, regions)


def _organ_state(state: object) -> OrganState:
    try:
        return OrganState(state)
    except ValueError:
        raise unknown_name("organ state", str(state), tuple(known.value for known in OrganState)) from None


def _region_state(state: object) -> RegionState:
    try:
        return RegionState(state)
    except ValueError:
        raise unknown_name("region state", str(state), tuple(known.value for known in RegionState)) from None
