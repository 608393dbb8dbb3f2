"""Options of a run, and the run that they resolve to."""

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
    """Options of a run; None is the model's default.

    Attributes:
        samples: number of samples K.
        steps: denoising steps S of a sample.
        seed: seed of the noise.
        sampler: one of `SAMPLERS`.
        schedule: one of `SCHEDULES`.
        abar_start: alpha_bar at T', 0..1.
        organs: names of the organs to keep.
        bodypart: also return the map of body coordinates.
        force: run in spite of failed checks of modality and anatomy.
        modality: DICOM modality of the scan, if stated.
        presegmentation: labels of the model in the scan's geometry (k, j, i), from any source, from which the samples
            start instead of the probe's (Guo et al. 2022).
        region: an oriented box as in `region.region_mask`.
        memory_limit_gb: limit of the memory of the process in units of 1e9 bytes.
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
    """The sampling plan and the number of samples, after validation of the options.

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
    """The options that determine the result of a run on a scan; requests that resolve to the same one share a session.

    `samples` and the plan's steps are 0 for a model without a refiner; `organs` are the requested label values, sorted.
    Overridden checks and the memory limit do not change the result.
    """

    plan: SamplingPlan
    samples: int
    organs: tuple[int, ...]
    region: tuple[float, ...] | None


def resolve(options: SegmentOptions, model: Model) -> ResolvedRun:
    """Resolve options with the defaults of a model.

    Raises:
        DiffusionSegmentError: OPTION.
    """
    plan, samples = plan_of(options, model)
    if model.refiner is None:
        plan, samples = replace(plan, steps=0), 0
    known = {label.value for label in model.description.labels}
    organs = {model.description.label_named(name).value for name in options.organs or ()}
    return ResolvedRun(plan, samples, tuple(sorted(organs or known)), options.region)
