"""What the pipeline is asked for, and the sampling plan that follows from it."""

from __future__ import annotations

from dataclasses import dataclass, fields, replace

import numpy as np
from numpy.typing import NDArray

from ..models.model import Model
from ..schema.run_options import RunOptions, RunPlan, run_plan, without_samples
from .sampling import SamplingPlan


@dataclass(frozen=True, kw_only=True)
class SegmentOptions(RunOptions):
    """Run options, and what belongs to one scan.

    `modality` is that of the scan, where its file states one. `presegmentation` holds labels of the model in the scan's
    geometry (k, j, i), from any source: the samples start from it instead of the probe's (Guo et al. 2022 take any
    network's).
    """

    modality: str | None = None
    presegmentation: NDArray[np.uint8] | None = None


def options_for_scan(
    options: RunOptions, *, modality: str | None = None, presegmentation: NDArray[np.uint8] | None = None
) -> SegmentOptions:
    """Run options together with what belongs to one scan."""
    values = {item.name: getattr(options, item.name) for item in fields(RunOptions)}
    return SegmentOptions(**values, modality=modality, presegmentation=presegmentation)


def plan_of(options: RunOptions, model: Model) -> tuple[SamplingPlan, int]:
    """The sampling plan and the number of samples, after a check of every option.

    Raises:
        DiffusionSegmentError: OPTION.
    """
    plan = run_plan(options, model.description.defaults)
    sampling = SamplingPlan(
        schedule=plan.schedule, sampler=plan.sampler, steps=plan.steps, abar_start=plan.abar_start, seed=plan.seed
    )
    return sampling, plan.samples


def resolve(options: RunOptions, model: Model) -> RunPlan:
    """The run that the options ask of a model: its defaults filled in, organs by name in the order of the labels.

    Raises:
        DiffusionSegmentError: OPTION.
    """
    plan = run_plan(options, model.description.defaults)
    if model.refiner is None:
        plan = without_samples(plan)
    wanted = {model.description.label_named(name).value for name in options.organs or ()}
    organs = tuple(label.name for label in model.description.labels if not wanted or label.value in wanted)
    return replace(plan, organs=organs)
