"""The one pipeline: scan -> body coordinates -> features, pre-segmentation -> K samples x S steps -> maps, report.

Paper 1 (Li et al. 2025): features of a denoising backbone that knows body coordinates, a probe on them.
Paper 3 (Guo et al. 2022): the reverse process starts from the noised pre-segmentation.
Paper 2 (Fu et al. 2023): the mean of samples is ensembled with the non-diffusion prediction.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ..errors import DiffusionSegmentError, ErrorCode
from ..volume import Grid, Volume, model_grid
from .checks import check_anatomy, check_body_part, check_modality
from .features import Stage1, body_box, body_coordinates, first_stage, padded
from .memory import memory_errors
from .model import Model
from .options import SegmentOptions, plan_of
from .prepare import windowed
from .progress import Progress, counted, silent
from .refinement import TileChains
from .region import box_for, confined, confined_prediction, region_mask
from .report import build_report
from .restore import restore_labels, restore_map, restore_nearest
from .review import regions_to_review
from .sampling import SamplingPlan
from .session import Prediction, Session, Stopwatch
from .uncertainty import SampleStatistics, entropy

TILE_SIDE = 64
TILE_OVERLAP = 0.25
ENSEMBLE_WEIGHT = 0.5


@dataclass(frozen=True)
class Segmentation:
    """Maps in the scan's own geometry: labels uint8 (k, j, i), the others float32 0..1, bodypart (k, j, i, 3) in mm.

    `regions` is uint8: n + 1 inside region n of the report's `review`.
    """

    labels: NDArray[np.uint8]
    uncertainty: NDArray[np.float32]
    mutual_information: NDArray[np.float32]
    regions: NDArray[np.uint8]
    bodypart: NDArray[np.float32] | None
    report: dict[str, Any]


# What takes a preview: labels, uint8, in the scan's own geometry (k, j, i).
Preview = Callable[[NDArray[np.uint8]], None]


def segment(volume: Volume, model: Model, options: SegmentOptions, *, progress: Progress = silent) -> Segmentation:
    """Segment a scan in HU (k, j, i).

    Raises:
        DiffusionSegmentError: OPTION, GEOMETRY, MODALITY, BODY_PART_MISMATCH, OUT_OF_MEMORY, OUT_OF_GPU_MEMORY.
    """
    session = open_session(volume, model, options, progress=progress)
    return delivered(session, model, bodypart=options.bodypart, progress=progress)


def open_session(
    volume: Volume,
    model: Model,
    options: SegmentOptions,
    *,
    progress: Progress = silent,
    preview: Preview | None = None,
) -> Session:
    """Run all networks on a scan in HU (k, j, i). The same scan, options and device give the same bits.

    `preview` gets the pre-segmentation before the samples are drawn.

    Raises:
        DiffusionSegmentError: as `segment`.
    """
    watch = Stopwatch()
    plan, samples = plan_of(options, model)
    wanted = [model.description.label_named(name).value for name in options.organs or ()]
    with torch.inference_mode(), memory_errors():
        with watch.stage("prepare"):
            progress("prepare", 0, 1)
            if not options.force:
                check_modality(volume.array, expected=model.description.modality, stated=options.modality)
            grid = model_grid(volume, spacing=model.description.spacing_mm)
            image = torch.from_numpy(windowed(grid.to_grid(volume.array), model.description.window))
        region = None if options.region is None else region_mask(options.region, grid)

        def show(pre: Tensor, offset: tuple[int, int, int]) -> None:
            if preview is not None:
                preview(restore_labels(keep_organs(pre, wanted), offset, grid))

        prediction = predict(
            image,
            model,
            plan,
            samples=samples,
            watch=watch,
            progress=progress,
            force=options.force,
            given=_given(options, volume, grid, model),
            region=region,
            show=show,
        )
    return Session(grid, image, prediction, plan, samples, wanted, volume.voxel_ml, watch.seconds, options.region)


def delivered(session: Session, model: Model, *, bodypart: bool, progress: Progress = silent) -> Segmentation:
    """The maps of a session in the scan's own geometry, and its report.

    Raises:
        DiffusionSegmentError: OUT_OF_MEMORY.
    """
    watch = Stopwatch(dict(session.seconds))
    answer, offset, grid = session.answer, session.prediction.offset, session.grid
    with torch.inference_mode(), memory_errors(), watch.stage("restore"):
        progress("restore", 0, 4)
        kept = keep_organs(answer.ensemble, session.wanted)
        labels = restore_labels(kept, offset, grid)
        progress("restore", 1, 4)
        doubt = restore_map(entropy(answer.ensemble).numpy(), offset, grid)
        information = restore_map(answer.mutual_information.numpy(), offset, grid)
        progress("restore", 2, 4)
        review, places = regions_to_review(kept.numpy(), grid, offset, model.description)
        regions = restore_nearest(places, offset, grid)
        progress("restore", 3, 4)
        coordinates = restore_coordinates(session.prediction.coordinates_mm, grid) if bodypart else None
    report = build_report(
        labels=labels, prediction=kept.numpy(), review=review, session=session, model=model, seconds=watch.seconds
    )
    progress("restore", 4, 4)
    return Segmentation(labels, doubt, information, regions, coordinates, report)


def predict(
    image: Tensor,
    model: Model,
    plan: SamplingPlan,
    *,
    samples: int,
    watch: Stopwatch,
    progress: Progress = silent,
    force: bool = False,
    given: Tensor | None = None,
    region: Tensor | None = None,
    show: Callable[[Tensor, tuple[int, int, int]], None] | None = None,
) -> Prediction:
    """All networks on a scan (z, y, x) in -1..1 on the model's grid; samples start from labels `given` there, if any.

    Outside the `region` (z, y, x) all is background. `show` gets the pre-segmentation (classes, z, y, x) and the voxel
    where it begins, before the samples are drawn.

    Raises:
        DiffusionSegmentError: BODY_PART_MISMATCH for another body part, or when hardly an organ shows, unless `force`.
    """
    with watch.stage("bodypart"):
        progress("bodypart", 0, 1)
        coordinates_mm = body_coordinates(image, model)
    if not force:
        check_body_part(coordinates_mm, image, model.description)
    box = body_box(image, least=TILE_SIDE)
    if region is not None:
        box = box_for(region, box, least=TILE_SIDE)
    crop = (slice(None), *(slice(0, s.stop - s.start) for s in box))
    offset = (box[0].start, box[1].start, box[2].start)
    tile_image = padded(image[box][None], least=TILE_SIDE, value=-1.0)[0]
    tile_coordinates = padded(coordinates_mm[(slice(None), *box)], least=TILE_SIDE, value=0.0)
    with watch.stage("features"):
        stage1 = first_stage(
            tile_image, tile_coordinates, model, side=TILE_SIDE, overlap=TILE_OVERLAP, progress=progress
        )
    if not force and region is None:
        voxel_ml = float(np.prod(model.description.spacing_mm)) / 1000.0
        check_anatomy(stage1.pre, voxel_ml=voxel_ml, description=model.description)
    if show is not None:
        show(stage1.pre[crop] if region is None else confined(stage1.pre[crop], region[box]), offset)
    start = stage1 if given is None else replace(stage1, pre=_one_hot(given[box], stage1, model.description.classes))
    with watch.stage("refine"):
        statistics = refine(start, model, plan, samples=samples, progress=progress)
    refined, pre = statistics.mean[crop], stage1.pre[crop]
    prediction = Prediction(
        pre=pre,
        start=start.pre[crop],
        refined=refined,
        ensemble=ENSEMBLE_WEIGHT * refined + (1 - ENSEMBLE_WEIGHT) * pre,
        mutual_information=statistics.mutual_information[crop[1:]],
        sample_labels=tuple(labels[crop[1:]] for labels in statistics.sample_labels),
        coordinates_mm=coordinates_mm,
        offset=offset,
        tiled_shape=stage1.tiling.shape,
    )
    return prediction if region is None else confined_prediction(prediction, region[box])


def _given(options: SegmentOptions, volume: Volume, grid: Grid, model: Model) -> Tensor | None:
    """The labels that a run was given, on the model's grid.

    Raises:
        DiffusionSegmentError: GEOMETRY for another shape, OPTION for a label that the model does not know.
    """
    labels = options.presegmentation
    if labels is None:
        return None
    if model.refiner is None:
        raise DiffusionSegmentError(
            ErrorCode.OPTION,
            f"{model.description.name} has no refiner that could start from a pre-segmentation.",
            hint="Run without it.",
        )
    if labels.shape != volume.array.shape:
        raise DiffusionSegmentError(
            ErrorCode.GEOMETRY,
            f"The pre-segmentation has the shape {labels.shape}, the scan {volume.array.shape}.",
            hint="Resample the label map to the scan.",
        )
    if labels.max(initial=0) >= model.description.classes or labels.min(initial=0) < 0:
        raise DiffusionSegmentError(
            ErrorCode.OPTION,
            f"The pre-segmentation has labels beyond {model.description.classes - 1}, the last of the model.",
            hint="Number its organs as `model.json` does.",
        )
    return torch.from_numpy(grid.labels_to_grid(labels.astype(np.uint8)))


def _one_hot(labels: Tensor, stage1: Stage1, classes: int) -> Tensor:
    """Labels (z, y, x) as probabilities (classes, z, y, x) of the tiles' volume; what was padded is background."""
    whole = torch.zeros(stage1.pre.shape[1:], dtype=torch.long)
    z, y, x = labels.shape
    whole[:z, :y, :x] = labels.long()
    return torch.nn.functional.one_hot(whole, classes).movedim(-1, 0).float()


def refine(
    stage1: Stage1, model: Model, plan: SamplingPlan, *, samples: int, progress: Progress = silent
) -> SampleStatistics:
    """K samples of S steps each from the noised pre-segmentation, all on the same features.

    Without a refiner the pre-segmentation itself counts as the only sample: the ensemble is then the same.
    """
    statistics = SampleStatistics.empty(model.description.classes, stage1.tiling.shape)
    if model.refiner is None:
        statistics.add(stage1.pre)
        return statistics
    total = samples * plan.steps * len(stage1.tiling.tiles)
    tick = counted(progress, "refine", total)
    chains = TileChains(stage1, model.refiner, model.device, model.dtype, tick=tick)
    for sample in range(samples):
        statistics.add(chains.sample(plan, sample=sample))
    progress("refine", total, total)
    return statistics


def keep_organs(probabilities: Tensor, wanted: list[int]) -> Tensor:
    """Probabilities in which every organ that is not `wanted` counts as background; all are when none is named."""
    if not wanted:
        return probabilities
    kept = torch.zeros_like(probabilities)
    kept[wanted] = probabilities[wanted]
    kept[0] = 1 - kept[1:].sum(dim=0)
    return kept


def restore_coordinates(coordinates_mm: Tensor, grid: Grid) -> NDArray[np.float32]:
    """Body coordinates (3, z, y, x) as (k, j, i, 3) in the scan's own geometry."""
    return np.stack([restore_map(axis, (0, 0, 0), grid, outside=None) for axis in coordinates_mm.numpy()], axis=-1)
