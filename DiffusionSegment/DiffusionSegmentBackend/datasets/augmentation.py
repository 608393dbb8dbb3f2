"""MONAI transform of first-generation training: class-balanced crops with spatial and intensity augmentation.

Ranges are wide, as in nnU-Net (Isensee et al. 2021), because few scans are used for many steps. There is no flipping,
as organs are left or right. The second generation uses `patch_sampler` instead, which needs no background process and
also works on a GPU.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from typing import Any

import torch

_CROP_MARGIN = 1.4
_MAX_SHIFT = 0.15


def patch_transform(
    *,
    classes: int,
    patch: int,
    patches: int,
    augment: bool,
    keys: Sequence[str] = ("image", "coordinates"),
) -> Any:
    """Transform from a cached case to a list of class-balanced patches, with augmentation if `augment`."""
    from monai.transforms import CastToTyped, Compose, RandCropByLabelClassesd

    spatial: list[Hashable] = [*keys, "labels"]
    steps = [
        RandCropByLabelClassesd(
            spatial,
            label_key="labels",
            spatial_size=(round(patch * _CROP_MARGIN) if augment else patch,) * 3,
            num_classes=classes,
            num_samples=patches,
            indices_key="class_indices",
            allow_smaller=True,
            warn=False,
            ratios=[1.0] * classes,
        ),
        CastToTyped(keys, dtype=torch.float32),
    ]
    if augment:
        steps += [*_spatial_transforms(keys, patch), *_intensity_transforms()]
    return Compose(steps)


def _spatial_transforms(keys: Sequence[str], patch: int) -> list[Any]:
    from monai.transforms import RandAffined, RandSmoothDeformd

    spatial: list[Hashable] = [*keys, "labels"]
    modes = ["bilinear"] * len(keys) + ["nearest"]
    affine = RandAffined(
        spatial,
        prob=0.9,
        rotate_range=(0.35, 0.25, 0.25),
        scale_range=(0.25, 0.25, 0.25),
        translate_range=(_MAX_SHIFT * patch,) * 3,
        spatial_size=(patch,) * 3,
        mode=modes,
        padding_mode="border",
        cache_grid=True,
    )
    deformation = RandSmoothDeformd(
        spatial,
        spatial_size=(patch,) * 3,
        rand_size=(5, 5, 5),
        pad=1,
        prob=0.3,
        def_range=0.12,
        field_mode="trilinear",
        grid_mode=modes,
    )
    return [affine, deformation]


def _intensity_transforms() -> list[Any]:
    from monai.transforms import (
        RandAdjustContrastd,
        RandCoarseDropoutd,
        RandGaussianNoised,
        RandGaussianSmoothd,
        RandHistogramShiftd,
        RandScaleIntensityd,
        RandShiftIntensityd,
        RandSimulateLowResolutiond,
    )

    image: list[Hashable] = ["image"]
    return [
        RandHistogramShiftd(image, num_control_points=(5, 10), prob=0.3),
        RandScaleIntensityd(image, factors=0.3, prob=0.5),
        RandShiftIntensityd(image, offsets=0.25, prob=0.5),
        RandAdjustContrastd(image, prob=0.3, gamma=(0.6, 1.7), retain_stats=False),
        RandGaussianSmoothd(image, prob=0.2, sigma_x=(0.3, 1.0), sigma_y=(0.3, 1.0), sigma_z=(0.3, 1.0)),
        RandSimulateLowResolutiond(image, prob=0.2, zoom_range=(0.5, 1.0)),
        RandGaussianNoised(image, prob=0.3, std=0.1),
        RandCoarseDropoutd(image, holes=2, max_holes=6, spatial_size=6, max_spatial_size=16, prob=0.3),
    ]
