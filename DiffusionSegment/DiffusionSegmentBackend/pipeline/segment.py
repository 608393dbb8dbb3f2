"""The pipeline: scan -> body coordinates -> features and pre-segmentation -> K samples of S steps -> maps and report.

Li et al. 2025: features of a denoising backbone conditioned on body coordinates, and a probe on them.
Guo et al. 2022: the reverse process starts from the noised pre-segmentation.
Fu et al. 2023: the mean of the samples is ensembled with the non-diffusion prediction.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ..errors import DiffusionSegmentError, ErrorCode
from ..imaging.volume import Grid, Volume, model_grid
from ..models.model import Model
from ..schema.report import Report
from .checks import check_modality
from .memory import (
    Allocate,
    RunSize,
    choose_memory_plan,
    in_memory,
    memory_errors,
    on_disk,
    resident_bytes,
    with_fallback,
)
from .options import SegmentOptions, run_plan_of
from .prediction import PredictionRequest, ShowPresegmentation, predict
from .prepare import network_input
from .progress import Progress, silent
from .region import region_mask
from .report import build_report
from .restore import restore_labels, restore_map, restore_nearest
from .review import review_list
from .reviewed import check_reviewed, labels_of_model, reviewed_on_grid, reviewed_prediction
from .session import Prediction, Session, Stopwatch
from .uncertainty_maps import GridMaps, uncertainty_of_scan, uncertainty_on_grid

_log = logging.getLogger(__name__)

# The maps of uncertainty, in whichever geometry.
_Uncertainty = TypeVar("_Uncertainty")


@dataclass(frozen=True, kw_only=True)
class LabelledScan:
    """Label maps in the scan's own geometry (k, j, i), uint8, and their report.

    `regions` holds n + 1 inside region n of the report's `review`; bodypart is float32 (k, j, i, 3) in mm.
    """

    labels: NDArray[np.uint8]
    regions: NDArray[np.uint8]
    bodypart: NDArray[np.float32] | None
    report: Report


@dataclass(frozen=True, kw_only=True)
class Segmentation(LabelledScan):
    """A labelled scan and its uncertainty, float32 (k, j, i), 0..1, in the scan's own geometry too."""

    uncertainty: NDArray[np.float32]
    mutual_information: NDArray[np.float32]


@dataclass(frozen=True, kw_only=True)
class SegmentationOnGrid(LabelledScan):
    """A labelled scan, and its uncertainty on the model's grid."""

    maps: GridMaps


# Receives the labels of the pre-segmentation, uint8, in the scan's own geometry (k, j, i).
Preview = Callable[[NDArray[np.uint8]], None]


def segment(
    volume: Volume,
    model: Model,
    options: SegmentOptions,
    *,
    progress: Progress = silent,
    folder: Path | None = None,
) -> Segmentation:
    """Segment a scan (k, j, i), HU for a CT; `folder` is as in `build_segmentation`.

    Raises:
        DiffusionSegmentError: OPTION, GEOMETRY, INPUT_VALUES, MODALITY, BODY_PART_MISMATCH,
            UNUSUAL_APPEARANCE, OUT_OF_MEMORY, OUT_OF_GPU_MEMORY.
    """
    session = open_session(volume, model, options, progress=progress)
    return build_segmentation(session, model, bodypart=options.bodypart, progress=progress, folder=folder)


def open_session(
    volume: Volume,
    model: Model,
    options: SegmentOptions,
    *,
    progress: Progress = silent,
    preview: Preview | None = None,
    keep_islands: bool = False,
    maps_on_grid: bool = False,
) -> Session:
    """Run all networks on a scan (k, j, i), HU for a CT. Results are reproducible for a scan, options and device.

    Args:
        progress: called after every unit of work.
        preview: called with the labels of the pre-segmentation before the samples are drawn.
        keep_islands: do not remove islands from any map.
        maps_on_grid: plan the memory for `build_on_grid`, which needs less than `build_segmentation`.

    Raises:
        DiffusionSegmentError: as `segment`.
    """
    watch, resident = Stopwatch(), resident_bytes()
    wanted = [model.description.label_named(name).value for name in options.organs or ()]
    with torch.inference_mode(), memory_errors():
        with watch.stage("prepare"):
            progress("prepare", 0, 1)
            grid, image = _on_grid(volume, model, options)
        show = None if preview is None else _restored_preview(preview, wanted, grid)
        request = _prediction_request(volume, grid, image, model, options, keep_islands=keep_islands, show=show)
        size = replace(_run_size(request, volume, model, options), maps_on_grid=maps_on_grid)
        memory_plan = choose_memory_plan(size, limit_gb=options.memory_limit_gb)

        def run(on: Model, max_slices: int | None) -> Prediction:
            own = predict(request, on, watch=watch, progress=progress, max_slices=max_slices)
            return own if options.reviewed is None else _with_reviewed(own, options.reviewed, grid, wanted, request)

        prediction, notice = with_fallback(model, memory_plan.max_slices, run)
    _log.info("%s samples of %s steps, seconds by stage: %s", request.run.samples, request.run.steps, watch.seconds)
    return Session(
        grid=grid,
        image=image,
        prediction=prediction,
        run=request.run,
        wanted=wanted,
        voxel_ml=volume.voxel_ml,
        seconds=watch.seconds,
        memory_plan=replace(memory_plan, bytes=memory_plan.bytes + resident),
        notice=notice or memory_plan.notice,
        reviewed=options.reviewed,
    )


def _prediction_request(
    volume: Volume,
    grid: Grid,
    image: Tensor,
    model: Model,
    options: SegmentOptions,
    *,
    keep_islands: bool,
    show: ShowPresegmentation | None,
) -> PredictionRequest:
    if options.reviewed is not None:
        check_reviewed(options.reviewed, volume.array.shape, model.description.classes)
    return PredictionRequest(
        image=image,
        run=run_plan_of(options, model),
        tile=model.tile,
        force=options.force,
        keep_islands=keep_islands,
        presegmentation=_presegmentation_on_grid(options, volume, grid, model),
        region=None if options.region is None else region_mask(options.region, grid),
        show=show,
    )


def _with_reviewed(
    prediction: Prediction, labels: NDArray[np.uint8], grid: Grid, wanted: list[int], request: PredictionRequest
) -> Prediction:
    """The ensemble of a reviewed segmentation (k, j, i) and the prediction of the wanted organs."""
    given = reviewed_on_grid(labels, grid, len(prediction.ensemble))
    return reviewed_prediction(
        prediction, keep_organs(prediction.ensemble, wanted), given, voxel_ml=grid.voxel_ml, region=request.region
    )


def _restored_preview(preview: Preview, wanted: list[int], grid: Grid) -> ShowPresegmentation:
    def show(pre: Tensor, offset: tuple[int, int, int]) -> None:
        preview(restore_labels(keep_organs(pre, wanted), offset, grid))

    return show


def _on_grid(volume: Volume, model: Model, options: SegmentOptions) -> tuple[Grid, Tensor]:
    """The model's grid over a scan, and the networks' input on it (z, y, x), -1..1, after a check of the modality."""
    if not options.force:
        check_modality(volume.array, expected=model.description.modality, stated=options.modality)
    grid = model_grid(volume, spacing=model.description.spacing_mm)
    return grid, torch.from_numpy(network_input(volume, grid, model.description))


def _run_size(request: PredictionRequest, volume: Volume, model: Model, options: SegmentOptions) -> RunSize:
    return RunSize(
        scan_voxels=volume.array.size,
        grid_voxels=request.image.numel(),
        box=model.tile.covering([s.stop - s.start for s in request.box]),
        classes=model.description.classes,
        samples=request.run.samples,
        bodypart=options.bodypart,
        tile=model.tile,
        footprint=model.pre_segmenter.footprint(model.tile, model.dtype),
        keeps_features=model.refiner is not None,
    )


def build_segmentation(
    session: Session, model: Model, *, bodypart: bool, progress: Progress = silent, folder: Path | None = None
) -> Segmentation:
    """Restore all maps of a session to the scan's own geometry and build its report, as for a result folder.

    Maps that do not fit in memory are unnamed temporary files in `folder` (default: the system's).

    Raises:
        DiffusionSegmentError: OUT_OF_MEMORY.
    """
    scan, (uncertainty, information) = _build(
        session, model, uncertainty_of_scan, bodypart=bodypart, progress=progress, folder=folder
    )
    return Segmentation(
        labels=scan.labels,
        regions=scan.regions,
        bodypart=scan.bodypart,
        report=scan.report,
        uncertainty=uncertainty,
        mutual_information=information,
    )


def build_on_grid(
    session: Session, model: Model, *, bodypart: bool, progress: Progress = silent, folder: Path | None = None
) -> SegmentationOnGrid:
    """`build_segmentation` with the maps of uncertainty left on the model's grid, as for a message.

    Raises:
        DiffusionSegmentError: OUT_OF_MEMORY.
    """
    scan, maps = _build(
        session,
        model,
        lambda session, _: uncertainty_on_grid(session),
        bodypart=bodypart,
        progress=progress,
        folder=folder,
    )
    return SegmentationOnGrid(
        labels=scan.labels, regions=scan.regions, bodypart=scan.bodypart, report=scan.report, maps=maps
    )


def _build(
    session: Session,
    model: Model,
    uncertainty: Callable[[Session, Allocate], _Uncertainty],
    *,
    bodypart: bool,
    progress: Progress,
    folder: Path | None,
) -> tuple[LabelledScan, _Uncertainty]:
    """The label maps and the report of a session, and what `uncertainty` makes of it."""
    watch = Stopwatch(dict(session.seconds))
    allocate = on_disk(folder) if session.memory_plan.on_disk else in_memory
    offset, grid = session.prediction.offset, session.grid
    with torch.inference_mode(), memory_errors(), watch.stage("restore"):
        progress("restore", 0, 4)
        kept = keep_organs(session.maps.ensemble, session.wanted)
        labels = (
            restore_labels(kept, offset, grid, allocate)
            if session.reviewed is None
            else labels_of_model(session.reviewed, model.description.classes)
        )
        progress("restore", 1, 4)
        review = review_list(kept.numpy(), grid, offset, model.description, given_weight=session.given_weight)
        regions = restore_nearest(review.numbers, offset, grid, allocate)
        progress("restore", 2, 4)
        coordinates = restore_coordinates(session.prediction.coordinates_mm, grid) if bodypart else None
        progress("restore", 3, 4)
        maps = uncertainty(session, allocate)
    report = build_report(
        labels=labels, prediction=kept.numpy(), review=review, session=session, model=model, seconds=watch.seconds
    )
    progress("restore", 4, 4)
    return LabelledScan(labels=labels, regions=regions, bodypart=coordinates, report=report), maps


def _presegmentation_on_grid(options: SegmentOptions, volume: Volume, grid: Grid, model: Model) -> Tensor | None:
    """The pre-segmentation of the options, if any, on the model's grid.

    Raises:
        DiffusionSegmentError: GEOMETRY for another shape, OPTION for labels that the model does not have and for a
            model without a refiner.
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


def keep_organs(probabilities: Tensor, wanted: list[int]) -> Tensor:
    """Probabilities (classes, z, y, x) with organs that are not `wanted` as background; an empty list keeps all."""
    if not wanted:
        return probabilities
    kept = torch.zeros_like(probabilities)
    kept[wanted] = probabilities[wanted]
    kept[0] = 1 - kept[1:].sum(dim=0)
    return kept


def restore_coordinates(coordinates_mm: Tensor, grid: Grid) -> NDArray[np.float32]:
    """Body coordinates (3, z, y, x) as (k, j, i, 3) in the scan's own geometry."""
    return np.stack([restore_map(axis, (0, 0, 0), grid, outside=None) for axis in coordinates_mm.numpy()], axis=-1)
