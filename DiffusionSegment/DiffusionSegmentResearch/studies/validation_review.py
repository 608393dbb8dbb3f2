"""`study validation-review`: regions to review and alternatives of a model on its validation cases."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from DiffusionSegmentBackend.datasets.labelled_cases import Case
from DiffusionSegmentBackend.models.model import Model, load_model
from DiffusionSegmentBackend.pipeline.options import SegmentOptions
from DiffusionSegmentBackend.pipeline.session import Stopwatch
from DiffusionSegmentBackend.training.case_prediction import predict_case
from DiffusionSegmentBackend.training.session import load_cases
from tqdm import tqdm

from .alternatives import alternative_rows
from .out_of_fold_maps import OutOfFoldMap
from .regions import list_rows
from .result_file import StudyDescription, StudyResult, StudyRow
from .reviewed_errors import reviewed_rows
from .study import StudyRequest
from .study_data import training_budget


def study(request: StudyRequest) -> StudyResult:
    """The first model on its validation cases."""
    model = request.description
    cases = load_cases(request.data, model, part="validation")
    loaded = load_model(str(model.folder), "cpu")
    maps = [predicted_map(case, loaded) for case in tqdm(cases, desc="cases")]
    description = StudyDescription(
        order=56,
        title=f"Review with {model.name}",
        question="Where does the list of the shipped model lead, and does its review find errors of expert maps?",
        protocol=f"{len(cases)} validation cases, which decided nothing about lists and alternatives: maps of a run "
        "with the defaults (mean of samples and pre-segmentation) on the model's grid, in the box around the body. "
        "Measures as in 'Where to look' and 'Alternatives of a region', which use another network.",
        budget=training_budget(model, "refiner"),
    )
    return StudyResult(review_rows(maps, loaded, seed=request.seed), description)


def review_rows(maps: Sequence[OutOfFoldMap], model: Model, *, seed: int) -> list[StudyRow]:
    """Rows of the lists, of the reviews of expert maps, and of the alternatives; the last begin with "alternatives"."""
    alternatives = alternative_rows(maps, model.description, seed=seed)
    return [
        *list_rows(maps, model.description, seed=seed),
        *reviewed_rows(maps, model.description),
        *(StudyRow(f"alternatives: {row.name}", numbers=row.numbers) for row in alternatives),
    ]


def predicted_map(case: Case, model: Model) -> OutOfFoldMap:
    """The ensemble of a run with the defaults, in the box around the body."""
    prediction = predict_case(case, model, SegmentOptions(), Stopwatch())
    shape = prediction.ensemble.shape[1:]
    z, y, x = (slice(o, o + n) for o, n in zip(prediction.offset, shape, strict=True))
    return OutOfFoldMap(
        name=case.name,
        probabilities=prediction.ensemble.numpy().astype(np.float32),
        truth=np.asarray(case.labels)[z, y, x],
        image=case.image[z, y, x],
        grid=case.grid,
        offset=(case.offset[0] + z.start, case.offset[1] + y.start, case.offset[2] + x.start),
    )
