"""Reverse processes of refiners from given pre-segmentations: Dice after every step, for any start and sampler."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import cast

import numpy as np
import torch
from DiffusionSegmentBackend.datasets.labelled_cases import Case
from DiffusionSegmentBackend.metrics.overlap import dice_by_label
from DiffusionSegmentBackend.models.manifest import ModelDescription
from DiffusionSegmentBackend.models.model import load_network
from DiffusionSegmentBackend.models.tile_shape import TileShape
from DiffusionSegmentBackend.networks.backbone import Backbone
from DiffusionSegmentBackend.networks.bodypart import normalised
from DiffusionSegmentBackend.networks.precision import autocast, inference_dtype
from DiffusionSegmentBackend.networks.refiner import Refiner
from DiffusionSegmentBackend.pipeline.features import Stage1, padded
from DiffusionSegmentBackend.pipeline.refinement import TileChains
from DiffusionSegmentBackend.pipeline.sampling import SamplingPlan
from DiffusionSegmentBackend.pipeline.tiling import tiling_of
from numpy.typing import NDArray
from torch import Tensor
from tqdm import tqdm

_TILE = TileShape.cube(64)


@dataclass(frozen=True)
class Chain:
    """A reverse process: alpha_bar at its start, number of steps and samples, and sampler."""

    name: str
    abar_start: float
    steps: int
    sampler: str = "ddim"
    samples: int = 1

    def plan(self, schedule: str) -> SamplingPlan:
        """The plan of the pipeline."""
        return SamplingPlan(
            schedule=schedule, sampler=self.sampler, steps=self.steps, abar_start=self.abar_start, seed=0
        )


@dataclass(frozen=True)
class RefinerUnderTest:
    """A backbone and a refiner of one model folder, on the CPU."""

    name: str
    description: ModelDescription
    backbone: Backbone
    refiner: Refiner

    @classmethod
    def load(cls, description: ModelDescription) -> RefinerUnderTest:
        """Load both networks, channels last."""
        backbone = cast(Backbone, load_network(description, "backbone"))
        refiner = cast(Refiner, load_network(description, "refiner"))
        for network in (backbone, refiner):
            network.to(memory_format=torch.channels_last_3d)  # type: ignore[call-overload]
        return cls(description.folder.name, description, backbone, refiner)


def shared_stage(case: Case, backbone: Backbone, prior: NDArray[np.float16]) -> Stage1:
    """Features of all tiles, and the given pre-segmentation (classes, z, y, x) instead of the probe's."""
    assert case.coordinates is not None
    image = padded(torch.from_numpy(case.image)[None], tile=_TILE, value=-1.0)[0]
    coordinates = normalised(padded(torch.from_numpy(case.coordinates).float(), tile=_TILE, value=0.0))
    tiling = tiling_of(image, _TILE)
    features = []
    for box in tiling.tiles:
        tile = image[box][None, None].contiguous(memory_format=torch.channels_last_3d)
        pyramid = backbone.features(tile, coordinates[(slice(None), *box)][None])
        features.append([level.half() for level in pyramid[:2]])
    return Stage1(coordinates, tiling, features, _tiled(prior))


def run_chain(
    stage1: Stage1, model: RefinerUnderTest, chain: Chain, *, dtype: torch.dtype = torch.float32
) -> list[Tensor]:
    """Mean over samples of the probabilities (classes, z, y, x) after each step."""
    chains = TileChains(stage1, model.refiner, torch.device("cpu"), dtype)
    plan = chain.plan(model.description.defaults.schedule)
    total: list[Tensor] = []
    for sample in range(chain.samples):
        for n, x0 in enumerate(chains.steps(plan, sample=sample)):
            if n < len(total):
                total[n] += x0
            else:
                total.append(x0.clone())
    return [t / chain.samples for t in total]


def dice_of(probabilities: Tensor, case: Case) -> NDArray[np.float64]:
    """Dice (classes - 1,) on the model's grid; `probabilities` may be padded beyond the case."""
    z, y, x = case.labels.shape
    predicted = probabilities[:, :z, :y, :x].argmax(dim=0).numpy().astype(np.uint8)
    return dice_by_label(predicted, case.labels, probabilities.shape[0])


def chain_scores(
    models: Sequence[tuple[RefinerUnderTest, Sequence[Chain]]],
    cases: Sequence[Case],
    priors: Sequence[NDArray[np.float16]],
) -> dict[tuple[str, str], list[list[NDArray[np.float64]]]]:
    """(model, chain) -> for each step, for each case, Dice of (the chain, the chain ensembled with the prior).

    Every entry is an array (2, classes - 1). Computed in bfloat16 where the processor supports it.
    """
    cpu = torch.device("cpu")
    dtype = inference_dtype(cpu)
    scores: dict[tuple[str, str], list[list[NDArray[np.float64]]]] = {}
    with torch.inference_mode(), autocast(cpu, dtype):
        for case, prior in tqdm(list(zip(cases, priors, strict=True)), desc="cases"):
            stages: dict[str, Stage1] = {}
            for model, chains in tqdm(models, desc="models", leave=False):
                key = model.description.networks["backbone"].sha256
                if key not in stages:
                    stages[key] = shared_stage(case, model.backbone, prior)
                for chain in chains:
                    steps = run_chain(stages[key], model, chain, dtype=dtype)
                    entry = scores.setdefault((model.name, chain.name), [[] for _ in steps])
                    for n, probabilities in enumerate(steps):
                        both = (probabilities + stages[key].pre) / 2
                        entry[n].append(np.stack([dice_of(probabilities, case), dice_of(both, case)]))
    return scores


def organ_dropped(prior: NDArray[np.float16], value: int) -> NDArray[np.float16]:
    """The pre-segmentation with the probability of one organ added to the background."""
    dropped = prior.copy()
    dropped[0] += dropped[value]
    dropped[value] = 0
    return dropped


def with_prior(stage1: Stage1, prior: NDArray[np.float16]) -> Stage1:
    """The same features with another pre-segmentation."""
    return replace(stage1, pre=_tiled(prior))


def _tiled(prior: NDArray[np.float16]) -> Tensor:
    """Probabilities (classes, z, y, x) padded to whole tiles with background."""
    pre = padded(torch.from_numpy(prior).float(), tile=_TILE, value=0.0)
    pre[0] += 1 - pre.sum(dim=0)
    return pre
