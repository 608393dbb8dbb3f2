"""Contrast phase: portal-venous patches with the intensities of the native, arterial or delayed phase.

Intensities are shifted by label, as in SRCSM (arXiv 2512.01510) and SynthSeg, here towards the typical HU of an organ
or vessel in a phase. Vessels without annotation, stomach and esophagus are unchanged.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from .patch_batch import PatchBatch, box_of, in_box
from .random_numbers import integer, uniform
from .separable import blurred

_SPREAD_HU = 12.0
_MIN_VOXELS = 50
_BORDER_MM = 1.5
_CORTEX_MM = 5.0
_MAX_SHIFT_HU = 220.0
_KIDNEYS = ("left_kidney", "right_kidney")


@dataclass(frozen=True)
class Phase:
    """Mean HU of organs and vessels in a contrast phase.

    `cortex_hu` is the difference between renal cortex and medulla. `vessels` is the factor for the contrast between
    vessels inside an organ, which are not annotated, and the parenchyma.
    """

    name: str
    aorta: float
    veins: float
    portal_vein: float
    kidney: float
    liver: float
    spleen: float
    pancreas: float
    adrenal: float
    cortex_hu: float = 0.0
    vessels: float = 1.0

    def hu(self) -> Mapping[str, float]:
        """Mean HU by the name of the organ."""
        return {
            "aorta": self.aorta,
            "inferior_vena_cava": self.veins,
            "portal_and_splenic_vein": self.portal_vein,
            **dict.fromkeys(_KIDNEYS, self.kidney),
            "liver": self.liver,
            "spleen": self.spleen,
            "pancreas": self.pancreas,
            **dict.fromkeys(("left_adrenal_gland", "right_adrenal_gland"), self.adrenal),
        }


NATIVE = Phase("native", 42, 40, 42, 32, 56, 48, 40, 30, vessels=-0.2)
ARTERIAL = Phase("arterial", 290, 70, 85, 130, 66, 115, 100, 70, cortex_hu=110.0, vessels=0.2)
DELAYED = Phase("delayed", 105, 105, 105, 150, 92, 95, 80, 55, vessels=0.4)
PHASES = (NATIVE, ARTERIAL, DELAYED)


def shift_phase(batch: PatchBatch, generator: torch.Generator, *, phases: Sequence[Phase] = PHASES) -> PatchBatch:
    """Shift the intensities of organs and vessels of each patch to one of the `phases`.

    The shift is the difference between the mean HU in the phase and in the patch, plus up to 12 HU of random variation,
    and is smoothed by 1.5 mm. Labels are unchanged.
    """
    parts = [_shifted(batch.of(torch.tensor([n])), generator, phases) for n in range(len(batch.image))]
    return replace(batch, image=torch.cat(parts))


def _shifted(batch: PatchBatch, generator: torch.Generator, phases: Sequence[Phase]) -> Tensor:
    phase = phases[integer(0, len(phases) - 1, generator)]
    shifts, means = _tables(batch, phase, generator)
    labels = batch.labels.long()
    shift = blurred(shifts[labels], _BORDER_MM, batch.spacing_mm) if shifts.any() else shifts[labels]
    image = batch.image + shift
    image = image + _inner_vessels(batch, means, phase)
    return image + _cortex(batch, phase) if phase.cortex_hu else image


def _tables(batch: PatchBatch, phase: Phase, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Shift and current mean in HU of each label value; 0 for labels that are not shifted."""
    device = batch.image.device
    labels = batch.labels.flatten().long()
    size = max([int(labels.max()), *batch.organs.values()]) + 1
    counts = torch.bincount(labels, minlength=size)
    means = torch.bincount(labels, weights=batch.image.flatten(), minlength=size) / counts.clamp(min=1)
    shifts = torch.zeros(size, device=device)
    for name, hu in phase.hu().items():
        value = batch.organs.get(name)
        variation = uniform((), -_SPREAD_HU, _SPREAD_HU, generator=generator, device=device)
        if value is not None and counts[value] >= _MIN_VOXELS:
            shifts[value] = (hu + variation - means[value]).clamp(-_MAX_SHIFT_HU, _MAX_SHIFT_HU)
    return shifts, torch.where(shifts != 0, means, torch.zeros_like(means)).float()


def _inner_vessels(batch: PatchBatch, means: Tensor, phase: Phase) -> Tensor:
    """HU to add to vessels inside the liver, which are not annotated, to change with those that are."""
    liver = batch.organ("liver")
    if liver is None or not liver.any():
        return torch.zeros((), device=batch.image.device)
    box = box_of(liver, margin=2)
    above = blurred(in_box(batch.image, box), _BORDER_MM, batch.spacing_mm) - means[batch.organs["liver"]]
    # Only voxels that are brighter after smoothing are vessels, others are noise.
    change = torch.zeros_like(batch.image)
    in_box(change, box).copy_((phase.vessels - 1) * (above - _SPREAD_HU).clamp(min=0) * in_box(liver, box))
    return change


def _cortex(batch: PatchBatch, phase: Phase) -> Tensor:
    """HU to add so that the renal cortex is `cortex_hu` above the medulla, with an unchanged mean."""
    total = torch.zeros_like(batch.image)
    for name in _KIDNEYS:
        mask = batch.organ(name)
        if mask is None or int(mask.sum()) < _MIN_VOXELS:
            continue
        box = box_of(mask, margin=round(3 * _CORTEX_MM / min(batch.spacing_mm)))
        inside = in_box(mask, box).float()
        depth = ((blurred(inside, _CORTEX_MM, batch.spacing_mm) - 0.5) / 0.45).clamp(0, 1)
        rim = (1 - depth) * inside
        in_box(total, box).add_(phase.cortex_hu * (rim - rim.sum() / inside.sum()) * inside)
    return total
