"""Labelled scans for training: found in a folder, brought to the model's grid once, cut into augmented patches."""

from __future__ import annotations

import json
from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..errors import DiffusionSegmentError, ErrorCode
from ..pipeline.description import ModelDescription
from ..pipeline.prepare import windowed
from ..volume import Grid, Volume, model_grid
from ..volume_io import read_volume

_SUFFIXES = (".nii.gz", ".nii", ".nrrd", ".mha")


@dataclass(frozen=True)
class CaseFiles:
    """One scan and its label map on disk."""

    name: str
    image: Path
    label: Path


@dataclass
class Case:
    """One scan on the model's grid: image (z, y, x) in -1..1, labels uint8, body coordinates (3, z, y, x) if known."""

    name: str
    image: NDArray[np.float32]
    labels: NDArray[np.uint8]
    grid: Grid
    coordinates: NDArray[np.float32] | None = None


def find_cases(folder: Path, *, part: str = "train") -> list[CaseFiles]:
    """Cases of `folder`/images and /labels; those named under `part` where a splits.json lies in or above the folder.

    Raises:
        DiffusionSegmentError: TRAINING_DATA when there are no images or a label map is missing.
    """
    images = sorted(p for p in (folder / "images").glob("*") if p.name.endswith(_SUFFIXES))
    names = _split(folder, part)
    found = []
    for image in images:
        name = _stem(image)
        if names is not None and name not in names:
            continue
        label = next((p for s in _SUFFIXES if (p := folder / "labels" / f"{name}{s}").is_file()), None)
        if label is None:
            raise DiffusionSegmentError(
                ErrorCode.TRAINING_DATA, f"Case {name} has no label map.", hint=f"Put one into {folder / 'labels'}."
            )
        found.append(CaseFiles(name, image, label))
    if not found:
        raise DiffusionSegmentError(
            ErrorCode.TRAINING_DATA,
            f"There are no {part} cases in {folder}.",
            hint="It needs a folder 'images' and a folder 'labels' with files of the same names.",
        )
    return found


def _stem(path: Path) -> str:
    suffix = next(s for s in _SUFFIXES if path.name.endswith(s))
    return path.name[: -len(suffix)]


def _split(folder: Path, part: str) -> set[str] | None:
    for place in (folder, folder.resolve().parent):
        path = place / "splits.json"
        if path.is_file():
            splits = json.loads(path.read_text(encoding="utf-8"))
            splits = splits.get(folder.resolve().name, splits)
            if part in splits:
                return set(splits[part])
    return None


def load_case(files: CaseFiles, description: ModelDescription) -> Case:
    """Read one case and resample it to the model's grid.

    Raises:
        DiffusionSegmentError: TRAINING_DATA for different geometries, an unknown label value or an empty label map.
    """
    image, label = read_volume(files.image), read_volume(files.label)
    _check_pair(files.name, image, label, description)
    grid = model_grid(image, spacing=description.spacing_mm)
    return Case(
        name=files.name,
        image=windowed(grid.to_grid(image.array), description.window),
        labels=grid.labels_to_grid(label.array),
        grid=grid,
    )


def _check_pair(name: str, image: Volume, label: Volume, description: ModelDescription) -> None:
    def fail(message: str, hint: str) -> DiffusionSegmentError:
        return DiffusionSegmentError(ErrorCode.TRAINING_DATA, f"Case {name}: {message}", hint=hint)

    if image.array.shape != label.array.shape or not np.allclose(image.index_to_lps, label.index_to_lps, atol=0.01):
        raise fail("image and label map differ in geometry.", "Resample the label map to the image.")
    values = set(np.unique(label.array).tolist()) - {0}
    unknown = values - {item.value for item in description.labels}
    if unknown:
        raise fail(f"label values {sorted(unknown)} are not in the model file.", "Add them to model.json.")
    if not values:
        raise fail("the label map is empty.", "Leave the case out, or label it.")


def patch_transform(
    *, classes: int, patch: int, patches: int, augment: bool, keys: Sequence[str] = ("image", "coordinates")
) -> Any:
    """MONAI transform from a cached case to a list of class-balanced, augmented patches."""
    from monai.transforms import (
        Compose,
        RandAdjustContrastd,
        RandAffined,
        RandCropByLabelClassesd,
        RandGaussianNoised,
        RandGaussianSmoothd,
        RandScaleIntensityd,
        RandShiftIntensityd,
    )

    spatial: list[Hashable] = [*keys, "labels"]
    size = (patch, patch, patch)
    steps: list[Any] = [
        RandCropByLabelClassesd(
            spatial,
            label_key="labels",
            spatial_size=size,
            num_classes=classes,
            num_samples=patches,
            indices_key="class_indices",
            allow_smaller=True,
            warn=False,
            ratios=[1.0] * classes,
        )
    ]
    if augment:
        steps += [
            RandAffined(
                spatial,
                prob=0.5,
                rotate_range=(0.15, 0.1, 0.1),
                scale_range=(0.15, 0.15, 0.15),
                spatial_size=size,
                mode=["bilinear"] * len(keys) + ["nearest"],
                padding_mode="border",
                cache_grid=True,
            ),
            RandScaleIntensityd(["image"], factors=0.2, prob=0.5),
            RandShiftIntensityd(["image"], offsets=0.15, prob=0.5),
            RandAdjustContrastd(["image"], prob=0.2, gamma=(0.7, 1.4), retain_stats=False),
            RandGaussianSmoothd(["image"], prob=0.15, sigma_x=(0.3, 0.8), sigma_y=(0.3, 0.8), sigma_z=(0.3, 0.8)),
            RandGaussianNoised(["image"], prob=0.3, std=0.08),
        ]
    return Compose(steps)
