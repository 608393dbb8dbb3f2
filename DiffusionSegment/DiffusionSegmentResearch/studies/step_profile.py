"""`study step`: time of the parts of a training step, of the first and the second generation of networks.

Processor seconds of one thread, the minimum of a few rounds, so that other work on the machine does not count.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import torch
import torch.nn.functional as F
from DiffusionSegmentBackend.datasets.labelled_cases import Case, find_cases, load_case
from DiffusionSegmentBackend.datasets.patch_sampler import Augmentation, Patches, PatchSampler, TrainingSet
from DiffusionSegmentBackend.datasets.patches import patch_batches
from DiffusionSegmentBackend.datasets.volumes import training_volume
from DiffusionSegmentBackend.models.manifest import ModelDescription
from DiffusionSegmentBackend.networks.backbone import Backbone
from DiffusionSegmentBackend.networks.probe import Probe
from DiffusionSegmentBackend.networks.segmenter import Logits, Segmenter
from DiffusionSegmentBackend.networks.space_to_depth import space_to_depth
from DiffusionSegmentBackend.networks.trunk import DEFAULT_CHANNELS
from DiffusionSegmentBackend.training.label_loss import label_loss
from DiffusionSegmentBackend.training.losses import SegmentationLoss
from DiffusionSegmentBackend.training.segmenter import SegmenterRecipe
from DiffusionSegmentBackend.training.session import add_coordinates
from torch import Tensor, nn

from .bakeoff import CONTROL, FINE_LOSS, FINE_PATH, SUB_VOXELS, TRUNK_STRIDE
from .result_file import StudyDescription, StudyResult, StudyRow
from .study import StudyRequest
from .study_data import load_regressor

_ROUNDS = 3
_PATCHES = 8


@dataclass(frozen=True)
class _Setup:
    """Parameters and functions of a training step: a patch by its number, logits of a patch, and their loss."""

    parameters: list[nn.Parameter]
    patch: Callable[[int], Any]
    forward: Callable[[Any], list[Tensor]]
    loss: Callable[[Any, list[Tensor]], Tensor]


def study(request: StudyRequest) -> StudyResult:
    """Measure with the first model on the first case of the first data folder."""
    description = request.description
    files = find_cases(request.data[0])[0]
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        rows = step_rows(description, load_case(files, description), load_case(files, finer(description)))
    finally:
        torch.set_num_threads(threads)
    return StudyResult(rows, _DESCRIPTION)


_DESCRIPTION = StudyDescription(
    order=24,
    title="A training step",
    question="Where does the time of a training step go, and what does a finer grid cost?",
    protocol=f"Core seconds of one thread for one patch, the minimum of {_ROUNDS} rounds; a patch is cut and "
    f"augmented as in training, mean of {_PATCHES}. First generation: 64 x 64 x 64 voxels of 3 mm, 7.1 litres, with "
    "MONAI's transforms and loss. Second: 48 x 96 x 96 voxels of 3 x 1.5 x 1.5 mm, 3.0 litres; the loss includes "
    "that of the trunk.",
    budget="a few steps each, without learning anything",
)


def finer(description: ModelDescription) -> ModelDescription:
    """The description with the spacing of the fine grid, for a trunk at its present spacing."""
    x, y, z = (s / step for s, step in zip(description.spacing_mm, reversed(TRUNK_STRIDE), strict=True))
    return replace(description, spacing_mm=(x, y, z))


def step_rows(description: ModelDescription, coarse: Case, fine: Case) -> list[StudyRow]:
    """A row for the first generation and for each arm of the second."""
    regressor = load_regressor(description)
    add_coordinates([coarse], regressor)
    setups = {"first generation, 3 mm": _first_generation(description, coarse)}
    volume = training_volume(fine, regressor, description.classes, trunk_stride=TRUNK_STRIDE)
    for arm in (CONTROL, FINE_LOSS, SUB_VOXELS, FINE_PATH):
        network = arm.untrained(description.classes, DEFAULT_CHANNELS)
        network.to(memory_format=torch.channels_last_3d)  # type: ignore[call-overload]
        sampler = PatchSampler(
            [TrainingSet([volume])],
            shape=arm.recipe.shape(network),
            window=description.nominal_window,
            augmentation=Augmentation(),
            seed=0,
        )
        setups[f"second generation, {arm.title}"] = _second_generation(network, arm.recipe, sampler)
    return [StudyRow(name, numbers=_measure(setup)) for name, setup in setups.items()]


def _first_generation(description: ModelDescription, case: Case) -> _Setup:
    networks = nn.ModuleList([Backbone(description.channels), Probe(description.channels, description.classes)])
    networks.to(memory_format=torch.channels_last_3d)  # type: ignore[call-overload]
    backbone, probe = networks
    batches = patch_batches([case], classes=description.classes, patch=64, batch=1, augment=True, seed=0, workers=0)
    loss = SegmentationLoss()

    def forward(item: dict[str, Tensor]) -> list[Tensor]:
        image = item["image"].to(memory_format=torch.channels_last_3d)
        return [probe(backbone.features(image, item["coordinates"]))]  # type: ignore[operator]

    return _Setup(
        list(networks.parameters()),
        lambda n: next(batches),
        forward,
        lambda item, logits: loss(logits[0], item["labels"], item["drawn"]),
    )


def _second_generation(network: Segmenter, recipe: SegmenterRecipe, sampler: PatchSampler) -> _Setup:
    network.train()

    def forward(patch: Patches) -> list[Tensor]:
        image = F.avg_pool3d(patch.image, recipe.pool).contiguous(memory_format=torch.channels_last_3d)
        logits: Logits = network(image, patch.coordinates)
        return [logits.fine] if logits.fine is logits.trunk else [logits.fine, logits.trunk]

    def loss(patch: Patches, logits: list[Tensor]) -> Tensor:
        total = torch.zeros(())
        for weight, values in zip((1.0, 0.5), logits, strict=False):
            z, y, x = (a // b for a, b in zip(patch.labels.shape[2:], values.shape[2:], strict=True))
            total = total + weight * label_loss(values, space_to_depth(patch.labels, (z, y, x)), patch.drawn)
        return total

    return _Setup(list(network.parameters()), sampler.patch, forward, loss)


def _measure(setup: _Setup) -> dict[str, float]:
    rounds = [_round(setup, n) for n in range(_ROUNDS + 1)][1:]
    numbers = {name: min(item[name] for item in rounds) for name in rounds[0]}
    began = time.process_time()
    for n in range(_PATCHES):
        setup.patch(n)
    numbers["patch"] = (time.process_time() - began) / _PATCHES
    numbers["sum"] = sum(numbers.values())
    numbers = {name: round(value, 3) for name, value in numbers.items()}
    numbers["million weights"] = round(sum(p.numel() for p in setup.parameters) / 1e6, 2)
    return numbers


def _round(setup: _Setup, number: int) -> dict[str, float]:
    """Processor seconds of the parts of one step."""
    optimizer = torch.optim.AdamW(setup.parameters, lr=1e-4)
    patch = setup.patch(number)
    seconds = {}

    def timed(name: str, part: Callable[[], Any]) -> Any:
        began = time.process_time()
        value = part()
        seconds[name] = time.process_time() - began
        return value

    outputs = timed("network, forward", lambda: setup.forward(patch))
    leaves = [output.detach().requires_grad_() for output in outputs]
    timed("loss, with gradient", lambda: setup.loss(patch, leaves).backward())
    timed("network, backward", lambda: torch.autograd.backward(outputs, [leaf.grad for leaf in leaves]))
    timed("optimiser", optimizer.step)
    return seconds
