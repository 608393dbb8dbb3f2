"""`study starts`: Dice by abar at T', number of steps S and of samples K, and recovery of a dropped organ."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from DiffusionSegmentBackend.datasets.labelled_cases import Case
from DiffusionSegmentBackend.networks.precision import autocast, inference_dtype
from DiffusionSegmentBackend.training.presegmentations import read_presegmentations
from numpy.typing import NDArray
from tqdm import tqdm

from .refinement import Chain, RefinerUnderTest, dice_of, organ_dropped, run_chain, shared_stage, with_prior
from .result_file import PlotAxes, StudyDescription, StudyResult, StudyRow, organ_table
from .study import StudyRequest
from .study_data import organ_names, training_budget, validation_cases

STARTS = (0.69, 0.48, 0.20, 0.06, 0.02, 0.0)
STEPS = (1, 2, 3, 5, 10)
SAMPLES = (1, 2, 4, 8, 16)
_DROPPED_ORGAN = "spleen"


def study(request: StudyRequest) -> StudyResult:
    """The refiner of the first model on the validation cases, from the given pre-segmentations."""
    model = request.description
    cases, organs = validation_cases(model, request.data), organ_names(model)
    priors = read_presegmentations(request.predictions, cases, model.classes)
    dropped = organs.index(_DROPPED_ORGAN) + 1 if _DROPPED_ORGAN in organs else 1
    rows = start_rows(RefinerUnderTest.load(model), cases, priors, organs, dropped=dropped)
    description = StudyDescription(
        order=40,
        title="Starting from the pre-segmentation",
        question="Where to start, how many steps, how many samples?",
        protocol=f"One refiner, {len(cases)} validation cases, out-of-fold pre-segmentations, DDIM, on the model's "
        f"grid. Last column: Dice of the {organs[dropped - 1].replace('_', ' ')} when it was removed from the "
        "pre-segmentation.",
        budget=training_budget(model, "refiner"),
        plot=PlotAxes(x_label="steps S", log_x=True),
    )
    return StudyResult(rows, description)


def start_chains() -> list[Chain]:
    """The grid of starts and steps, and increasing numbers of samples at the default start."""
    grid = [Chain(f"abar {a:g}, S = {s}", a, s) for a in STARTS for s in STEPS]
    return grid + [Chain(f"abar 0.2, S = 2, K = {k}", 0.2, 2, samples=k) for k in SAMPLES[1:]]


def start_rows(
    model: RefinerUnderTest,
    cases: Sequence[Case],
    priors: Sequence[NDArray[np.float16]],
    organs: Sequence[str],
    *,
    dropped: int,
    chains: Sequence[Chain] | None = None,
) -> list[StudyRow]:
    """A row per chain: Dice of its last step, and Dice of organ `dropped` when it is absent from x_T'.

    Computed in bfloat16 where the processor supports it.
    """
    cpu = torch.device("cpu")
    dtype = inference_dtype(cpu)
    chains = start_chains() if chains is None else chains
    rows = {chain.name: _row(chain) for chain in chains}
    recovered: dict[str, list[float]] = {chain.name: [] for chain in chains}
    with torch.inference_mode(), autocast(cpu, dtype):
        for case, prior in tqdm(list(zip(cases, priors, strict=True)), desc="cases"):
            stage = shared_stage(case, model.backbone, prior)
            lacking = with_prior(stage, organ_dropped(prior, dropped))
            for chain in tqdm(chains, desc="chains", leave=False):
                table = organ_table(dice_of(run_chain(stage, model, chain, dtype=dtype)[-1], case), organs)
                scores = rows[chain.name].dice
                assert scores is not None
                scores[case.name] = table
                if chain.steps <= 2 and chain.samples == 1:
                    dice = dice_of(run_chain(lacking, model, chain, dtype=dtype)[-1], case)
                    recovered[chain.name].append(float(dice[dropped - 1]))
    for name, values in recovered.items():
        if values:
            rows[name].numbers[f"Dice of the dropped {organs[dropped - 1].replace('_', ' ')}"] = round(
                float(np.nanmean(values)), 4
            )
    return list(rows.values())


def _row(chain: Chain) -> StudyRow:
    """An empty row; only chains of one sample are in the plot."""
    if chain.samples > 1:
        return StudyRow(chain.name, dice={})
    return StudyRow(chain.name, dice={}, x=chain.steps, series=f"abar {chain.abar_start:g}")
