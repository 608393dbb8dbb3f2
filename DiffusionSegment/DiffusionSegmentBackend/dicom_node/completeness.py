"""When a series is complete. DICOM has no message for it, so the decision follows from what has arrived and when."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum, StrEnum

import numpy as np

from .settings import Patience

_MIN_SLICES = 3
# Of the median distance between slices; a missing slice doubles a distance.
_TOLERANCE = 0.2
_SAME_POSITION_MM = 1e-3


class Transfer(StrEnum):
    """How the associations that brought a series stand."""

    OPEN = "open"
    RELEASED = "released"
    INTERRUPTED = "interrupted"


class Completeness(Enum):
    """What to do with a series now."""

    WAIT = "wait"
    COMPLETE = "complete"
    INCOMPLETE = "incomplete"


@dataclass(frozen=True, kw_only=True)
class Arrival:
    """What is known of the arrival of a series.

    Attributes:
        silent_s: seconds since the last image arrived.
        transfer: how its associations stand.
        received: images that have arrived.
        expected: images that the archive has, None if that is not known.
        evenly_spaced: whether the slices have no gap.
    """

    silent_s: float
    transfer: Transfer
    received: int
    expected: int | None
    evenly_spaced: bool


def completeness(arrival: Arrival, patience: Patience) -> Completeness:
    """Whether to wait, to take the series as complete, or to take what has arrived as an incomplete one."""
    short = arrival.expected is not None and arrival.received < arrival.expected
    counted = arrival.expected is not None and not short
    if short or (arrival.transfer is not Transfer.RELEASED and not counted):
        return Completeness.INCOMPLETE if arrival.silent_s >= patience.limit_s else Completeness.WAIT
    if arrival.evenly_spaced and arrival.silent_s >= patience.quiet_s:
        return Completeness.COMPLETE
    if arrival.silent_s < patience.silence_s:
        return Completeness.WAIT
    return Completeness.COMPLETE if counted or arrival.evenly_spaced else Completeness.INCOMPLETE


def evenly_spaced(positions: Sequence[float]) -> bool:
    """Whether slices at these positions along their normal, in mm, have no gap; images at one position count once."""
    steps = np.diff(np.unique(np.round(np.asarray(positions, float) / _SAME_POSITION_MM) * _SAME_POSITION_MM))
    if len(steps) < _MIN_SLICES - 1:
        return False
    return bool(np.abs(steps / np.median(steps) - 1).max() < _TOLERANCE)
