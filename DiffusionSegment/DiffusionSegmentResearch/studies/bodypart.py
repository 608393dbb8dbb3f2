"""`study bodypart`: body coordinates over patients, their order and invariance, and recognition of body parts."""

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
from DiffusionSegmentBackend.training.session import load_cases
from numpy.typing import NDArray
from torch import Tensor

from .result_file import StudyDescription, StudyResult, StudyRow
from .study import StudyRequest
from .study_data import load_regressor, training_budget

_NOISE_STD = 0.15
_ZOOM = 1.25
_AXES = ("right-left", "anterior-posterior", "inferior-superior")


def study(request: StudyRequest) -> StudyResult:
    """The body-part network of the first model on the validation cases of each model's data folder."""
    regressor = load_regressor(request.description)
    groups: list[tuple[ModelDescription, Sequence[Case]]] = [
        (description, load_cases([folder], description, part="validation"))
        for description, folder in zip(request.descriptions, request.data, strict=True)
    ]
    return StudyResult(
        [*bodypart_rows(regressor, groups), *recognition_rows(regressor, groups)],
        StudyDescription(
            order=10,
            title="Body-part regression",
            question="Do predicted body coordinates agree over patients, and do they tell body parts apart?",
            protocol="Validation cases. Spread: standard deviation over patients of the coordinate at an organ's "
            "centroid, median over organs. Order: body voxels whose coordinate grows over 12 mm along its axis. "
            "Changes: median over body voxels and cases after cutting off a quarter, noise of 30 HU, and 1.25 times "
            "the spacing.",
            budget=training_budget(request.description, "bodypart"),
        ),
    )


def bodypart_rows(
    regressor: BodyPartRegressor, groups: Sequence[tuple[ModelDescription, Sequence[Case]]], *, seed: int = 0
) -> list[StudyRow]:
    """A row per body part and axis: spread, order, and change under crop, noise and spacing, in mm or shares."""
    rows = []
    for description, cases in groups:
        measured = [_measure_case(regressor, case, description.classes, seed) for case in cases]
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
    """For each model: the share of refused scans among its own validation scans and among those of the other models."""
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


def _measure_case(regressor: BodyPartRegressor, case: Case, classes: int, seed: int) -> dict[str, NDArray[np.float64]]:
    image = torch.from_numpy(case.image)
    body = image > BODY_THRESHOLD
    coordinates = whole_volume_coordinates(regressor, image)
    z, y, x = (n // 4 for n in image.shape)
    crop = (slice(z, None), slice(y // 2, None), slice(x // 2, None))
    cropped = whole_volume_coordinates(regressor, image[crop])
    noise = _NOISE_STD * torch.randn(image.shape, generator=torch.Generator().manual_seed(seed))
    noisy = whole_volume_coordinates(regressor, image + noise)
    size = [round(n / _ZOOM) for n in image.shape]
    coarse = F.interpolate(image[None, None], size=size, mode="trilinear")[0, 0]
    coarse_coordinates = whole_volume_coordinates(regressor, coarse)[None]
    resampled = F.interpolate(coarse_coordinates, size=list(image.shape), mode="trilinear")[0]
    return {
        "centroids": centroid_values(coordinates.numpy(), case.labels, classes),
        "order": voxels_in_order(coordinates, body),
        "crop": _change(coordinates[(slice(None), *crop)], cropped, body[crop]),
        "noise": _change(coordinates, noisy, body),
        "spacing": _change(coordinates, resampled, body),
    }


def voxels_in_order(coordinates: Tensor, body: Tensor, *, stride: int = 4) -> NDArray[np.float64]:
    """Share (3,) of body voxels whose coordinate x, y, z increases over `stride` voxels along its own axis."""
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
