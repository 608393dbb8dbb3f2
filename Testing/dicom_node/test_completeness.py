"""When a series is complete, from what has arrived and when."""

from __future__ import annotations

from dataclasses import replace

import pytest
from DiffusionSegmentBackend.dicom_node.completeness import (
    Arrival,
    Completeness,
    Transfer,
    completeness,
    evenly_spaced,
)
from DiffusionSegmentBackend.dicom_node.settings import Patience

PATIENCE = Patience(quiet_s=5, silence_s=60, limit_s=900)
WHOLE = Arrival(silent_s=5, transfer=Transfer.RELEASED, received=50, expected=None, evenly_spaced=True)
WAIT, COMPLETE, INCOMPLETE = Completeness.WAIT, Completeness.COMPLETE, Completeness.INCOMPLETE


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({}, COMPLETE),
        ({"silent_s": 4.9}, WAIT),
        # A gap may still be filled.
        ({"evenly_spaced": False}, WAIT),
        ({"evenly_spaced": False, "silent_s": 60}, INCOMPLETE),
        ({"evenly_spaced": False, "silent_s": 60, "expected": 50}, COMPLETE),
        # Other series of the study may travel on the same association.
        ({"transfer": Transfer.OPEN, "silent_s": 60}, WAIT),
        ({"transfer": Transfer.OPEN, "expected": 50}, COMPLETE),
        # A cut-off series has no gap either.
        ({"transfer": Transfer.INTERRUPTED, "silent_s": 60}, WAIT),
        ({"transfer": Transfer.INTERRUPTED, "silent_s": 900}, INCOMPLETE),
        ({"transfer": Transfer.INTERRUPTED, "expected": 50}, COMPLETE),
        # The archive has more images.
        ({"expected": 60, "silent_s": 60}, WAIT),
        ({"expected": 60, "silent_s": 900}, INCOMPLETE),
        # It may have fewer, if it receives them itself at the moment.
        ({"expected": 40}, COMPLETE),
    ],
)
def test_a_series_is_complete_when_it_is_quiet_and_whole(change: dict[str, object], expected: Completeness) -> None:
    assert completeness(replace(WHOLE, **change), PATIENCE) is expected  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("positions", "expected"),
    [
        ([0, 2.5, 5, 7.5], True),
        ([7.5, 0, 5, 2.5], True),
        ([0, 2.5, 7.5, 10, 12.5], False),
        # Rounded positions of a scanner, and two images at each position.
        ([0, 2.51, 4.99, 7.5], True),
        ([0, 0, 2.5, 2.5, 5, 5], True),
        ([0, 2.5], False),
        ([], False),
    ],
)
def test_a_missing_slice_is_a_gap(positions: list[float], expected: bool) -> None:
    assert evenly_spaced(positions) is expected
