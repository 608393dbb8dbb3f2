"""Body-part regressor: for every voxel its coordinates in a common body frame, in mm.

Axes are those of LPS. Follows anatomical positional embeddings (Goncharov et al. 2024, arXiv 2409.10291) with a small
U-Net on a coarse grid.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .unet import PyramidUNet

COORDINATE_SCALE_MM = 100.0


class BodyPartRegressor(nn.Module):
    """Dense body coordinates at `stride` times the model's spacing, interpolated back to its grid.

    The predictions of all decoder levels are added: group norm removes the mean of a feature over the scan, which the
    coarse levels with many channels per group keep better than the finest.
    """

    def __init__(self, channels: Sequence[int] = (16, 32, 64, 96), stride: int = 2) -> None:
        super().__init__()
        self.stride = stride
        self.multiple = stride * 2 ** (len(channels) - 1)
        self.unet = PyramidUNet(1, channels, timed=False)
        self.heads = nn.ModuleList(nn.Conv3d(width, 3, 1) for width in channels)

    def coarse(self, image: Tensor) -> Tensor:
        """Image (B, 1, z, y, x) in -1..1, sides multiples of `multiple` -> mm (B, 3, z/stride, y/stride, x/stride)."""
        pyramid = self.unet(F.avg_pool3d(image, self.stride))
        total: Tensor = self.heads[0](pyramid[0]).float()
        for head, features in zip(self.heads[1:], pyramid[1:], strict=True):
            total = total + F.interpolate(
                head(features).float(), size=total.shape[2:], mode="trilinear", align_corners=False
            )
        return total * COORDINATE_SCALE_MM

    def forward(self, image: Tensor) -> Tensor:
        """Image (B, 1, z, y, x) in -1..1 of any size -> body coordinates in mm (B, 3, z, y, x)."""
        size = image.shape[2:]
        padding = [amount for n in reversed(size) for amount in (0, -n % self.multiple)]
        if max(size) <= self.multiple:
            # Avoid a coarsest level of a single voxel, whose variance is zero in group norm.
            padding[-1] += self.multiple
        padded = F.pad(image, padding, value=-1.0)
        fine = F.interpolate(self.coarse(padded), size=padded.shape[2:], mode="trilinear", align_corners=False)
        return fine[:, :, : size[0], : size[1], : size[2]]


def normalised(coordinates_mm: Tensor) -> Tensor:
    """Body coordinates as network input: mm / 100."""
    return coordinates_mm / COORDINATE_SCALE_MM


def whole_volume_coordinates(regressor: BodyPartRegressor, image: Tensor) -> Tensor:
    """Coordinates in mm (3, z, y, x) of a whole scan (z, y, x) in -1..1, in one pass."""
    with torch.inference_mode():
        coordinates: Tensor = regressor(image[None, None])
    return coordinates[0]
