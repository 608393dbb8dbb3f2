"""What each way to be quicker costs in Dice and calibration: precision, samples and steps on the same cases."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from DiffusionSegmentBackend.datasets.labelled_cases import Case
from DiffusionSegmentBackend.models.model import load_model
from DiffusionSegmentBackend.pipeline.options import SegmentOptions, plan_of
from DiffusionSegmentBackend.pipeline.prediction import PredictionRequest, predict
from DiffusionSegmentBackend.pipeline.session import Stopwatch
from tqdm import tqdm

from .result_file import StudyRow
from .uncertainty import case_measures, measured_row


@dataclass(frozen=True)
class Setting:
    """A precision, K samples and S steps."""

    precision: str
    samples: int
    steps: int

    @property
    def name(self) -> str:
        """As the table has it."""
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


def setting_rows(model: Path, cases: Sequence[Case], settings: Sequence[Setting] = SETTINGS) -> list[StudyRow]:
    """One row a setting, over all cases on the model's grid, on the CPU; seconds are those of the networks a case."""
    rows = []
    for setting in tqdm(settings, desc="settings"):
        loaded = load_model(str(model), "cpu", precision=setting.precision)
        plan, samples = plan_of(SegmentOptions(samples=setting.samples, steps=setting.steps), loaded)
        measured, seconds = [], 0.0
        for case in tqdm(cases, desc="cases", leave=False):
            watch = Stopwatch()
            with torch.inference_mode():
                image = torch.from_numpy(case.image)
                job = PredictionRequest(image=image, plan=plan, samples=samples, tile=loaded.tile, force=True)
                found = predict(job, loaded, watch=watch)
            place = tuple(slice(o, o + n) for o, n in zip(found.offset, found.ensemble.shape[1:], strict=True))
            whole = torch.zeros(found.ensemble.shape[0], *case.image.shape)
            whole[0] = 1
            whole[(slice(None), *place)] = found.ensemble
            measured.append(case_measures(whole.numpy(), case, loaded))
            seconds += watch.seconds["features"] + watch.seconds["refine"]
        organs = [label.name for label in loaded.description.labels]
        row = measured_row(setting.name, cases, measured, organs)
        row.numbers["seconds a case"] = round(seconds / len(cases), 2)
        rows.append(row)
    return rows
