"""`study reviews`: reviews of experts' label maps, also of cases of which only some organs are drawn."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import replace

import numpy as np
import torch
from DiffusionSegmentBackend.models.model import load_model
from DiffusionSegmentBackend.pipeline.segment import keep_organs
from tqdm import tqdm

from .case_selection import selected_cases
from .out_of_fold_maps import OutOfFoldMap
from .result_file import StudyDescription, StudyResult
from .reviewed_errors import reviewed_rows
from .study import StudyRequest
from .study_data import training_budget
from .validation_review import predicted_map


def study(request: StudyRequest) -> StudyResult:
    """The first model on cases of a part of the data; they should not be among those of its training."""
    model = load_model(str(request.description.folder), "cpu")
    cases = tqdm(selected_cases(request, model), desc="cases")
    maps = [of_drawn(predicted_map(case, model), case.drawn) for case in cases]
    description = StudyDescription(
        order=58,
        title=f"Reviews with {model.description.name}, cases of another set",
        question="Is the label map of an expert left alone, and a spoiled one found?",
        protocol=f"{len(maps)} cases of the {request.options.part} part of their set; only the organs that are drawn "
        "are reviewed, as with a segmentation that has no others. Maps of a run with the defaults on the model's grid, "
        f"in the box around the body. Errors as in 'Review with {model.description.name}'.",
        budget=training_budget(model.description, "refiner"),
    )
    return StudyResult(reviewed_rows(maps, model.description), description)


def of_drawn(item: OutOfFoldMap, drawn: Collection[int] | None) -> OutOfFoldMap:
    """The map of the organs that are drawn; the others are background for expert and model. None: all are drawn."""
    if drawn is None:
        return item
    kept = keep_organs(torch.from_numpy(item.probabilities), sorted(drawn))
    truth = np.where(np.isin(item.truth, list(drawn)), item.truth, np.uint8(0))
    return replace(item, probabilities=kept.numpy(), truth=truth)
