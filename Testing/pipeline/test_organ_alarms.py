"""Rules about whole organs, on boxes as organs."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from DiffusionSegmentBackend.imaging.volume import Volume, model_grid
from DiffusionSegmentBackend.pipeline.organ_alarms import LabelMapOnGrid, organ_alarms
from DiffusionSegmentBackend.schema.model_manifest import ModelLabel
from DiffusionSegmentBackend.schema.report import AlarmKind, OrganAlarm
from numpy.typing import NDArray

RIGHT, LEFT = 1, 2
# A kidney of 8 x 8 x 8 voxels of 3 mm is 13.8 mL.
LABELS = (
    ModelLabel(value=RIGHT, name="right_kidney", title="Right kidney", usual_ml=(12.0, 16.0), one_piece=True),
    ModelLabel(value=LEFT, name="left_kidney", title="Left kidney", usual_ml=(12.0, 16.0), one_piece=True),
)
OFFSET = (4, 5, 6)


@pytest.fixture
def kidneys() -> NDArray[np.uint8]:
    """Axes z, y, x along LPS, so that the right kidney has the smaller x."""
    labels = np.zeros((30, 30, 30), np.uint8)
    labels[10:18, 10:18, 3:11] = RIGHT
    labels[10:18, 10:18, 20:28] = LEFT
    return labels


def alarms(
    labels: NDArray[np.uint8], known: tuple[ModelLabel, ...] = LABELS, covered: tuple[int, ...] = (RIGHT, LEFT)
) -> tuple[OrganAlarm, ...]:
    grid = model_grid(Volume(np.zeros((40, 40, 40), np.int16), np.diag([3.0, 3.0, 3.0, 1.0])), spacing=(3.0, 3.0, 3.0))
    return organ_alarms(LabelMapOnGrid(labels, grid, OFFSET, covered), known)


def test_usual_organs_raise_no_alarm(kidneys: NDArray[np.uint8]) -> None:
    assert alarms(kidneys) == ()


def test_swapped_sides_are_an_alarm_at_the_right_organ(kidneys: NDArray[np.uint8]) -> None:
    (alarm,) = alarms(np.where(kidneys > 0, 3 - kidneys, 0).astype(np.uint8))
    assert (alarm.organ, alarm.kind) == ("right_kidney", AlarmKind.SIDES)
    assert alarm.sentence == "Right kidney lies to the left of the left kidney: the sides may be swapped."
    assert alarm.position_lps_mm == pytest.approx(((23.5 + 6) * 3, (13.5 + 5) * 3, (13.5 + 4) * 3), abs=0.1)


def test_a_covered_organ_without_voxels_is_absent(kidneys: NDArray[np.uint8]) -> None:
    without = np.where(kidneys == LEFT, 0, kidneys).astype(np.uint8)
    (alarm,) = alarms(without)
    assert (alarm.organ, alarm.kind, alarm.position_lps_mm) == ("left_kidney", AlarmKind.ABSENT, None)
    assert alarms(without, covered=(RIGHT,)) == ()


@pytest.mark.parametrize(("slices", "word"), [(3, "small"), (17, "large")])
def test_a_volume_outside_the_usual_range_is_an_alarm(kidneys: NDArray[np.uint8], slices: int, word: str) -> None:
    kidneys[10:18] = 0
    kidneys[10 : 10 + slices, 10:18, 3:11] = RIGHT
    (alarm,) = alarms(kidneys, covered=(RIGHT,))
    assert alarm.kind is AlarmKind.VOLUME
    volume = slices * 64 * 0.027
    assert alarm.sentence == (f"Right kidney is unusually {word}: {volume:.0f} mL; 12 to 16 mL in the training cases.")


def test_the_volume_of_an_organ_at_the_edge_is_not_judged(kidneys: NDArray[np.uint8]) -> None:
    kidneys[10:18] = 0
    kidneys[0:4, 10:18, 3:11] = RIGHT
    assert alarms(kidneys, covered=(RIGHT,)) == ()


def test_a_second_piece_is_an_alarm_at_that_piece_unless_it_is_small_or_usual(kidneys: NDArray[np.uint8]) -> None:
    kidneys[26:29, 20:25, 20:25] = RIGHT
    (alarm,) = alarms(kidneys)
    assert (alarm.organ, alarm.kind) == ("right_kidney", AlarmKind.PIECES)
    assert alarm.sentence == "Right kidney is in separate pieces of 14 and 2 mL."
    assert alarm.position_lps_mm == ((22 + 6) * 3.0, (22 + 5) * 3.0, (27 + 4) * 3.0)
    assert alarms(kidneys, tuple(replace(label, one_piece=False) for label in LABELS)) == ()
    kidneys[26:29, 20:25, 22:25] = 0
    assert alarms(kidneys) == ()


def test_without_statistics_only_anatomy_is_judged(kidneys: NDArray[np.uint8]) -> None:
    plain = tuple(replace(label, usual_ml=None, one_piece=False) for label in LABELS)
    kidneys[10:15] = 0
    assert alarms(kidneys, plain) == ()
