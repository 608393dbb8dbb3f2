"""Where to start and how many steps to take: abar at T' x S, the number of samples K, and a dropped organ."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from DiffusionSegmentBackend.datasets.labelled_cases import Case
from DiffusionSegmentBackend.networks.precision import autocast, inference_dtype
from numpy.typing import NDArray
from tqdm import tqdm

from .refinement import Chain, RefinerUnderTest, dice_of, organ_dropped, run_chain, shared_stage, with_prior
from .result_file import StudyRow, organ_table

STARTS = (0.69, 0.48, 0.20, 0.06, 0.02, 0.0)
STEPS = (1, 2, 3, 5, 10)
SAMPLES = (1, 2, 4, 8, 16)


def start_chains() -> list[Chain]:
    """The grid of starts and steps, and the growing number of samples at the default start."""
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
    """A row a chain: Dice of its last step, and the Dice that organ `dropped` gets back when x_T' lacks it.

    Computed in bfloat16 where the processor has it.
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
                kept = rows[chain.name].dice
                assert kept is not None
                kept[case.name] = table
                if chain.steps <= 2 and chain.samples == 1:
                    again = dice_of(run_chain(lacking, model, chain, dtype=dtype)[-1], case)
                    recovered[chain.name].append(float(again[dropped - 1]))
    for name, values in recovered.items():
        if values:
            rows[name].numbers[f"Dice of the dropped {organs[dropped - 1].replace('_', ' ')}"] = round(
                float(np.nanmean(values)), 4
            )
    return list(rows.values())


def _row(chain: Chain) -> StudyRow:
    """An empty row; the plot shows those of one sample."""
    if chain.samples > 1:
        return StudyRow(chain.name, dice={})
    return StudyRow(chain.name, dice={}, x=chain.steps, series=f"abar {chain.abar_start:g}")
