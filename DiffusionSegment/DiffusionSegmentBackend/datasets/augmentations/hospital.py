"""Augmentation of CT patches for clinical variation: random choice and composition of the transforms of this package.

The order is that of an acquisition: patient (size, fat, organ size: one displacement for image, coordinates, labels),
content (masses, phase, stomach, bowel, metal), scanner (slices, dose, field of view) and window. As in RAMP's mixtures
for robustness, about a third of the patches is unchanged.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, fields, replace

import torch
from torch import Tensor

from .bowel import add_bowel
from .contrast_phase import shift_phase
from .displacement import Cells, composed, warped
from .field_of_view import cut_field_of_view
from .gut_content import fill_stomach
from .low_dose import low_dose
from .masses import add_masses
from .metal import add_metal
from .obesity import add_fat, scale_body
from .organ_size import resize_organ
from .patch_batch import PatchBatch
from .random_numbers import one_of
from .random_window import random_window
from .slice_thickness import thick_slices

# Names of the transforms of each sample of a batch.
Drawn = tuple[frozenset[str], ...]

SpatialTransform = Callable[[PatchBatch, torch.Generator], Tensor]
IntensityTransform = Callable[[PatchBatch, torch.Generator], PatchBatch]

WARPS: dict[str, SpatialTransform] = {"scale": scale_body, "fat": add_fat, "organ_size": resize_organ}
APPEARANCES: dict[str, IntensityTransform] = {
    "masses": add_masses,
    "phase": shift_phase,
    "stomach": fill_stomach,
    "bowel": add_bowel,
    "metal": add_metal,
    "slices": thick_slices,
}
RECONSTRUCTIONS: dict[str, IntensityTransform] = {"dose": low_dose, "field_of_view": cut_field_of_view}


@dataclass(frozen=True, kw_only=True)
class HospitalAugmentation:
    """Probabilities of the transforms in patches that are not `untouched`; `window_hu` is the model's window.

    Usage in a training step:

        drawn = augmentation.draw(len(batch.image), generator)
        displacement = augmentation.displacement(batch, drawn, generator)   # (B, 3, z, y, x) in voxels
        ... sample image, coordinates and labels at the sampling grid plus the displacement ...
        batch = augmentation.appearance(batch, drawn, generator)
    """

    untouched: float = 1 / 3
    scale: float = 0.2
    fat: float = 0.1
    organ_size: float = 0.2
    masses: float = 0.15
    phase: float = 0.25
    stomach: float = 0.15
    bowel: float = 0.2
    metal: float = 0.03
    field_of_view: float = 0.1
    slices: float = 0.25
    dose: float = 0.3
    window: float = 0.3
    window_hu: tuple[float, float] = (-125.0, 275.0)

    def probabilities(self) -> dict[str, float]:
        """Probability of each transform by name."""
        other = ("untouched", "window_hu")
        return {field.name: getattr(self, field.name) for field in fields(self) if field.name not in other}

    def draw(self, count: int, generator: torch.Generator) -> Drawn:
        """Draw the transforms of `count` samples; untouched samples have none, others at least one."""
        return tuple(self._draw_one(generator) for _ in range(count))

    def _draw_one(self, generator: torch.Generator) -> frozenset[str]:
        known = self.probabilities()
        numbers = torch.rand(len(known) + 1, generator=generator, device=generator.device).tolist()
        if numbers[-1] < self.untouched or not any(known.values()):
            return frozenset()
        drawn = [name for (name, share), number in zip(known.items(), numbers, strict=False) if number < share]
        return frozenset(drawn or [list(known)[one_of(torch.tensor(list(known.values())), generator)]])

    def displacement(self, batch: PatchBatch, drawn: Drawn, generator: torch.Generator) -> Tensor | None:
        """All spatial transforms of each sample as one displacement (B, 3, z, y, x) in voxels; None without any."""
        if not any(set(WARPS) & parts for parts in drawn):
            return None
        cells = Cells(batch.shape, batch.spacing_mm)
        total = torch.zeros(len(drawn), 3, *cells.counts, device=batch.image.device)
        for name, warp in WARPS.items():
            indices = _with_part(name, drawn, batch)
            if len(indices):
                field = warp(batch.of(indices), generator)
                total[indices] = composed(total[indices], field, cells.cell_mm)
        return cells.in_voxels(total)

    def appearance(self, batch: PatchBatch, drawn: Drawn, generator: torch.Generator) -> PatchBatch:
        """Apply the intensity transforms in order; a cropped field of view also removes labels.

        Patches with any transform are clipped to the model's window.
        """
        for parts in (APPEARANCES, {**RECONSTRUCTIONS, "window": self._window}):
            for name, part in parts.items():
                batch = _applied(part, batch, _with_part(name, drawn, batch), generator)
            touched = torch.tensor([bool(some) for some in drawn], device=batch.image.device).view(-1, 1, 1, 1, 1)
            batch = replace(batch, image=torch.where(touched, batch.image.clamp(*self.window_hu), batch.image))
        return batch

    def _window(self, batch: PatchBatch, generator: torch.Generator) -> PatchBatch:
        return random_window(batch, generator, window=self.window_hu)

    def __call__(self, batch: PatchBatch, generator: torch.Generator) -> PatchBatch:
        """Apply all transforms to patches that are not sampled from a volume."""
        drawn = self.draw(len(batch.image), generator)
        field = self.displacement(batch, drawn, generator)
        if field is not None:
            image, labels = warped(batch.image, field), warped(batch.labels, field, mode="nearest")
            batch = replace(batch, image=image, labels=labels)
        return self.appearance(batch, drawn, generator)


def _applied(part: IntensityTransform, batch: PatchBatch, indices: Tensor, generator: torch.Generator) -> PatchBatch:
    """The batch with a transform applied to the samples of `indices`."""
    if not len(indices):
        return batch
    changed = part(batch.of(indices), generator)
    return replace(
        batch,
        image=batch.image.index_copy(0, indices, changed.image),
        labels=batch.labels.index_copy(0, indices, changed.labels),
    )


def _with_part(name: str, drawn: Drawn, batch: PatchBatch) -> Tensor:
    """Indices of the samples with a transform."""
    return torch.tensor([n for n, parts in enumerate(drawn) if name in parts], dtype=torch.long).to(batch.image.device)
