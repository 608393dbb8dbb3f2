"""What a region to review is about, in one sentence: the two labels, the volume, and next to what it lies."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ..imaging.balls import Voxel, ball_around
from ..imaging.volume import Grid
from ..models.manifest import ModelDescription

_NEIGHBOUR_MM = 30.0
# Direction of the patient along + and - of L, P, S.
_DIRECTIONS = (("left of", "right of"), ("behind", "in front of"), ("above", "below"))


@dataclass(frozen=True, kw_only=True)
class RegionContent:
    """What a sentence is made of.

    Attributes:
        pair: the two label values that compete, 0 for background.
        volume_ml: volume of the region.
        expected_wrong_ml: sum over its voxels of the probability that their label is wrong.
        position: the voxel (z, y, x) that is shown.
        labels: the label map (z, y, x).
        probability: that of a gross error, 0..1, None where it is not calibrated.
    """

    pair: tuple[int, int]
    volume_ml: float
    expected_wrong_ml: float
    position: Voxel
    labels: NDArray[np.uint8]
    probability: float | None = None


def region_sentence(content: RegionContent, grid: Grid, description: ModelDescription) -> str:
    """The sentence of a region, such as "Stomach or background? 3.1 mL left of the pancreas, ..."."""
    titles = ["background", *(label.title.lower() for label in description.labels)]
    first, second = (titles[value] for value in content.pair)
    share = 100 * content.expected_wrong_ml / content.volume_ml
    neighbour = _neighbour(content, grid)
    where = "" if neighbour is None else f" {neighbour[0]} the {titles[neighbour[1]]}"
    return (
        f"{first.capitalize()} or {second}? {_certainty(content.probability)}{content.volume_ml:.1f} mL{where}, "
        f"about {share:.0f} % expected to be wrong."
    )


def _certainty(probability: float | None) -> str:
    """The calibrated probability as whole percent, never 0 or 100; empty without one."""
    if probability is None:
        return ""
    return f"Gross error with {min(99, max(1, round(100 * probability)))} % probability; "


def _neighbour(content: RegionContent, grid: Grid) -> tuple[str, int] | None:
    """The direction from the nearest part of another organ within 30 mm, and its label; None without one."""
    x, y, z = grid.spacing
    ball = ball_around(content.position, content.labels.shape, radius_mm=_NEIGHBOUR_MM, spacing=(z, y, x))
    near = np.where(ball.inside, content.labels[ball.box], 0)
    voxels = np.argwhere((near > 0) & ~np.isin(near, content.pair))
    if not len(voxels):
        return None
    start = np.array([part.start for part in ball.box])
    steps = grid.lps(np.array(content.position)) - grid.lps(voxels + start)
    nearest = int((steps**2).sum(axis=1).argmin())
    value = int(near[tuple(voxels[nearest])])
    away = steps[near[tuple(voxels.T)] == value].mean(axis=0)
    axis = int(np.abs(away).argmax())
    return _DIRECTIONS[axis][0 if away[axis] > 0 else 1], value
