"""The run options of the run that made a segmentation."""

from __future__ import annotations

from typing import Any

import slicer
from DiffusionSegmentBackend.schema.run_options import RESULT_OPTIONS, RunOptions

from .segmented_scan import readReport

_NOT_EMPTY = ("samples", "steps", "sampler", "schedule")


def optionsOfRun(segmentation: slicer.vtkMRMLSegmentationNode) -> RunOptions:
    """The options in the provenance of a segmentation that determine the result; the worker keeps a session for them.

    Raises:
        DiffusionSegmentError: INPUT_UNREADABLE when the report is damaged.
    """
    plan = readReport(segmentation).provenance.plan
    options: dict[str, Any] = {name: getattr(plan, name) for name in RESULT_OPTIONS}
    # A model without a refiner draws 0 samples of 0 steps, which no request can ask for.
    asked: dict[str, Any] = {name: value or None if name in _NOT_EMPTY else value for name, value in options.items()}
    return RunOptions(**asked, model=plan.model)
