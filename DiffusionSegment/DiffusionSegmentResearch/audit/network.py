"""Audit network: from a scan and the mask of one organ, where the mask is wrong.

It knows no classes: any structure of any segmenter can be audited, also one that no network here was trained on. Its
input follows SegQC (Specktor-Fadida et al. 2024, arXiv 2411.07601), a U-Net of scan and mask.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from DiffusionSegmentBackend.networks.unet import PyramidUNet
from torch import Tensor, nn

# Signed distances beyond this are cut off, in mm.
MAX_DISTANCE_MM = 30.0
AUDIT_CHANNELS = (8, 24, 48, 80)
_INPUTS = 4


class AuditNetwork(nn.Module):
    """Logit, for every voxel, that the mask is wrong there: inside it should be removed, outside added.

    Input channels are those of `audit_input`; every side must be a multiple of `multiple`.
    """

    def __init__(self, channels: Sequence[int] = AUDIT_CHANNELS) -> None:
        super().__init__()
        self.multiple = 2 ** (len(channels) - 1)
        self.unet = PyramidUNet(_INPUTS, channels, timed=False)
        self.heads = nn.ModuleList(nn.Conv3d(width, 1, 1) for width in channels)

    def forward(self, inputs: Tensor) -> Tensor:
        """(B, 4, z, y, x) -> logits (B, 1, z, y, x), float32; the heads of all levels are added."""
        pyramid = self.unet(inputs)
        total: Tensor = self.heads[0](pyramid[0]).float()
        for head, features in zip(self.heads[1:], pyramid[1:], strict=True):
            total = total + F.interpolate(
                head(features).float(), size=total.shape[2:], mode="trilinear", align_corners=False
            )
        return total


def audit_input(image: Tensor, distance_mm: Tensor, others: Tensor) -> Tensor:
    """The input of the network (4, z, y, x): image, mask, signed distance / 30 mm, and the masks of other organs.

    Args:
        image: (z, y, x) in -1..1.
        distance_mm: signed distance of every voxel to the surface of the mask, positive inside.
        others: (z, y, x), whether a voxel belongs to another organ of the segmentation.
    """
    distance = (distance_mm / MAX_DISTANCE_MM).clamp(-1, 1)
    return torch.stack([image, (distance_mm > 0).to(image.dtype), distance, others.to(image.dtype)])
