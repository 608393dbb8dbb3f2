"""Options of a run on a scan, and the plan that they resolve to."""

from __future__ import annotations

from dataclasses import dataclass, fields, replace

import numpy as np
from numpy.typing import NDArray

from ..models.model import Model
from ..schema.run_options import RunOptions, RunPlan, run_plan

# Of a review, whose samples decide no label: more of them move neither its regions nor its uncertainty by much.
REVIEW_SAMPLES, REVIEW_STEPS = 2, 1


@dataclass(frozen=True, kw_only=True)
class SegmentOptions(RunOptions):
    """Run options, and those that belong to one scan.

    Attributes:
        modality: DICOM modality of the scan, if stated.
        presegmentation: labels of the model in the scan's geometry (k, j, i), from any source, from which the samples
            start instead of the probe's (Guo et al. 2022).
        reviewed: a segmentation in the scan's geometry (k, j, i) that is reviewed instead of one of the model's own:
            labels of the model, 0 background; larger values are other structures, which are not judged. `organs` are
            the labels that it covers.
    """

    modality: str | None = None
    presegmentation: NDArray[np.uint8] | None = None
    reviewed: NDArray[np.uint8] | None = None


def options_for_scan(
    options: RunOptions,
    *,
    modality: str | None = None,
    presegmentation: NDArray[np.uint8] | None = None,
    reviewed: NDArray[np.uint8] | None = None,
) -> SegmentOptions:
    """Run options together with those that belong to one scan."""
    values = {item.name: getattr(options, item.name) for item in fields(RunOptions)}
    return SegmentOptions(**values, modality=modality, presegmentation=presegmentation, reviewed=reviewed)


def run_plan_of(options: RunOptions, model: Model) -> RunPlan:
    """The options with the defaults of a model, after validation.

    Raises:
        DiffusionSegmentError: OPTION.
    """
    if isinstance(options, SegmentOptions) and options.reviewed is not None:
        return review_plan_of(options, model)
    return run_plan(options, model.description.defaults)


def review_plan_of(options: RunOptions, model: Model) -> RunPlan:
    """`run_plan_of` a review, which draws at most two samples of one step by default.

    Raises:
        DiffusionSegmentError: OPTION.
    """
    defaults = model.description.defaults
    samples, steps = min(defaults.samples, REVIEW_SAMPLES), min(defaults.steps, REVIEW_STEPS)
    return run_plan(options, replace(defaults, samples=samples, steps=steps))


def drawn(plan: RunPlan, model: Model) -> RunPlan:
    """The plan with the samples that a model draws: none without a refiner."""
    return plan if model.refiner is not None else replace(plan, samples=0, steps=0)


def resolve(options: RunOptions, model: Model) -> RunPlan:
    """Resolve options with the defaults of a model; organs are names in the order of the model's labels.

    Raises:
        DiffusionSegmentError: OPTION.
    """
    wanted = {model.description.label_named(name).value for name in options.organs or ()}
    organs = tuple(label.name for label in model.description.labels if not wanted or label.value in wanted)
    return replace(drawn(run_plan_of(options, model), model), organs=organs)
