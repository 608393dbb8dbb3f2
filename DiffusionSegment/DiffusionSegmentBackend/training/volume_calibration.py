"""Conformal calibration of the 90 % intervals of volumes on scans that the networks were not trained on.

An interval reaches from the volume of the voxels with p > 1 - tail to that of the voxels with p > tail, so it grows
while the tail falls. The largest tail whose interval contains the true volume is the conformity score of an organ in a
scan; the tail of the model is the floor((n + 1) / 10)-th smallest of n scores (split conformal prediction, Vovk et al.
2005; Angelopoulos and Bates, arXiv 2107.07511, section 1). An organ of a new scan, exchangeable with them, is then
contained with a probability of at least 90 %. Organs of one scan are not independent, so that the coverage varies more
than for n independent scans.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from ..datasets.labelled_cases import Case
from ..errors import DiffusionSegmentError, ErrorCode
from ..models.model import Model, load_model, write_description
from ..pipeline.options import SegmentOptions
from ..pipeline.session import Stopwatch
from .case_prediction import predict_case
from .session import load_cases

COVERAGE = 0.9
MAX_TAIL = 0.5
# Fewer scores do not suffice for the coverage: with them, no score is so low that nine tenths lie above it.
MIN_SCORES = math.ceil(1 / (1 - COVERAGE) - 1e-9) - 1
_DIGITS = 4


@dataclass(frozen=True)
class TailCalibration:
    """The calibrated tail, 0 to 0.5, from so many organs of scans; `contained` of them are within their intervals."""

    tail: float
    organs: int
    contained: float


def containing_tail(probability: NDArray[np.floating], true_voxels: float) -> float:
    """The largest tail, 0 to 0.5, for which the interval of an organ's volume contains the true volume.

    Args:
        probability: of the organ at all voxels.
        true_voxels: the true volume in voxels, more than 0.

    Returns:
        0 if only a tail of 0 contains it, or none.
    """
    falling = -np.sort(-probability, axis=None)
    inside, outside = math.ceil(true_voxels), math.floor(true_voxels)
    # The upper end, the number of voxels with p > tail, is large enough below the probability of the last true voxel,
    # the lower end, the number with p > 1 - tail, small enough up to 1 minus that of the voxel after it.
    upper = float(falling[inside - 1]) if inside <= len(falling) else 0.0
    lower = 1 - float(falling[outside]) if outside < len(falling) else 1.0
    return min(max(min(math.nextafter(upper, 0), lower), 0.0), MAX_TAIL)


def conformal_tail(tails: Sequence[float]) -> TailCalibration | None:
    """The tail of a model from the containing tails of organs; None for fewer than nine."""
    rank = math.floor((len(tails) + 1) * (1 - COVERAGE) + 1e-9)
    if rank < 1:
        return None
    scale = 10**_DIGITS
    tail = math.floor(sorted(tails)[rank - 1] * scale) / scale
    return TailCalibration(tail, len(tails), float(np.mean([one >= tail for one in tails])))


def calibrate_volumes(
    folder: Path, data: Sequence[Path], *, part: str = "validation", device: str = "auto"
) -> TailCalibration:
    """Calibrate the intervals of a model on cases that it was not trained on, and store the tail in its model.json.

    Calibrate the temperatures of its networks first.

    Raises:
        DiffusionSegmentError: TRAINING_DATA for fewer than nine organs.
    """
    model = load_model(str(folder), device)
    cases = tqdm(load_cases(data, model.description, part=part), desc="volumes")
    tails = [tail for case in cases for tail in case_tails(case, model)]
    calibration = conformal_tail(tails)
    if calibration is None:
        raise DiffusionSegmentError(
            ErrorCode.TRAINING_DATA,
            f"The cases show {len(tails)} organs; at least {MIN_SCORES} are needed.",
            hint="Give more cases that the model was not trained on.",
        )
    write_description(model.description.folder, {**model.description.raw, "volume_tail": calibration.tail})
    return calibration


def case_tails(case: Case, model: Model) -> Iterator[float]:
    """The containing tails of the organs that are annotated in a case and present in it."""
    z, y, x = case.image.shape
    probabilities = predict_case(case, model, SegmentOptions(), Stopwatch()).ensemble[:, :z, :y, :x].float().numpy()
    for label in model.description.labels:
        count = int(np.count_nonzero(case.labels == label.value))
        if count and (case.drawn is None or label.value in case.drawn):
            yield containing_tail(probabilities[label.value], count)
