"""`study settings`: Dice, calibration and time by precision, samples and steps, on the same cases."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from DiffusionSegmentBackend.datasets.labelled_cases import Case
from DiffusionSegmentBackend.models.model import Model, load_model
from DiffusionSegmentBackend.pipeline.options import SegmentOptions
from DiffusionSegmentBackend.pipeline.session import Stopwatch
from DiffusionSegmentBackend.training.case_prediction import predict_case
from DiffusionSegmentBackend.training.session import load_cases
from torch import Tensor
from tqdm import tqdm

from .result_file import StudyDescription, StudyResult, StudyRow
from .study import StudyRequest
from .study_data import organ_names, training_budget
from .uncertainty import case_measures, measured_row


@dataclass(frozen=True)
class Setting:
    """A precision, K samples and S steps."""

    precision: str
    samples: int
    steps: int

    @property
    def name(self) -> str:
        """The name of its row."""
        return f"{self.precision}, K = {self.samples}, S = {self.steps}"


SETTINGS = (
    Setting("float32", 4, 2),
    Setting("bfloat16", 4, 2),
    Setting("bfloat16", 2, 2),
    Setting("bfloat16", 1, 2),
    Setting("bfloat16", 4, 1),
    Setting("bfloat16", 1, 1),
    Setting("bfloat16", 1, 5),
    Setting("bfloat16", 1, 10),
)


def study(request: StudyRequest) -> StudyResult:
    """The first model on its validation cases."""
    model = request.description
    cases = load_cases(request.data, model, part="validation")
    description = StudyDescription(
        order=55,
        title=f"Quicker settings of {model.name}",
        question="What do fewer bits, samples and steps cost in Dice and calibration?",
        protocol=f"{len(cases)} validation cases on the model's grid, probe and samples together, on the CPU; "
        "measures as in the study of uncertainty. Seconds are those of backbone, probe and refiner.",
        budget=training_budget(model, "refiner"),
        reference=SETTINGS[0].name,
    )
    return StudyResult(setting_rows(model.folder, cases), description)


def setting_rows(model: Path, cases: Sequence[Case], settings: Sequence[Setting] = SETTINGS) -> list[StudyRow]:
    """One row per setting over all cases on the model's grid, on the CPU; seconds of the networks per case."""
    rows = []
    for setting in tqdm(settings, desc="settings"):
        loaded = load_model(str(model), "cpu", precision=setting.precision)
        measured, seconds = [], 0.0
        for case in tqdm(cases, desc="cases", leave=False):
            probabilities, spent = _predict_case(case, loaded, setting)
            measured.append(case_measures(probabilities.numpy(), case, loaded))
            seconds += spent
        row = measured_row(setting.name, cases, measured, list(organ_names(loaded.description)))
        row.numbers["seconds a case"] = round(seconds / len(cases), 2)
        rows.append(row)
    return rows


def _predict_case(case: Case, model: Model, setting: Setting) -> tuple[Tensor, float]:
    """Probabilities (classes, z, y, x) of a case, background outside the body, and seconds in the networks."""
    watch = Stopwatch()
    prediction = predict_case(case, model, SegmentOptions(samples=setting.samples, steps=setting.steps), watch)
    ensemble = prediction.ensemble
    box = tuple(slice(o, o + n) for o, n in zip(prediction.offset, ensemble.shape[1:], strict=True))
    whole = torch.zeros(ensemble.shape[0], *case.image.shape)
    whole[0] = 1
    whole[(slice(None), *box)] = ensemble
    return whole, watch.seconds["features"] + watch.seconds["refine"]
