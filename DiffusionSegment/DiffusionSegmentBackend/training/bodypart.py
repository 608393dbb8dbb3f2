"""Training of the body-part regressor: supervised by organ positions, self-supervised by distances and invariance.

The losses "distance" and "invariance" follow anatomical positional embeddings (Goncharov et al. 2024, arXiv
2409.10291): in two crops of one scan, differences of predicted coordinates must equal the distances of the voxels, and
the predictions of both crops must agree. The loss "frame" is the error in the common frame of `body_frame`; it is not
used for scans without labels.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from monai.transforms import (
    Compose,
    RandAdjustContrast,
    RandGaussianNoise,
    RandGaussianSmooth,
    RandScaleIntensity,
    RandShiftIntensity,
)
from monai.utils import convert_to_tensor
from numpy.typing import NDArray
from torch import Tensor

from ..datasets.labelled_cases import Case
from ..networks.bodypart import COORDINATE_SCALE_MM, BodyPartRegressor
from ..pipeline.prepare import BODY_THRESHOLD
from ..schema.model_manifest import ModelLabel
from .body_frame import FrameMap, fit_body_frame, fit_to_frame, organ_centroids
from .loop import Budget, StepCallback, Training

_MIN_SIDE = 48
_SAMPLED_VOXELS = 512


@dataclass(frozen=True)
class Scan:
    """A scan: image (1, z, y, x), coordinates (3, z, y, x) in mm.

    `tied` is whether the coordinates are those of the body frame; otherwise only their differences are used.
    """

    image: Tensor
    coordinates: Tensor
    tied: bool = True


def train_bodypart(
    groups: Sequence[Sequence[Scan]],
    *,
    budget: Budget,
    folder: Path,
    resume: bool = False,
    start: BodyPartRegressor | None = None,
    report: StepCallback | None = None,
) -> BodyPartRegressor:
    """Train on groups of scans, which are sampled with equal probability.

    Args:
        groups: Groups of scans.
        budget: Length and optimiser settings.
        folder: Receives checkpoint and log.
        resume: Continue from the checkpoint in `folder`.
        start: Initial weights, random by default.
        report: Called after every step instead of showing a progress bar.

    Returns:
        The moving average of the network, in evaluation mode.
    """
    network = start.requires_grad_(True) if start is not None else BodyPartRegressor()
    network.to(memory_format=torch.channels_last_3d)  # type: ignore[call-overload]
    training = Training(network, budget, folder, resume=resume)
    generator = torch.Generator().manual_seed(budget.seed + training.step)
    intensity = _intensity(budget.seed + training.step)

    def losses(_: float) -> dict[str, Tensor]:
        group = groups[int(torch.randint(len(groups), (), generator=generator))]
        scan = group[int(torch.randint(len(group), (), generator=generator))]
        return _losses(network, scan, generator, intensity, budget)

    return training.run(losses, title="body-part regressor", report=report)


def body_frame(cases: Sequence[Case], labels: Sequence[ModelLabel]) -> NDArray[np.float64]:
    """Position of each organ in the body frame (organs, 3) in mm, from model.json or fitted to these cases.

    NaN for an organ that is in no case. Cases with a single organ are not used in the fit unless there are no others.
    """
    if all(label.body_mm is not None for label in labels):
        return np.array([label.body_mm for label in labels], dtype=float)
    centroids = [organ_centroids(case, len(labels) + 1) for case in cases]
    usable = [own for own in centroids if np.isfinite(own).all(axis=1).sum() > 1]
    return fit_body_frame(usable or centroids)[1]


def framed_scans(cases: Sequence[Case], labels: Sequence[ModelLabel]) -> list[Scan]:
    """Scans with coordinates in the frame of `body_frame`, from their organs; untied for cases without organs."""
    centroids = [organ_centroids(case, len(labels) + 1) for case in cases]
    maps = fit_to_frame(centroids, body_frame(cases, labels))
    return [_scan(case, frame) for case, frame in zip(cases, maps, strict=True)]


def free_scans(cases: Sequence[Case]) -> list[Scan]:
    """Scans without labels, with untied LPS coordinates."""
    return [_scan(case, FrameMap(np.ones(3), np.full(3, np.nan))) for case in cases]


def _scan(case: Case, frame: FrameMap) -> Scan:
    indices = np.stack(np.meshgrid(*[np.arange(n) for n in case.image.shape], indexing="ij"), axis=-1)
    tied = bool(np.isfinite(frame.shift).all())
    known = frame if tied else FrameMap(frame.scale, np.zeros(3))
    coordinates = known.coordinates(case.lps(indices)).astype(np.float32)
    return Scan(torch.from_numpy(case.image)[None], torch.from_numpy(coordinates).movedim(-1, 0).contiguous(), tied)


def _intensity(seed: int) -> Compose:
    transform = Compose(
        [
            RandScaleIntensity(factors=0.3, prob=0.8),
            RandShiftIntensity(offsets=0.2, prob=0.8),
            RandAdjustContrast(prob=0.3, gamma=(0.7, 1.5)),
            RandGaussianSmooth((0.5, 1.5), (0.5, 1.5), (0.5, 1.5), prob=0.3),
            RandGaussianNoise(prob=0.5, std=0.1),
        ]
    )
    return transform.set_random_state(seed=seed)


def _losses(
    network: BodyPartRegressor, scan: Scan, generator: torch.Generator, intensity: Compose, budget: Budget
) -> dict[str, Tensor]:
    scan = _zoomed(scan, generator)
    size = scan.image.shape[1:]
    first, second = (_random_box(size, network.multiple, generator) for _ in range(2))
    predictions = [_predict(network, scan, box, intensity, budget) for box in (first, second)]
    target = F.avg_pool3d(scan.coordinates[None], network.stride)[0].to(budget.device)
    body = F.avg_pool3d(scan.image[None], network.stride)[0, 0].to(budget.device) > BODY_THRESHOLD
    frame = torch.stack(
        [
            _frame_loss(p, _cropped(target, box, network.stride), _cropped(body[None], box, network.stride)[0])
            for p, box in zip(predictions, (first, second), strict=True)
        ]
    ).mean() * float(scan.tied)
    common = [(max(a[0], b[0]), min(a[1], b[1])) for a, b in zip(first, second, strict=True)]
    if any(low >= high for low, high in common):
        return {"frame": frame}
    views = [
        _cropped(
            p, [(low - b[0], high - b[0]) for (low, high), b in zip(common, box, strict=True)], network.stride
        ).flatten(1)
        for p, box in zip(predictions, (first, second), strict=True)
    ]
    positions = _cropped(target, common, network.stride).flatten(1)
    inside = _cropped(body[None], common, network.stride).flatten().nonzero().flatten()
    if len(inside) < 2:
        return {"frame": frame}
    chosen = inside[torch.randint(len(inside), (_SAMPLED_VOXELS,), generator=generator).to(inside.device)]
    one, two, true = (t[:, chosen] / COORDINATE_SCALE_MM for t in (views[0], views[1], positions))
    distance = ((one - two.roll(1, dims=1)) - (true - true.roll(1, dims=1))).abs().mean()
    return {"frame": frame, "distance": 0.5 * distance, "invariance": 0.5 * (one - two).abs().mean()}


def _frame_loss(prediction: Tensor, target: Tensor, body: Tensor) -> Tensor:
    error = F.smooth_l1_loss(
        prediction / COORDINATE_SCALE_MM, target / COORDINATE_SCALE_MM, beta=0.05, reduction="none"
    ).mean(dim=0)
    return (error * body).sum() / body.sum().clamp(min=1)


def _predict(
    network: BodyPartRegressor, scan: Scan, box: list[tuple[int, int]], intensity: Compose, budget: Budget
) -> Tensor:
    crop = convert_to_tensor(intensity(_cropped(scan.image, box, 1).clone()), track_meta=False)
    with budget.autocast():
        return network.coarse(crop[None].to(budget.device, memory_format=torch.channels_last_3d))[0].float()


def _zoomed(scan: Scan, generator: torch.Generator) -> Scan:
    """The scan scaled by up to 15 % along each axis, with unchanged body coordinates."""
    factors = [float(f) for f in 0.85 + 0.3 * torch.rand(3, generator=generator)]
    size = [max(_MIN_SIDE, round(n * f)) for n, f in zip(scan.image.shape[1:], factors, strict=True)]
    both = F.interpolate(torch.cat([scan.image, scan.coordinates])[None], size=size, mode="trilinear")[0]
    return Scan(both[:1], both[1:], scan.tied)


def _random_box(size: Sequence[int], multiple: int, generator: torch.Generator) -> list[tuple[int, int]]:
    box = []
    for n in size:
        largest = n // multiple
        smallest = min(largest, _MIN_SIDE // multiple)
        side = multiple * int(torch.randint(smallest, largest + 1, (), generator=generator))
        start = 2 * int(torch.randint(0, (n - side) // 2 + 1, (), generator=generator))
        box.append((start, start + side))
    return box


def _cropped(tensor: Tensor, box: Sequence[tuple[int, int]], stride: int) -> Tensor:
    z, y, x = (slice(low // stride, high // stride) for low, high in box)
    return tensor[:, z, y, x]
