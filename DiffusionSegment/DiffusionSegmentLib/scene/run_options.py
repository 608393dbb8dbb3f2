"""The run options of the run that made a segmentation."""

from __future__ import annotations

import slicer
from DiffusionSegmentBackend.errors import DiffusionSegmentError, ErrorCode
from DiffusionSegmentBackend.schema.dataclass_json import SchemaError, from_json
from DiffusionSegmentBackend.schema.run_options import RESULT_OPTIONS, RunOptions

from .segmented_scan import readReport


def optionsOfRun(segmentation: slicer.vtkMRMLSegmentationNode) -> RunOptions:
    """The options in the provenance of a segmentation that determine the result; the worker keeps a session for them.

    Raises:
        DiffusionSegmentError: INPUT_UNREADABLE when report or provenance are damaged.
    """
    provenance = readReport(segmentation).get("provenance", {})
    stated = {name: provenance[name] for name in RESULT_OPTIONS if provenance.get(name) is not None}
    # A model without a refiner draws 0 samples of 0 steps, which no request can ask for.
    stated = {name: value for name, value in stated.items() if name not in ("samples", "steps") or value != 0}
    try:
        return from_json(RunOptions, {**stated, "model": str(provenance.get("model", ""))})
    except SchemaError as error:
        raise DiffusionSegmentError(
            ErrorCode.INPUT_UNREADABLE,
            f"The provenance stored with {segmentation.GetName()} is damaged.",
            hint="Segment the scan again.",
        ) from error
