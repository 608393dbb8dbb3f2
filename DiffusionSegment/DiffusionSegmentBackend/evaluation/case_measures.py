"""What is measured on one labelled scan: pure functions of label maps and probabilities, organs by name."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from ..imaging.volume import Volume
from ..metrics.overlap import centroid_values, count_labels, dice_of_vox2vec, errors_in_most_uncertain
from ..metrics.surface import LabelSurfaces, surface_dice
from ..pipeline.islands import pieces_of
from ..pipeline.uncertainty import volume_interval_ml

ERROR_SHARES = (0.01, 0.02, 0.05)


@dataclass(frozen=True, kw_only=True)
class OrganMeasures:
    """One organ of one case in one variant: Dice and surface Dice at 2 mm (0..1), volume in mL.

    Dice is None where the truth does not show the organ; `dice_1x1x2mm` is None too where it was not asked for.
    """

    dice: float | None
    surface_dice_2mm: float | None
    predicted_ml: float
    dice_1x1x2mm: float | None = None


@dataclass(frozen=True, kw_only=True)
class AnswerMeasures:
    """What is measured of the variant that `segment` delivers.

    `intervals_ml`: the 90 % interval of each organ's volume. `errors_in_most_uncertain`: share of the wrong voxels
    among the 1, 2 and 5 % most uncertain ones, by that share. `islands` taken out, and how many of them were mostly
    the organ.
    """

    intervals_ml: Mapping[str, tuple[float, float]]
    errors_in_most_uncertain: Mapping[str, float]
    islands_taken_out: int
    islands_mostly_organ: int


@dataclass(frozen=True, kw_only=True)
class CaseMeasures:
    """All measures of one case, for the organs that were drawn in it; `true_ml` is 0 for one that the scan lacks.

    `variants`: variant -> organ -> measures. `answer` is None where the delivered variant was not asked for.
    `body_coordinates_mm`: coordinates x, y, z of the body-part network at the organ's centroid, None without one.
    """

    name: str
    image: str
    label: str
    true_ml: Mapping[str, float]
    variants: Mapping[str, Mapping[str, OrganMeasures]]
    answer: AnswerMeasures | None
    body_coordinates_mm: Mapping[str, tuple[float, float, float] | None]
    seconds: Mapping[str, float]


@dataclass(frozen=True)
class Truth:
    """The true labels (k, j, i) of a scan in its own geometry; `organs` are the label values drawn, with their names.

    What does not depend on the prediction is computed once for all variants.
    """

    volume: Volume
    classes: int
    organs: Mapping[int, str]

    @property
    def labels(self) -> NDArray[np.uint8]:
        """The label map."""
        return self.volume.array

    @cached_property
    def surfaces(self) -> LabelSurfaces:
        """Surfaces of all labels."""
        return self.surfaces_of(self.labels)

    @cached_property
    def volumes_ml(self) -> dict[str, float]:
        """Volume of each organ that was drawn."""
        counts = np.bincount(self.labels.ravel(), minlength=self.classes)
        return {name: float(counts[value]) * self.volume.voxel_ml for value, name in self.organs.items()}

    def surfaces_of(self, labels: NDArray[np.uint8]) -> LabelSurfaces:
        """Surfaces of another map of the same geometry."""
        x, y, z = (float(length) for length in self.volume.spacing)
        return LabelSurfaces(labels, self.classes, (z, y, x))


def measure_labels(predicted: NDArray[np.uint8], truth: Truth, *, vox2vec: bool) -> dict[str, OrganMeasures]:
    """Measures of a label map (k, j, i) by organ; `vox2vec` adds the Dice of its protocol."""
    counts = count_labels(predicted, truth.labels, truth.classes)
    surface = surface_dice(truth.surfaces_of(predicted), truth.surfaces)
    resampled = (
        dice_of_vox2vec(predicted, truth.labels, truth.classes, index_to_lps=truth.volume.index_to_lps)
        if vox2vec
        else np.full(truth.classes - 1, np.nan)
    )
    return {
        name: OrganMeasures(
            dice=_number(counts.dice[value - 1]),
            surface_dice_2mm=_number(surface[value - 1]),
            predicted_ml=float(counts.predicted[value - 1]) * truth.volume.voxel_ml,
            dice_1x1x2mm=_number(resampled[value - 1]),
        )
        for value, name in truth.organs.items()
    }


def volume_intervals(
    probabilities: Tensor, voxel_ml: float, organs: Mapping[int, str]
) -> dict[str, tuple[float, float]]:
    """The 90 % interval in mL of each organ's volume, from probabilities (classes, z, y, x) of voxels of `voxel_ml`."""
    return {name: volume_interval_ml(probabilities[value].numpy(), voxel_ml) for value, name in organs.items()}


def error_shares(uncertainty: NDArray[np.float32], wrong: NDArray[np.bool_]) -> dict[str, float]:
    """Share (0..1) of the wrong voxels among the most uncertain ones, by how many of these are looked at."""
    return {str(share): errors_in_most_uncertain(uncertainty, wrong, share=share) for share in ERROR_SHARES}


def island_counts(
    islands: NDArray[np.uint8], truth: NDArray[np.uint8], offset: tuple[int, int, int], organs: Mapping[int, str]
) -> tuple[int, int]:
    """How many pieces of drawn organs were taken out, and how many of them were mostly the organ.

    `islands` (z, y, x) begins at voxel `offset` of the grid on which `truth` (z, y, x) lies.
    """
    pieces = [(value, voxels + np.array(offset)) for value, voxels in pieces_of(islands) if value in organs]
    right = sum(np.mean(truth[tuple(voxels.T)] == value) > 0.5 for value, voxels in pieces)
    return len(pieces), int(right)


def coordinates_at_centroids(
    coordinates_mm: NDArray[np.float32], truth: NDArray[np.uint8], classes: int, organs: Mapping[int, str]
) -> dict[str, tuple[float, float, float] | None]:
    """Body coordinates x, y, z in mm at the centroid of each organ of `truth` (z, y, x), None for one it lacks."""
    values = centroid_values(coordinates_mm, truth, classes)
    return {name: _point(values[value - 1]) for value, name in organs.items()}


def _point(row: Sequence[float] | NDArray[np.float64]) -> tuple[float, float, float] | None:
    x, y, z = (float(value) for value in row)
    return None if np.isnan(x) else (x, y, z)


def _number(value: float) -> float | None:
    """None for NaN, which JSON does not have."""
    return None if np.isnan(value) else float(value)
