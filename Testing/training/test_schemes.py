"""Schemes of training the refiner: what x_t is built from, at which noise levels, and that each takes a step."""

from __future__ import annotations

import pytest
import torch
from DiffusionSegmentBackend.cli import train as training_cli
from DiffusionSegmentBackend.networks.backbone import Backbone
from DiffusionSegmentBackend.networks.refiner import Refiner
from DiffusionSegmentBackend.training.backbone import OBJECTIVES
from DiffusionSegmentBackend.training.loop import Budget
from DiffusionSegmentBackend.training.refiner import RefinerStep
from DiffusionSegmentBackend.training.schemes import SCHEMES, RefinerRecipe, Source, one_hot, source_of

TINY_CHANNELS = [8, 8, 16]


@pytest.mark.parametrize("scheme", SCHEMES)
def test_every_scheme_takes_a_step(scheme: str) -> None:
    torch.manual_seed(0)
    recipe = RefinerRecipe(scheme=scheme)
    backbone = Backbone(TINY_CHANNELS).eval().requires_grad_(False)
    network = Refiner(TINY_CHANNELS[:2], 3, channels=(8, 8), self_conditioning=scheme == "self-conditioning")
    step = RefinerStep(network, backbone, Budget(steps=1), recipe, torch.Generator().manual_seed(0))
    labels = torch.zeros(1, 1, 16, 16, 16, dtype=torch.long)
    labels[..., 4:12] = 1
    item = {
        "image": torch.randn(1, 1, 16, 16, 16),
        "coordinates": torch.randn(1, 3, 16, 16, 16),
        "labels": labels,
        "drawn": torch.ones(1, 3, dtype=torch.bool),
        "prior": torch.full((1, 3, 16, 16, 16), 1 / 3),
    }
    loss = torch.stack(list(step.losses(item).values())).sum()
    loss.backward()
    assert torch.isfinite(loss.detach())
    assert all(p.grad is not None for p in network.parameters() if p.requires_grad)


def source(scheme: str, *, seed: int = 0) -> tuple[Source, torch.Tensor, torch.Tensor]:
    labels = torch.zeros(1, 1, 8, 8, 8, dtype=torch.long)
    labels[..., :4] = 2
    prior = torch.zeros(1, 3, 8, 8, 8)
    prior[:, 1] = 1
    prediction = torch.full((1, 3, 8, 8, 8), 1 / 3)
    recipe = RefinerRecipe(scheme=scheme, corrupted_share=0.0)
    generator = torch.Generator().manual_seed(seed)
    result = source_of(recipe, labels, prior, torch.tensor([0.1]), lambda *_: prediction, generator)
    return result, one_hot(labels, 3), prior


def test_only_schemes_without_recycling_start_from_the_ground_truth() -> None:
    for scheme in ("standard", "self-conditioning"):
        result, truth, _ = source(scheme)
        assert torch.equal(result.probabilities, truth)
    for scheme in ("one-step", "from-noise"):
        assert float(source(scheme)[0].probabilities.max()) < 0.5
    for seed in range(8):
        for scheme in ("recycling", "deterministic"):
            result, truth, _ = source(scheme, seed=seed)
            assert not torch.equal(result.probabilities, truth)


def test_recycling_starts_from_the_presegmentation_or_its_own_prediction() -> None:
    kinds = set()
    for seed in range(16):
        result, _, prior = source("recycling", seed=seed)
        kinds.add("prior" if torch.equal(result.probabilities, prior) else "prediction")
    assert kinds == {"prior", "prediction"}


def test_noise_levels_are_those_of_the_scheme_at_inference() -> None:
    generator = torch.Generator().manual_seed(0)
    recycled = RefinerRecipe(scheme="recycling", abar_start=0.2).noise_levels(400, generator)
    assert float(recycled.min()) == pytest.approx(0.2, abs=0.01)
    assert float((recycled < 0.21).float().mean()) > 0.25
    assert float(RefinerRecipe(scheme="standard").noise_levels(400, generator).min()) < 0.01
    assert torch.equal(RefinerRecipe(scheme="deterministic").noise_levels(3, generator), torch.ones(3))


def test_the_command_line_has_the_schemes_and_objectives_of_training() -> None:
    """The parser names schemes and objectives itself, because importing torch for `--help` takes seconds."""
    assert training_cli._SCHEMES == SCHEMES
    assert training_cli._OBJECTIVES == OBJECTIVES
