"""`study doubt`: what it saves to draw samples only in tiles in doubt, and what it changes."""

from __future__ import annotations

import time

import torch
from DiffusionSegmentBackend.imaging.volume import Volume
from DiffusionSegmentBackend.metrics.diversity import mask_dice
from DiffusionSegmentBackend.models.model import Model, load_model
from DiffusionSegmentBackend.pipeline.features import Stage1, first_stage
from DiffusionSegmentBackend.pipeline.options import SegmentOptions, run_plan_of
from DiffusionSegmentBackend.pipeline.prediction import refine
from DiffusionSegmentBackend.pipeline.progress import silent
from DiffusionSegmentBackend.pipeline.refinement import CERTAIN_PROBABILITY, MIN_SHARE_IN_DOUBT, is_in_doubt
from DiffusionSegmentBackend.pipeline.sampling import SamplingPlan
from DiffusionSegmentBackend.pipeline.session import ENSEMBLE_WEIGHT
from torch import Tensor
from tqdm import tqdm

from .anatomy_scans import scans_in
from .prepared_scan import prepare_scan
from .result_file import StudyDescription, StudyResult, StudyRow
from .study import StudyRequest


def study(request: StudyRequest) -> StudyResult:
    """A row for each scan, with the first model; the scans need no labels."""
    model = load_model(str(request.description.folder), "cpu")
    rows = [
        StudyRow(f"{model.description.name}, {scan.name}", numbers=doubt_measures(scan.read(), model))
        for scan in tqdm(scans_in(request.data), desc=model.description.name)
    ]
    run = run_plan_of(SegmentOptions(), model)
    return StudyResult(
        rows,
        StudyDescription(
            order=15,
            title="Samples only where there is doubt",
            question="What does it save to leave out tiles without doubt, and what does it change?",
            protocol=f"Whole scans, K = {run.samples}, S = {run.steps}. A tile keeps its pre-segmentation where no "
            f"class has a probability of {CERTAIN_PROBABILITY:g} in less than {100 * MIN_SHARE_IN_DOUBT:g} % of its "
            "voxels. Seconds: processor time of the samples, all tiles and those in doubt. Changed: voxels of an organ "
            "in either result, after the mean with the pre-segmentation, whose label differs.",
            budget="no training",
        ),
    )


def doubt_measures(volume: Volume, model: Model) -> dict[str, float]:
    """Tiles, processor seconds and changed voxels of one scan (k, j, i).

    Raises:
        DiffusionSegmentError: GEOMETRY, INPUT_VALUES.
    """
    with torch.inference_mode():
        image, coordinates = prepare_scan(volume, model).tile_input(model)
        stage = first_stage(image, coordinates, model, progress=silent)
        every, seconds_every = _labels(stage, model, only_in_doubt=False)
        doubt, seconds_doubt = _labels(stage, model, only_in_doubt=True)
    tiles = stage.tiling.tiles
    organs = (every > 0) | (doubt > 0)
    return {
        "tiles": len(tiles),
        "tiles in doubt": sum(is_in_doubt(stage.pre[(slice(None), *tile)]) for tile in tiles),
        "seconds, all tiles": round(seconds_every, 1),
        "seconds, tiles in doubt": round(seconds_doubt, 1),
        "changed (%)": round(100 * float((every != doubt)[organs].float().mean()) if organs.any() else 0.0, 3),
        "Dice of both results, organs pooled": round(float(mask_dice((every > 0).numpy(), (doubt > 0).numpy())), 5),
    }


def _labels(stage: Stage1, model: Model, *, only_in_doubt: bool) -> tuple[Tensor, float]:
    """Labels (z, y, x) of the mean of samples and pre-segmentation, and processor seconds of the samples."""
    run = run_plan_of(SegmentOptions(), model)
    begun = time.process_time()
    mean = refine(stage, model, SamplingPlan.of(run), samples=run.samples, only_in_doubt=only_in_doubt).mean
    seconds = time.process_time() - begun
    return (ENSEMBLE_WEIGHT * mean + (1 - ENSEMBLE_WEIGHT) * stage.pre).argmax(dim=0), seconds
