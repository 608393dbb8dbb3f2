"""Review of a segmentation from any source: its ensemble with the model, whose arg max is the given segmentation.

The given labels and the model are two opinions on every voxel. With a weight w just above one half of the given one,

    p' = w * one_hot(given) + (1 - w) * p_model

has the given label as its arg max, whatever the model says, and (1 - p'(given)) / (1 - w) = 1 - p_model(given) is the
probability that this label is wrong (`uncertainty.error_probability`). Maps, intervals, regions to review and
corrections are made from p' as they are from the ensemble of a run.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ..errors import DiffusionSegmentError, ErrorCode
from ..imaging.volume import Box, Grid
from .session import GIVEN_WEIGHT, Prediction

_USE_ANOTHER = "Choose the segmentation of this scan."
# Volume of given labels outside the body from which there is a warning.
_MIN_OUTSIDE_ML = 1.0


def check_reviewed(labels: NDArray[np.uint8], shape: Sequence[int], classes: int) -> None:
    """Refuse a segmentation that cannot be reviewed.

    Args:
        labels: label values of the model, 0 background; larger values are other structures.
        shape: that of the scan (k, j, i).
        classes: number of classes of the model, background included.

    Raises:
        DiffusionSegmentError: GEOMETRY for another shape, INPUT_VALUES for a segmentation without any voxel of the
            model's labels, and for one without background.
    """
    if labels.shape != tuple(shape):
        raise DiffusionSegmentError(
            ErrorCode.GEOMETRY,
            f"The segmentation has the shape {labels.shape}, the scan {tuple(shape)}.",
            hint="Resample the segmentation to the scan.",
        )
    if not ((labels > 0) & (labels < classes)).any():
        raise DiffusionSegmentError(
            ErrorCode.INPUT_VALUES,
            "The segmentation is empty: no voxel is one of the model's organs.",
            hint=_USE_ANOTHER,
        )
    if labels.all():
        raise DiffusionSegmentError(
            ErrorCode.INPUT_VALUES,
            "The segmentation covers the whole scan: no voxel is background.",
            hint=_USE_ANOTHER,
        )


def labels_of_model(labels: NDArray[np.uint8], classes: int) -> NDArray[np.uint8]:
    """The labels of the model in a reviewed segmentation, in a new array; other structures become background."""
    return np.where(labels < classes, labels, np.uint8(0))


def reviewed_on_grid(labels: NDArray[np.uint8], grid: Grid, classes: int) -> Tensor:
    """A reviewed segmentation (k, j, i) on the model's grid (z, y, x), uint8; other structures are `classes`."""
    return torch.from_numpy(grid.labels_to_grid(np.minimum(labels, np.uint8(classes))))


def reviewed_prediction(
    prediction: Prediction, probabilities: Tensor, given: Tensor, *, voxel_ml: float, region: Tensor | None = None
) -> Prediction:
    """The ensemble of a given segmentation and a prediction, instead of the prediction's own maps.

    Voxels of other structures and those outside the region of interest are not judged: there the ensemble is certain.

    Args:
        prediction: that of the model alone.
        probabilities: its ensemble (classes, z, y, x) without the organs that were not given; modified in place.
        given: the segmentation on the whole grid (z, y, x), as from `reviewed_on_grid`.
        voxel_ml: volume of a voxel of the grid.
        region: mask (z, y, x) of the region of interest on the whole grid.
    """
    classes = len(probabilities)
    box = _box_of(prediction)
    whole, given = given, given[box]
    warnings = _outside_body(whole, given, classes, voxel_ml) if region is None else ()
    judged = given < classes if region is None else (given < classes) & region[box]
    labels = torch.where(given < classes, given, torch.zeros_like(given))
    ensemble = mix_with_given(probabilities, labels, judged)
    return replace(
        prediction,
        pre=ensemble,
        start=ensemble,
        ensemble=ensemble,
        islands=torch.zeros_like(prediction.islands),
        mutual_information=prediction.mutual_information * judged,
        warnings=(*prediction.warnings, *warnings),
        sample_labels=tuple(torch.where(judged, sample, labels) for sample in prediction.sample_labels),
    )


def _outside_body(whole: Tensor, inside: Tensor, classes: int, voxel_ml: float) -> tuple[str, ...]:
    """A warning of given labels outside the box around the body, where the networks predict nothing."""
    counts = [int(((labels > 0) & (labels < classes)).sum()) for labels in (whole, inside)]
    volume_ml = (counts[0] - counts[1]) * voxel_ml
    if volume_ml < _MIN_OUTSIDE_ML:
        return ()
    return (f"{volume_ml:.1f} mL of the segmentation lie outside the body, where nothing was judged.",)


def mix_with_given(probabilities: Tensor, given: Tensor, judged: Tensor, *, weight: float = GIVEN_WEIGHT) -> Tensor:
    """w * one_hot(given) + (1 - w) * p in the place of p; one_hot(given) where a voxel is not judged.

    Args:
        probabilities: p (classes, z, y, x), modified in place.
        given: labels (z, y, x), uint8.
        judged: mask (z, y, x).
        weight: w.

    Returns:
        The argument `probabilities`.
    """
    # Of a background that is one less the sum of the organs, rounding leaves values just below 0.
    probabilities.clamp_(min=0).mul_((1 - weight) * judged)
    share = torch.where(judged, weight, 1.0).to(probabilities.dtype)
    for value, probability in enumerate(probabilities):
        probability += share * (given == value)
    return probabilities


def relabelled(ensemble: Tensor, labels: Tensor, *, weight: float = GIVEN_WEIGHT) -> Tensor:
    """The ensemble (classes, z, y, x) of `mix_with_given` as if other labels (z, y, x) had been given.

    A correction changes which labels are given, not what the model says of them: where it moves a label to the one that
    the model has too, that voxel is certain. Voxels that keep their label are bit-identical.
    """
    before, result = ensemble.argmax(dim=0), ensemble.clone()
    for value, probability in enumerate(result):
        probability += weight * ((labels == value).float() - (before == value).float())
    return result


def _box_of(prediction: Prediction) -> Box:
    z, y, x = (slice(o, o + n) for o, n in zip(prediction.offset, prediction.ensemble.shape[1:], strict=True))
    return z, y, x
