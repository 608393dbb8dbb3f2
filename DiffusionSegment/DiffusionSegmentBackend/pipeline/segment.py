"""The one pipeline: scan -> body coordinates -> features, pre-segmentation -> K samples x S steps -> maps, report.

Paper 1 (Li et al. 2025): features of a denoising backbone that knows body coordinates, a probe on them.
Paper 3 (Guo et al. 2022): the reverse process starts from the noised pre-segmentation.
Paper 2 (Fu et al. 2023): the mean of samples is ensembled with the non-diffusion prediction.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ..errors import DiffusionSegmentError, ErrorCode
from ..imaging.volume import Grid, Volume, model_grid
from ..models.model import Model
from .checks import check_modality
from .memory import RunSize, choose_way, in_memory, memory_errors, on_disk, resident_bytes, with_fallback
from .options import SegmentOptions, plan_of
from .prediction import Job, predict
from .prepare import network_input
from .progress import Progress, silent
from .region import region_mask
from .report import build_report
from .restore import restore_labels, restore_map, restore_nearest
from .review import regions_to_review
from .session import Prediction, Session, Stopwatch
from .uncertainty import entropy

_log = logging.getLogger(__name__)


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


def segment(
    volume: Volume,
    model: Model,
    options: SegmentOptions,
    *,
    progress: Progress = silent,
    folder: Path | None = None,
) -> Segmentation:
    """Segment a scan (k, j, i), HU for a CT; `folder` is as in `delivered`.

    Raises:
        DiffusionSegmentError: OPTION, GEOMETRY, INPUT_VALUES, MODALITY, BODY_PART_MISMATCH,
            UNUSUAL_APPEARANCE, OUT_OF_MEMORY, OUT_OF_GPU_MEMORY.
    """
    session = open_session(volume, model, options, progress=progress)
    return delivered(session, model, bodypart=options.bodypart, progress=progress, folder=folder)


def open_session(
    volume: Volume,
    model: Model,
    options: SegmentOptions,
    *,
    progress: Progress = silent,
    preview: Preview | None = None,
    islands: bool = False,
) -> Session:
    """Run all networks on a scan (k, j, i), HU for a CT. The same scan, options and device give the same bits.

    `preview` gets the pre-segmentation before the samples are drawn. Islands stay in all maps where `islands` is True.

    Raises:
        DiffusionSegmentError: as `segment`.
    """
    watch, held = Stopwatch(), resident_bytes()
    plan, samples = plan_of(options, model)
    wanted = [model.description.label_named(name).value for name in options.organs or ()]
    with torch.inference_mode(), memory_errors():
        with watch.stage("prepare"):
            progress("prepare", 0, 1)
            grid, image = _on_grid(volume, model, options)

        def show(pre: Tensor, offset: tuple[int, int, int]) -> None:
            assert preview is not None
            preview(restore_labels(keep_organs(pre, wanted), offset, grid))

        job = Job(
            image=image,
            plan=plan,
            samples=samples,
            tile=model.tile,
            force=options.force,
            islands=islands,
            given=_given(options, volume, grid, model),
            region=None if options.region is None else region_mask(options.region, grid),
            show=None if preview is None else show,
        )
        way = choose_way(_size(job, volume, model, bodypart=options.bodypart), limit_gb=options.memory_limit_gb)

        def run(on: Model, most_slices: int | None) -> Prediction:
            return predict(job, on, watch=watch, progress=progress, most_slices=most_slices)

        prediction, notice = with_fallback(model, way.most_slices, run)
    _log.info("%s samples of %s steps, seconds by stage: %s", samples, plan.steps, watch.seconds)
    session = Session(grid, image, prediction, plan, samples, wanted, volume.voxel_ml, watch.seconds, options.region)
    return replace(session, way=replace(way, bytes=way.bytes + held), notice=notice or way.notice)


def _on_grid(volume: Volume, model: Model, options: SegmentOptions) -> tuple[Grid, Tensor]:
    """The model's grid over a scan and what the networks see there (z, y, x), -1..1; another modality is refused."""
    if not options.force:
        check_modality(volume.array, expected=model.description.modality, stated=options.modality)
    grid = model_grid(volume, spacing=model.description.spacing_mm)
    return grid, torch.from_numpy(network_input(volume, grid, model.description))


def _size(job: Job, volume: Volume, model: Model, *, bodypart: bool) -> RunSize:
    return RunSize(
        scan_voxels=volume.array.size,
        grid_voxels=job.image.numel(),
        box=model.tile.covering([s.stop - s.start for s in job.box]),
        classes=model.description.classes,
        samples=job.samples,
        bodypart=bodypart,
        tile=model.tile,
        footprint=model.pre_segmenter.footprint(model.tile, model.dtype),
        keeps_features=model.refiner is not None,
    )


def delivered(
    session: Session, model: Model, *, bodypart: bool, progress: Progress = silent, folder: Path | None = None
) -> Segmentation:
    """The maps of a session in the scan's own geometry, and its report.

    Maps for which there is no room in memory lie in nameless files of `folder` (default: the system's own).

    Raises:
        DiffusionSegmentError: OUT_OF_MEMORY.
    """
    watch = Stopwatch(dict(session.seconds))
    answer, offset, grid = session.answer, session.prediction.offset, session.grid
    room = on_disk(folder) if session.way.on_disk else in_memory
    with torch.inference_mode(), memory_errors(), watch.stage("restore"):
        progress("restore", 0, 4)
        kept = keep_organs(answer.ensemble, session.wanted)
        labels = restore_labels(kept, offset, grid, room)
        progress("restore", 1, 4)
        doubt = restore_map(entropy(answer.ensemble).numpy(), offset, grid, room=room)
        information = restore_map(answer.mutual_information.float().numpy(), offset, grid, room=room)
        progress("restore", 2, 4)
        review, places = regions_to_review(kept.numpy(), grid, offset, model.description)
        regions = restore_nearest(places, offset, grid, room)
        progress("restore", 3, 4)
        coordinates = restore_coordinates(session.prediction.coordinates_mm, grid) if bodypart else None
    report = build_report(
        labels=labels, prediction=kept.numpy(), review=review, session=session, model=model, seconds=watch.seconds
    )
    progress("restore", 4, 4)
    return Segmentation(labels, doubt, information, regions, coordinates, report)


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
