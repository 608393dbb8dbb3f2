"""A batch of labelled CT patches as the augmentations see it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import torch
from torch import Tensor

AIR_HU = -1000.0
Box = tuple[slice, slice, slice]


@dataclass(frozen=True)
class PatchBatch:
    """Patches on one grid, axes along LPS: x to the left, y to the back, z to the head.

    `image` (B, 1, z, y, x) is float32 in HU, true or already clipped to a window. `labels` (B, 1, z, y, x) are
    integers, 0 for background. `spacing_mm` is (z, y, x). `organs` gives the label value of an organ's name; an organ
    that a batch or its label set lacks is left alone.
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
        """Mask (B, 1, z, y, x) bool of an organ; None where the label set does not have it."""
        value = self.organs.get(name)
        return None if value is None else self.labels == value

    def of(self, indices: Tensor) -> PatchBatch:
        """The samples with these indices."""
        return replace(self, image=self.image[indices], labels=self.labels[indices])

    def cut(self, box: Box) -> PatchBatch:
        """The part of the patches in `box` (z, y, x)."""
        return replace(self, image=in_box(self.image, box), labels=in_box(self.labels, box))

    def with_part(self, box: Box, image: Tensor) -> PatchBatch:
        """The batch with other gray values in `box` (z, y, x)."""
        whole = self.image.clone()
        in_box(whole, box).copy_(image)
        return replace(self, image=whole)

    def axis_mm(self, axis: int) -> Tensor:
        """Positions in mm of the voxels along axis 0 (z), 1 (y) or 2 (x), from the patch's middle; (n,)."""
        n = self.shape[axis]
        steps = torch.arange(n, device=self.image.device, dtype=torch.float32)
        return (steps - (n - 1) / 2) * self.spacing_mm[axis]


def in_box(volume: Tensor, box: Box) -> Tensor:
    """The part of a volume (B, C, z, y, x) in `box` (z, y, x)."""
    return volume[(slice(None), slice(None), *box)]


def box_of(mask: Tensor, margin: int = 0) -> Box:
    """The smallest box (z, y, x) around a mask (B, 1, z, y, x) that is not empty, and `margin` voxels more."""
    box = []
    for axis in range(3):
        others = [a for a in range(5) if a != axis + 2]
        found = mask.sum(dim=others).nonzero().flatten()
        box.append(slice(max(0, int(found[0]) - margin), min(mask.shape[axis + 2], int(found[-1]) + 1 + margin)))
    return box[0], box[1], box[2]
