"""Audit network: from a scan and the mask of one organ, where the mask is wrong.

It knows no classes: any structure of any segmenter can be audited, also one that no network here was trained on. Its
input follows SegQC (Specktor-Fadida et al. 2024, arXiv 2411.07601), a U-Net of scan and mask.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from DiffusionSegmentBackend.networks.space_to_depth import depth_to_space, space_to_depth
from DiffusionSegmentBackend.networks.unet import PyramidUNet
from torch import Tensor, nn

# Signed distances beyond this are cut off, in mm.
MAX_DISTANCE_MM = 30.0
AUDIT_CHANNELS = (24, 48, 80)
_INPUTS = 4
# The finest level of the U-Net has half the resolution: a third of the time of one at full resolution.
_STRIDE = (2, 2, 2)
_SUB_VOXELS = 8


class AuditNetwork(nn.Module):
    """Logit, for every voxel, that the mask is wrong there: inside it should be removed, outside added.

    Input channels are those of `audit_input`; every side must be a multiple of `multiple`.
    """

    def __init__(self, channels: Sequence[int] = AUDIT_CHANNELS) -> None:
        super().__init__()
        self.multiple = 2 ** len(channels)
        self.unet = PyramidUNet(_SUB_VOXELS * _INPUTS, channels, timed=False)
        self.fine = nn.Conv3d(channels[0], _SUB_VOXELS, 1)
        self.coarse = nn.ModuleList(nn.Conv3d(width, 1, 1) for width in channels[1:])

    def forward(self, inputs: Tensor) -> Tensor:
        """(B, 4, z, y, x) -> logits (B, 1, z, y, x), float32; the heads of all levels are added."""
        pyramid = self.unet(space_to_depth(inputs, _STRIDE).contiguous(memory_format=torch.channels_last_3d))
        total = depth_to_space(self.fine(pyramid[0]).float(), _STRIDE)
        for head, features in zip(self.coarse, pyramid[1:], strict=True):
            logits = head(features).float()
            total = total + F.interpolate(logits, size=total.shape[2:], mode="trilinear", align_corners=False)
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
