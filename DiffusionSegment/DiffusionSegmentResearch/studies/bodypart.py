"""Body coordinates: agreement over patients, order along each axis, invariance, and telling body parts apart."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
import torch.nn.functional as F
from DiffusionSegmentBackend.datasets.labelled_cases import Case
from DiffusionSegmentBackend.metrics.overlap import centroid_values
from DiffusionSegmentBackend.models.manifest import ModelDescription
from DiffusionSegmentBackend.networks.bodypart import BodyPartRegressor, whole_volume_coordinates
from DiffusionSegmentBackend.pipeline.checks import Verdict, judge_body_part, share_in_reach
from DiffusionSegmentBackend.pipeline.prepare import BODY_THRESHOLD
from numpy.typing import NDArray
from torch import Tensor

from .result_file import StudyRow

_NOISE_STD = 0.15
_ZOOM = 1.25
_AXES = ("right-left", "anterior-posterior", "inferior-superior")


def bodypart_rows(
    regressor: BodyPartRegressor, groups: Sequence[tuple[ModelDescription, Sequence[Case]]], *, seed: int = 0
) -> list[StudyRow]:
    """A row a body part and axis: spread, order, and change under crop, noise and spacing, all in mm or shares."""
    rows = []
    for description, cases in groups:
        measured = [_case(regressor, case, description.classes, seed) for case in cases]
        spread = np.nanmedian(np.nanstd(np.stack([m["centroids"] for m in measured]), axis=0, ddof=1), axis=0)
        for axis, name in enumerate(_AXES):
            numbers = {
                "cases": float(len(cases)),
                "spread at centroids, mm": float(spread[axis]),
                "voxels in order": float(np.mean([m["order"][axis] for m in measured])),
                "change by crop, mm": float(np.median([m["crop"][axis] for m in measured])),
                "change by noise, mm": float(np.median([m["noise"][axis] for m in measured])),
                "change by spacing, mm": float(np.median([m["spacing"][axis] for m in measured])),
            }
            rows.append(StudyRow(f"{description.name}, {name}", numbers={k: round(v, 3) for k, v in numbers.items()}))
    return rows


def recognition_rows(
    regressor: BodyPartRegressor, groups: Sequence[tuple[ModelDescription, Sequence[Case]]]
) -> list[StudyRow]:
    """For each model: share of its own validation scans refused as another body part, and of the others' scans."""
    located = [
        (description, [(whole_volume_coordinates(regressor, image), image) for image in _images(cases)])
        for description, cases in groups
    ]
    rows = []
    for own, _ in groups:
        numbers: dict[str, float] = {}
        for other, scans in located:
            refused = [_refused(coordinates, image, own) for coordinates, image in scans]
            name = "own scans refused (false alarms)" if other is own else "scans of other body parts refused"
            numbers[name] = round(float(np.mean(refused)), 4)
            numbers["own scans" if other is own else "other scans"] = float(len(scans))
        rows.append(StudyRow(f"{own.name}, recognition", numbers=numbers))
    return rows


def _images(cases: Sequence[Case]) -> list[Tensor]:
    return [torch.from_numpy(case.image) for case in cases]


def _refused(coordinates: Tensor, image: Tensor, description: ModelDescription) -> bool:
    share = share_in_reach(coordinates, image, description.anatomy.body_z_mm)
    return judge_body_part(share, description).verdict is Verdict.REFUSE


def _case(regressor: BodyPartRegressor, case: Case, classes: int, seed: int) -> dict[str, NDArray[np.float64]]:
    image = torch.from_numpy(case.image)
    body = image > BODY_THRESHOLD
    found = whole_volume_coordinates(regressor, image)
    z, y, x = (n // 4 for n in image.shape)
    place = (slice(z, None), slice(y // 2, None), slice(x // 2, None))
    cropped = whole_volume_coordinates(regressor, image[place])
    noise = _NOISE_STD * torch.randn(image.shape, generator=torch.Generator().manual_seed(seed))
    noisy = whole_volume_coordinates(regressor, image + noise)
    size = [round(n / _ZOOM) for n in image.shape]
    coarse = F.interpolate(image[None, None], size=size, mode="trilinear")[0, 0]
    other = F.interpolate(whole_volume_coordinates(regressor, coarse)[None], size=list(image.shape), mode="trilinear")[
        0
    ]
    return {
        "centroids": centroid_values(found.numpy(), case.labels, classes),
        "order": voxels_in_order(found, body),
        "crop": _change(found[(slice(None), *place)], cropped, body[place]),
        "noise": _change(found, noisy, body),
        "spacing": _change(found, other, body),
    }


def voxels_in_order(coordinates: Tensor, body: Tensor, *, stride: int = 4) -> NDArray[np.float64]:
    """Share of body voxels whose coordinate grows over `stride` voxels along its own axis; (3,) for x, y, z."""
    shares = []
    for channel, axis in ((0, 2), (1, 1), (2, 0)):
        ahead = coordinates[channel].narrow(axis, stride, coordinates.shape[axis + 1] - stride)
        behind = coordinates[channel].narrow(axis, 0, ahead.shape[axis])
        both = body.narrow(axis, stride, ahead.shape[axis]) & body.narrow(axis, 0, ahead.shape[axis])
        shares.append(float((ahead > behind)[both].float().mean()))
    return np.array(shares)


def _change(first: Tensor, second: Tensor, body: Tensor) -> NDArray[np.float64]:
    difference = (first - second).abs()[:, body]
    return difference.median(dim=1).values.double().numpy()
