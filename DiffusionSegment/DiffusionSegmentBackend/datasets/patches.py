"""Infinite iterator over batches of augmented patches, prepared by a background process (first generation)."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import torch
from monai.data import DataLoader, Dataset, list_data_collate, set_track_meta
from monai.transforms import map_classes_to_indices
from numpy.typing import NDArray
from torch import Tensor

from ..networks.bodypart import COORDINATE_SCALE_MM
from .augmentation import patch_transform
from .labelled_cases import TISSUE_THRESHOLD, Case

_INDICES_PER_CLASS = 4000


def patch_batches(
    cases: Sequence[Case],
    *,
    classes: int,
    patch: int,
    batch: int,
    augment: bool,
    seed: int,
    workers: int = 1,
    prior: Sequence[NDArray[np.float16]] | None = None,
) -> Iterator[dict[str, Tensor]]:
    """Yield batches of patches.

    Args:
        cases: Cases in memory.
        classes: Number of classes, background included.
        patch: Side of a patch in voxels.
        batch: Patches per batch.
        augment: Whether to augment the patches.
        seed: Seed of positions and augmentation.
        workers: Background processes.
        prior: A map (channels, z, y, x) per case that is transformed together with the image.

    Yields:
        "image" (B, 1, ...), "coordinates" (B, 3, ...) normalised, "labels" (B, 1, ...) long, "drawn" (B, classes) bool
        for the annotated classes, and "prior" (B, channels, ...) if given.
    """
    set_track_meta(False)
    keys = ["image", "coordinates"] + (["prior"] if prior is not None else [])
    items = [_item(case, classes, patch, prior[n] if prior is not None else None) for n, case in enumerate(cases)]
    transform = patch_transform(classes=classes, patch=patch, patches=1, augment=augment, keys=keys)
    transform.set_random_state(seed=seed)
    generator = torch.Generator().manual_seed(seed)
    loader = DataLoader(
        Dataset(items * max(1, 200 // len(items)), transform),
        batch_size=batch,
        shuffle=True,
        num_workers=workers,
        collate_fn=list_data_collate,
        persistent_workers=workers > 0,
        drop_last=True,
        generator=generator,
    )
    while True:
        for item in loader:
            yield {**{key: item[key].float() for key in keys}, "labels": item["labels"].long(), "drawn": item["drawn"]}


def _item(case: Case, classes: int, patch: int, prior: NDArray[np.float16] | None) -> dict[str, object]:
    missing = [(0, max(0, patch - n)) for n in case.image.shape]
    image = np.pad(case.image, missing, constant_values=-1.0)
    labels = np.pad(case.labels, missing)
    coordinates = case.coordinates if case.coordinates is not None else np.zeros((3, *case.image.shape), np.float16)
    scaled = np.pad(coordinates, [(0, 0), *missing], mode="edge")
    scaled /= np.float16(COORDINATE_SCALE_MM)
    item: dict[str, object] = {
        "image": torch.from_numpy(image[None]),
        "coordinates": torch.from_numpy(scaled),
        "labels": torch.from_numpy(labels[None]),
        "drawn": torch.tensor([case.drawn is None or value in case.drawn or value == 0 for value in range(classes)]),
        "class_indices": map_classes_to_indices(
            labels[None],
            num_classes=classes,
            image=image[None],
            image_threshold=TISSUE_THRESHOLD,
            max_samples_per_class=_INDICES_PER_CLASS,
        ),
    }
    if prior is not None:
        item["prior"] = torch.from_numpy(np.pad(prior, [(0, 0), *missing]))
    return item
