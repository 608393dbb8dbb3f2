"""Contrastive voxel pretraining similar to vox2vec (Goncharov et al. 2023), a baseline for diffusion features.

InfoNCE on the descriptors of voxels in two overlapping crops of a scan, with negatives from both views. Coordinates are
not used, because they alone would solve the task.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
import torch.nn.functional as F
from monai.transforms import Compose, RandAdjustContrast, RandGaussianNoise, RandGaussianSmooth, RandScaleIntensity
from monai.utils import convert_to_tensor
from torch import Tensor, nn

from ..datasets.labelled_cases import TISSUE_THRESHOLD, Case
from ..networks.backbone import Backbone, descriptors_at

_TEMPERATURE = 0.1
_PROJECTED = 128
_PAIRS = 1024


class ContrastiveObjective(nn.Module):
    """Backbone and projector; `forward` takes two crops and the voxels that they share."""

    def __init__(self, backbone: Backbone) -> None:
        super().__init__()
        self.backbone = backbone
        width = sum(backbone.channels)
        self.projector = nn.Sequential(
            nn.Linear(width, width), nn.LayerNorm(width), nn.ReLU(), nn.Linear(width, _PROJECTED)
        )

    def forward(self, crops: Tensor, voxels: Tensor) -> dict[str, Tensor]:
        """Crops (2, 1, z, y, x) in -1..1, indices of the N shared voxels in each crop (2, N, 3) -> losses."""
        blank = crops.new_zeros((2, 3, *crops.shape[2:]))
        pyramid = self.backbone.features(crops, blank)
        views = [
            F.normalize(self.projector(descriptors_at([level[n : n + 1] for level in pyramid], voxels[n])).float())
            for n in range(2)
        ]
        return {"info_nce": info_nce(views[0], views[1])}


def info_nce(first: Tensor, second: Tensor, *, temperature: float = _TEMPERATURE) -> Tensor:
    """Symmetric InfoNCE of normalised descriptors (N, d) of the same voxels in two views."""
    joined = torch.cat([first, second])
    similarity = joined @ joined.T / temperature
    similarity = similarity.masked_fill(torch.eye(len(joined), dtype=torch.bool, device=joined.device), -torch.inf)
    partner = torch.arange(len(joined), device=joined.device).roll(len(first))
    return F.cross_entropy(similarity, partner)


def crop_pairs(cases: Sequence[Case], *, patch: int, seed: int) -> Iterator[tuple[Tensor, Tensor]]:
    """Infinite iterator over two crops (2, 1, patch, patch, patch) of a scan and up to 1024 shared voxels (2, N, 3)."""
    generator = torch.Generator().manual_seed(seed)
    intensity = Compose(
        [
            RandScaleIntensity(factors=0.2, prob=0.8),
            RandAdjustContrast(prob=0.5, gamma=(0.6, 1.6)),
            RandGaussianSmooth((0.4, 1.0), (0.4, 1.0), (0.4, 1.0), prob=0.5),
            RandGaussianNoise(prob=0.5, std=0.08),
        ]
    ).set_random_state(seed=seed)
    while True:
        case = cases[int(torch.randint(len(cases), (), generator=generator))]
        image = torch.from_numpy(case.image)
        image = F.pad(image, [a for n in reversed(image.shape) for a in (0, max(0, patch - n))], value=-1.0)
        starts = _overlapping_starts(image.shape, patch, generator)
        low, high = starts.amax(dim=0), starts.amin(dim=0) + patch
        shared = image[tuple(slice(int(a), int(b)) for a, b in zip(low, high, strict=True))]
        body = (shared > TISSUE_THRESHOLD).nonzero()
        if len(body) < 2:
            continue
        chosen = body[torch.randperm(len(body), generator=generator)[:_PAIRS]] + low
        crops = [
            convert_to_tensor(
                intensity(image[tuple(slice(int(a), int(a) + patch) for a in start)][None].clone()), track_meta=False
            )
            for start in starts
        ]
        yield torch.stack(crops), torch.stack([chosen - start for start in starts])


def _overlapping_starts(size: Sequence[int], patch: int, generator: torch.Generator) -> Tensor:
    """First voxels (2, 3) of two crops that overlap by at least half a side."""
    first = torch.tensor([int(torch.randint(n - patch + 1, (), generator=generator)) for n in size])
    shift = torch.randint(-(patch // 2), patch // 2 + 1, (3,), generator=generator)
    second = torch.minimum((first + shift).clamp(min=0), torch.tensor(list(size)) - patch)
    return torch.stack([first, second])
