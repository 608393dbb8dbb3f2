"""Measures of one labelled scan, by organ: pure functions of label maps and probabilities."""

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

    Dice is None if the organ is absent from the truth; `dice_1x1x2mm` is also None if it was not requested.
    """

    dice: float | None
    surface_dice_2mm: float | None
    predicted_ml: float
    dice_1x1x2mm: float | None = None


@dataclass(frozen=True, kw_only=True)
class OutputMeasures:
    """Further measures of the variant that `segment` outputs.

    Attributes:
        intervals_ml: 90 % interval of the volume of each organ.
        errors_in_most_uncertain: share of the wrong voxels among the 1, 2 and 5 % most uncertain ones, by that share.
        removed_islands: number of removed islands.
        islands_mostly_organ: number of removed islands that mostly belong to the organ.
    """

    intervals_ml: Mapping[str, tuple[float, float]]
    errors_in_most_uncertain: Mapping[str, float]
    removed_islands: int
    islands_mostly_organ: int


@dataclass(frozen=True, kw_only=True)
class CaseMeasures:
    """All measures of one case, for the organs that were annotated in it.

    Attributes:
        name: name of the case.
        image: path of the scan.
        label: path of its label map.
        true_ml: true volume of each organ, 0 for one that is absent from the scan.
        variants: variant -> organ -> measures.
        output: further measures of the output variant, None if it was not requested.
        body_coordinates_mm: coordinates x, y, z of the body-part network at the centroid of each organ, None if absent.
        seconds: seconds by stage.
    """

    name: str
    image: str
    label: str
    true_ml: Mapping[str, float]
    variants: Mapping[str, Mapping[str, OrganMeasures]]
    output: OutputMeasures | None
    body_coordinates_mm: Mapping[str, tuple[float, float, float] | None]
    seconds: Mapping[str, float]


@dataclass(frozen=True)
class Truth:
    """The true labels (k, j, i) of a scan; `organs` maps the annotated label values to their names.

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
        """Volume of each annotated organ."""
        counts = np.bincount(self.labels.ravel(), minlength=self.classes)
        return {name: float(counts[value]) * self.volume.voxel_ml for value, name in self.organs.items()}

    def surfaces_of(self, labels: NDArray[np.uint8]) -> LabelSurfaces:
        """Surfaces of another label map with the same geometry."""
        x, y, z = (float(length) for length in self.volume.spacing)
        return LabelSurfaces(labels, self.classes, (z, y, x))


def measure_labels(predicted: NDArray[np.uint8], truth: Truth, *, vox2vec: bool) -> dict[str, OrganMeasures]:
    """Measures of a label map (k, j, i) by organ; `vox2vec` adds Dice by its protocol."""
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
    probabilities: Tensor, voxel_ml: float, organs: Mapping[int, str], *, tail: float
) -> dict[str, tuple[float, float]]:
    """The 90 % interval in mL of each organ's volume, from probabilities (classes, z, y, x) of voxels of `voxel_ml`."""
    return {
        name: volume_interval_ml(probabilities[value].numpy(), voxel_ml, tail=tail) for value, name in organs.items()
    }


def error_shares(uncertainty: NDArray[np.float32], wrong: NDArray[np.bool_]) -> dict[str, float]:
    """Share (0..1) of the wrong voxels among the most uncertain ones, by their share."""
    return {str(share): errors_in_most_uncertain(uncertainty, wrong, share=share) for share in ERROR_SHARES}


def island_counts(
    islands: NDArray[np.uint8], truth: NDArray[np.uint8], offset: tuple[int, int, int], organs: Mapping[int, str]
) -> tuple[int, int]:
    """Number of removed islands of annotated organs, and of those that mostly belong to the organ.

    Args:
        islands: label values of the removed islands (z, y, x).
        truth: true labels (z, y, x) on the whole grid.
        offset: first voxel of `islands` in `truth`.
        organs: names of the annotated label values.
    """
    pieces = [(value, voxels + np.array(offset)) for value, voxels in pieces_of(islands) if value in organs]
    right = sum(np.mean(truth[tuple(voxels.T)] == value) > 0.5 for value, voxels in pieces)
    return len(pieces), int(right)


def coordinates_at_centroids(
    coordinates_mm: NDArray[np.float32], truth: NDArray[np.uint8], classes: int, organs: Mapping[int, str]
) -> dict[str, tuple[float, float, float] | None]:
    """Body coordinates x, y, z in mm at the centroid of each organ of `truth` (z, y, x), None if absent."""
    values = centroid_values(coordinates_mm, truth, classes)
    return {name: _point(values[value - 1]) for value, name in organs.items()}


def _point(row: Sequence[float] | NDArray[np.float64]) -> tuple[float, float, float] | None:
    x, y, z = (float(value) for value in row)
    return None if np.isnan(x) else (x, y, z)


def _number(value: float) -> float | None:
    """None for NaN, which is not valid JSON."""
    return None if np.isnan(value) else float(value)
