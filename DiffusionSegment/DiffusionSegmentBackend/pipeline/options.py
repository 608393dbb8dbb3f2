"""What may be asked of a run, and what it then does."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from ..diffusion.reverse import SAMPLERS
from ..diffusion.schedule import SCHEDULES
from ..errors import DiffusionSegmentError, ErrorCode, unknown_name
from ..models.model import Model
from .sampling import SamplingPlan


@dataclass(frozen=True, kw_only=True)
class SegmentOptions:
    """What may be asked of a run; None takes the model's own default. `abar_start` is alpha_bar at T', 0..1.

    `presegmentation` holds labels of the model in the scan's geometry (k, j, i), from any source: the samples start
    from it instead of the probe's (Guo et al. 2022 take any network's). `region` is an oriented box as in
    `region.region_mask`. `memory_limit_gb` (1e9 bytes) is what the process may use of the computer's memory.
    """

    samples: int | None = None
    steps: int | None = None
    seed: int = 0
    sampler: str | None = None
    schedule: str | None = None
    abar_start: float | None = None
    organs: tuple[str, ...] | None = None
    bodypart: bool = False
    force: bool = False
    modality: str | None = None
    presegmentation: NDArray[np.uint8] | None = None
    region: tuple[float, ...] | None = None
    memory_limit_gb: float | None = None


def plan_of(options: SegmentOptions, model: Model) -> tuple[SamplingPlan, int]:
    """The sampling plan and the number of samples, after a check of every option.

    Raises:
        DiffusionSegmentError: OPTION.
    """
    defaults = model.description.defaults
    samples = defaults.samples if options.samples is None else options.samples
    plan = SamplingPlan(
        schedule=options.schedule or defaults.schedule,
        sampler=options.sampler or defaults.sampler,
        steps=defaults.steps if options.steps is None else options.steps,
        abar_start=defaults.abar_start if options.abar_start is None else options.abar_start,
        seed=options.seed,
    )
    for name, value, low, high in (("samples", samples, 1, 64), ("steps", plan.steps, 1, 100)):
        if not low <= value <= high:
            raise DiffusionSegmentError(ErrorCode.OPTION, f"{name} is {value}.", hint=f"Choose {low} to {high}.")
    if not 0 <= plan.abar_start < 1 and (plan.abar_start, plan.steps, samples) != (1, 1, 1):
        raise DiffusionSegmentError(
            ErrorCode.OPTION,
            f"abar_start is {plan.abar_start}.",
            hint="Choose 0 to below 1, or 1 with one sample of one step for a deterministic refiner.",
        )
    if not 0 <= plan.seed < 2**63:
        raise DiffusionSegmentError(ErrorCode.OPTION, f"The seed is {plan.seed}.", hint="Choose 0 or more.")
    for name, text, known in (("sampler", plan.sampler, SAMPLERS), ("schedule", plan.schedule, SCHEDULES)):
        if text not in known:
            raise unknown_name(name, text, known)
    return plan, samples


@dataclass(frozen=True)
class ResolvedRun:
    """What decides the bits of a run on a scan: two requests that resolve to the same one share a session.

    `samples` and the plan's steps are 0 for a model without a refiner, which draws none; `organs` are the label values
    asked for, sorted. Whether a check was overridden, and how much memory may be used, changes no bit.
    """

    plan: SamplingPlan
    samples: int
    organs: tuple[int, ...]
    region: tuple[float, ...] | None


def resolve(options: SegmentOptions, model: Model) -> ResolvedRun:
    """The run that the options ask of a model, its defaults filled in.

    Raises:
        DiffusionSegmentError: OPTION.
    """
    plan, samples = plan_of(options, model)
    if model.refiner is None:
        plan, samples = replace(plan, steps=0), 0
    known = {label.value for label in model.description.labels}
    organs = {model.description.label_named(name).value for name in options.organs or ()}
    return ResolvedRun(plan, samples, tuple(sorted(organs or known)), options.region)
