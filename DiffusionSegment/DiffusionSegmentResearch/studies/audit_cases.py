"""Segmentations to audit: what a model found in labelled cases, on voxels as the audit network was trained on."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from DiffusionSegmentBackend.datasets.labelled_cases import Case
from DiffusionSegmentBackend.imaging.balls import Spacing
from DiffusionSegmentBackend.models.model import Model
from numpy.typing import NDArray

from .validation_review import predicted_map

AUDIT_SPACING: Spacing = (3.0, 3.0, 3.0)


@dataclass(frozen=True, kw_only=True)
class AuditCase:
    """A segmentation of a labelled scan; arrays (z, y, x).

    Attributes:
        name: of the case.
        image: in -1..1.
        labels: the segmentation.
        truth: the expert's label map.
        doubt: the segmenter's own, 1 minus the probability of its label.
        organs: label values that the expert has drawn; both maps show no others.
        spacing: mm along z, y, x.
    """

    name: str
    image: NDArray[np.float32]
    labels: NDArray[np.uint8]
    truth: NDArray[np.uint8]
    doubt: NDArray[np.float32]
    organs: tuple[int, ...]
    spacing: Spacing = AUDIT_SPACING


def predicted_case(case: Case, model: Model) -> AuditCase:
    """A run with the defaults, on voxels of 3 mm."""
    found = predicted_map(case, model)
    values = [label.value for label in model.description.labels]
    organs = tuple(value for value in values if case.drawn is None or value in case.drawn)
    return AuditCase(
        name=case.name,
        image=_averaged(found.image, found.spacing),
        labels=_nearest(_only(found.probabilities.argmax(axis=0).astype(np.uint8), organs), found.spacing),
        truth=_nearest(_only(found.truth, organs), found.spacing),
        doubt=_averaged(1.0 - found.probabilities.max(axis=0), found.spacing),
        organs=organs,
    )


def _only(labels: NDArray[np.uint8], organs: tuple[int, ...]) -> NDArray[np.uint8]:
    return np.where(np.isin(labels, organs), labels, np.uint8(0))


def _sides(shape: tuple[int, ...], spacing: Spacing) -> list[int]:
    """Voxels of 3 mm that cover as much."""
    return [max(1, round(n * mm / audit)) for n, mm, audit in zip(shape, spacing, AUDIT_SPACING, strict=True)]


def _averaged(values: NDArray[np.float32], spacing: Spacing) -> NDArray[np.float32]:
    tensor = torch.from_numpy(np.ascontiguousarray(values))[None, None]
    result: NDArray[np.float32] = F.interpolate(tensor, size=_sides(values.shape, spacing), mode="area")[0, 0].numpy()
    return result


def _nearest(labels: NDArray[np.uint8], spacing: Spacing) -> NDArray[np.uint8]:
    tensor = torch.from_numpy(np.ascontiguousarray(labels))[None, None]
    sides = _sides(labels.shape, spacing)
    result: NDArray[np.uint8] = F.interpolate(tensor, size=sides, mode="nearest-exact")[0, 0].numpy()
    return result
