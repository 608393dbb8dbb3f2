"""A batch of labelled CT patches, the input of all augmentations."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from ...imaging.volume import Box

AIR_HU = -1000.0


@dataclass(frozen=True)
class PatchBatch:
    """Patches on one grid, axes along LPS: x to the left, y to the back, z to the head.

    Attributes:
        image: (B, 1, z, y, x) float32 in HU, possibly clipped to a window.
        labels: (B, 1, z, y, x) integers, 0 for background.
        spacing_mm: Along z, y, x.
        organs: Label value by the name of the organ; organs that are missing here are not changed.
    """

    image: Tensor
    labels: Tensor
    spacing_mm: tuple[float, float, float]
    organs: Mapping[str, int]

    @property
    def shape(self) -> tuple[int, int, int]:
        """Voxels along z, y, x."""
        return self.image.shape[2], self.image.shape[3], self.image.shape[4]

    def organ(self, name: str) -> Tensor | None:
        """Mask (B, 1, z, y, x) bool of an organ; None if the label set does not have it."""
        value = self.organs.get(name)
        return None if value is None else self.labels == value

    def of(self, indices: Tensor) -> PatchBatch:
        """The samples with these indices."""
        return replace(self, image=self.image[indices], labels=self.labels[indices])

    def cut(self, box: Box) -> PatchBatch:
        """The patches cropped to `box` (z, y, x)."""
        return replace(self, image=in_box(self.image, box), labels=in_box(self.labels, box))

    def with_part(self, box: Box, image: Tensor) -> PatchBatch:
        """The batch with other intensities in `box` (z, y, x)."""
        whole = self.image.clone()
        in_box(whole, box).copy_(image)
        return replace(self, image=whole)

    def axis_mm(self, axis: int) -> Tensor:
        """Positions (n,) in mm of the voxels along axis 0 (z), 1 (y) or 2 (x), relative to the centre of the patch."""
        n = self.shape[axis]
        steps = torch.arange(n, device=self.image.device, dtype=torch.float32)
        return (steps - (n - 1) / 2) * self.spacing_mm[axis]


def in_box(volume: Tensor, box: Box) -> Tensor:
    """A view of the volume (B, C, z, y, x) in `box` (z, y, x)."""
    return volume[(slice(None), slice(None), *box)]


def box_of(mask: Tensor, margin: int = 0) -> Box:
    """The bounding box (z, y, x) of a non-empty mask (B, 1, z, y, x), enlarged by `margin` voxels."""
    box = []
    for axis in range(3):
        others = [a for a in range(5) if a != axis + 2]
        indices = mask.sum(dim=others).nonzero().flatten()
        box.append(slice(max(0, int(indices[0]) - margin), min(mask.shape[axis + 2], int(indices[-1]) + 1 + margin)))
    return box[0], box[1], box[2]
