"""The prediction of a model for a labelled case on the model's grid."""

from __future__ import annotations

import torch

from ..datasets.labelled_cases import Case
from ..models.model import Model
from ..pipeline.options import SegmentOptions, run_plan_of
from ..pipeline.prediction import PredictionRequest, predict
from ..pipeline.session import Prediction, Stopwatch


def predict_case(case: Case, model: Model, options: SegmentOptions, watch: Stopwatch) -> Prediction:
    """Apply all networks to a case, whatever the checks of the anatomy say; `watch` measures the stages."""
    run = run_plan_of(options, model)
    with torch.inference_mode():
        request = PredictionRequest(image=torch.from_numpy(case.image), run=run, tile=model.tile, force=True)
        return predict(request, model, watch=watch)
