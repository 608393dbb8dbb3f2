"""Augmented patches from volumes in memory, each resampled once and reproducible from seed and index.

Patch n of a seed does not depend on the patches drawn before it, so that a resumed training continues exactly and
trainings can be compared on the same crops. There is no flipping, as organs are left or right.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import torch
import torch.nn.functional as F
from torch import Tensor

from ..errors import DiffusionSegmentError, ErrorCode
from ..models.manifest import ModelDescription
from ..networks.bodypart import normalised
from .appearance import changed_appearance
from .augmentations import HospitalAugmentation, PatchBatch
from .cutmix import CutMix, paste
from .patch_geometry import PatchShape, displaced, random_transform, read
from .volumes import TrainingVolume, window_values

_BODY_PROBABILITY = 0.15
_SEED_STRIDE = 1_000_003


@dataclass(frozen=True)
class TrainingSet:
    """Volumes with the same annotated organs, and their relative share of the patches."""

    volumes: Sequence[TrainingVolume]
    share: float = 1.0


@dataclass(frozen=True, kw_only=True)
class Augmentation:
    """Augmentation of patches.

    Attributes:
        move: Rotation, scaling, translation and elastic deformation.
        appearance: Intensity augmentation of any modality (`changed_appearance`).
        hospital: Augmentation of CT (contrast phase, gas, pathology, ...), applied before `appearance`.
        organs: Label value by the name of the organ, for `hospital`.
        cutmix: CutMix at equal body coordinates; None for none.
    """

    move: bool = True
    appearance: bool = True
    hospital: HospitalAugmentation | None = None
    organs: Mapping[str, int] = field(default_factory=dict)
    cutmix: CutMix | None = None


NO_AUGMENTATION = Augmentation(move=False, appearance=False)


def augmentation_for(description: ModelDescription) -> Augmentation:
    """The default augmentation of a model; `HospitalAugmentation` needs HU and is for CT only."""
    if not description.in_hounsfield:
        return Augmentation()
    organs = {label.name: label.value for label in description.labels}
    return Augmentation(hospital=HospitalAugmentation(window_hu=description.nominal_window), organs=organs)


@dataclass(frozen=True)
class Patches:
    """A batch on one device.

    Attributes:
        image: (B, 1, Z, Y, X) float32 in -1..1.
        coordinates: (B, 3, z, y, x) float32 on the trunk's grid, normalised.
        labels: (B, 1, Z, Y, X) uint8.
        drawn: (B, classes) bool.
    """

    image: Tensor
    coordinates: Tensor
    labels: Tensor
    drawn: Tensor

    def __len__(self) -> int:
        return len(self.image)

    def samples(self, indices: Sequence[int]) -> Patches:
        """The patches with these indices."""
        n = list(indices)
        return Patches(self.image[n], self.coordinates[n], self.labels[n], self.drawn[n])


class PatchSampler:
    """Draws patches centred on voxels of all classes equally often, and a share of them anywhere in the body.

    Args:
        sets: Volumes, grouped by annotated organs.
        shape: Size of a patch.
        window: `nominal_window` of the model: HU of a CT, an arbitrary range for other modalities.
        augmentation: Augmentation of every patch.
        seed: Determines all patches.
        device: Device of the volumes and patches.

    Raises:
        DiffusionSegmentError: TRAINING_DATA for a set without volumes, OPTION for `hospital` with another window.
    """

    def __init__(
        self,
        sets: Sequence[TrainingSet],
        *,
        shape: PatchShape,
        window: tuple[float, float],
        augmentation: Augmentation,
        seed: int,
        device: str = "cpu",
    ) -> None:
        if not sets or not all(item.volumes for item in sets):
            raise DiffusionSegmentError(
                ErrorCode.TRAINING_DATA, "There is a set without scans to train on.", hint="Give at least one scan."
            )
        hospital = augmentation.hospital
        if hospital is not None and hospital.window_hu != window:
            raise DiffusionSegmentError(
                ErrorCode.OPTION,
                f"Augmentation for hospitals works on HU in {hospital.window_hu}, the patches have values in {window}.",
                hint="Give it the model's window; leave it out for MR.",
            )
        self.sets = [TrainingSet([v.to(device) for v in item.volumes], item.share) for item in sets]
        self.shape, self.window, self.augmentation = shape, window, augmentation
        self.seed, self.device = seed, device

    def batch(self, step: int, size: int) -> Patches:
        """The patches of a training step."""
        patches = [self.patch(step * size + n) for n in range(size)]
        return Patches(
            *(torch.cat([getattr(p, key) for p in patches]) for key in ("image", "coordinates", "labels", "drawn"))
        )

    def patch(self, number: int) -> Patches:
        """Patch `number` of the seed, as a batch of one."""
        generator = torch.Generator().manual_seed(self.seed * _SEED_STRIDE + number)
        chosen = self.sets[_draw([item.share for item in self.sets], generator)]
        volume, centre = _centre(chosen.volumes, generator)
        image, coordinates, labels = self._read(volume, centre, generator)
        cutmix = self.augmentation.cutmix
        if cutmix is not None and float(torch.rand((), generator=generator)) < cutmix.probability:
            partner = cutmix.partner(volume, centre, chosen.volumes, generator)
            if partner is not None:
                paste((image, coordinates, labels), self._read(*partner, generator), self.shape.stride, generator)
        return Patches(_scaled(image, self.window), normalised(coordinates), labels, volume.drawn[None])

    def _read(
        self, volume: TrainingVolume, centre: Tensor, generator: torch.Generator
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Image in the unit of the window (1, 1, Z, Y, X), coordinates in mm (1, 3, z, y, x), labels as image."""
        shape = (volume.image.shape[0], volume.image.shape[1], volume.image.shape[2])
        transform = random_transform(
            centre,
            patch=self.shape,
            volume=shape,
            spacing_mm=volume.spacing_mm,
            generator=generator,
            augment=self.augmentation.move,
        )
        grid = transform.grid(self.shape.voxels, self.device)
        image, labels, grid = self._hospital(volume, grid, generator)
        if self.augmentation.appearance:
            image = changed_appearance(image, self.window, generator)
        return image, self._coordinates(volume, grid), labels

    def _hospital(
        self, volume: TrainingVolume, grid: Tensor, generator: torch.Generator
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Image and labels after `HospitalAugmentation`, and the sampling grid with its displacement."""
        patch, hospital = self._patch(volume, grid), self.augmentation.hospital
        if hospital is None:
            return patch.image, patch.labels, grid
        drawn = hospital.draw(1, generator)
        displacement = hospital.displacement(patch, drawn, generator)
        if displacement is not None:
            grid = displaced(grid, displacement)
            patch = self._patch(volume, grid)
        patch = hospital.appearance(patch, drawn, generator)
        return patch.image, patch.labels, grid

    def _patch(self, volume: TrainingVolume, grid: Tensor) -> PatchBatch:
        image = window_values(read(volume.image[None], grid, mode="bilinear"), self.window)
        labels = read(volume.labels[None], grid, mode="nearest").to(torch.uint8)
        drawn = {name: value for name, value in self.augmentation.organs.items() if volume.drawn[value]}
        return PatchBatch(image, labels, volume.spacing_mm, drawn)

    def _coordinates(self, volume: TrainingVolume, grid: Tensor) -> Tensor:
        """Coordinates at the voxels of the trunk, each at the mean position of its sub-voxels."""
        trunk_grid = F.avg_pool3d(grid.movedim(-1, 1), self.shape.stride).movedim(1, -1)
        return read(volume.coordinates, trunk_grid, mode="bilinear", outside="border")


def _scaled(image: Tensor, window: tuple[float, float]) -> Tensor:
    low, high = window
    return ((image - low) * (2 / (high - low)) - 1).clamp_(-1, 1)


def _centre(volumes: Sequence[TrainingVolume], generator: torch.Generator) -> tuple[TrainingVolume, Tensor]:
    """A random volume and one of its voxels (3,), in the body or in a random organ."""
    organs = sorted({value for volume in volumes for value in volume.organs})
    value = 0
    if organs and float(torch.rand((), generator=generator)) >= _BODY_PROBABILITY:
        value = organs[_draw([1.0] * len(organs), generator)]
    candidates = [volume for volume in volumes if len(volume.centres[value])] or list(volumes)
    volume = candidates[_draw([1.0] * len(candidates), generator)]
    voxels = volume.centres[value]
    if not len(voxels):
        return volume, torch.tensor(volume.inside) // 2
    return volume, voxels[int(torch.randint(len(voxels), (), generator=generator))]


def _draw(shares: Sequence[float], generator: torch.Generator) -> int:
    return int(torch.multinomial(torch.tensor(shares), 1, generator=generator))
