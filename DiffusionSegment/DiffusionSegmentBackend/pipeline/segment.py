"""The one pipeline: scan -> body coordinates -> features, pre-segmentation -> K samples x S steps -> maps, report.

Paper 1 (Li et al. 2025): features of a denoising backbone that knows body coordinates, a probe on them.
Paper 3 (Guo et al. 2022): the reverse process starts from the noised pre-segmentation.
Paper 2 (Fu et al. 2023): the mean of samples is ensembled with the non-diffusion prediction.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ..diffusion.reverse import SAMPLERS
from ..diffusion.schedule import SCHEDULES
from ..errors import DiffusionSegmentError, ErrorCode, unknown_name
from ..volume import Grid, Volume, model_grid
from .checks import check_anatomy, check_body_part, check_modality
from .features import Stage1, body_box, body_coordinates, first_stage, padded
from .model import Model
from .prepare import windowed
from .progress import Progress, silent
from .refinement import x0_predictor
from .report import build_report
from .restore import restore_labels, restore_map, restore_nearest
from .review import regions_to_review
from .sampling import SamplingPlan, draw_sample
from .uncertainty import SampleStatistics, entropy

TILE_SIDE = 64
TILE_OVERLAP = 0.25
ENSEMBLE_WEIGHT = 0.5


@dataclass(frozen=True, kw_only=True)
class SegmentOptions:
    """What may be asked of a run; None takes the model's own default. `abar_start` is alpha_bar at T', 0..1.

    `presegmentation` holds labels of the model in the scan's geometry (k, j, i), from any source: the samples start
    from it instead of the probe's (Guo et al. 2022 take any network's).
    """

    samples: int | None = None
    steps: int | None = None
    seed: int = 0
    sampler: str | None = None
    schedule: str | None = None
    abar_start: float | None = None
    organs: tuple[str, ...] | None = None
    bodypart: bool = False
    force: bool = False
    modality: str | None = None
    presegmentation: NDArray[np.uint8] | None = None


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


@dataclass(frozen=True)
class Prediction:
    """Probabilities (classes, z, y, x) on the model's grid from voxel `offset` on: probe, start, samples, and both.

    `start` is what the samples start from: the probe's answer, or the label map that the run was given.
    `sample_labels` holds the label map (z, y, x), uint8, of every sample; `tiled_shape` (z, y, x) is the volume that
    the noise field covered, larger than the map where that is smaller than a tile.
    """

    pre: Tensor
    start: Tensor
    refined: Tensor
    ensemble: Tensor
    mutual_information: Tensor
    sample_labels: tuple[Tensor, ...]
    coordinates_mm: Tensor
    offset: tuple[int, int, int]
    tiled_shape: tuple[int, int, int]


@dataclass(frozen=True)
class Answer:
    """What is delivered: probabilities (classes, z, y, x) and mutual information (z, y, x) on the grid."""

    ensemble: Tensor
    mutual_information: Tensor


@dataclass(frozen=True)
class Session:
    """A finished run on the model's grid: what maps, alternatives and corrections are made from, without a new run.

    `image` (z, y, x) in -1..1 covers the whole grid; `wanted` are the labels asked for, none for all; `voxel_ml` is the
    volume of the scan's own voxel. `corrected` is the answer after a reader's `marks` (z, y, x), k + 1 for label k.
    """

    grid: Grid
    image: Tensor
    prediction: Prediction
    plan: SamplingPlan
    samples: int
    wanted: list[int]
    voxel_ml: float
    seconds: dict[str, float]
    corrected: Answer | None = None
    marks: Tensor | None = None

    @property
    def first_answer(self) -> Answer:
        """What the model said before anybody corrected it."""
        return Answer(self.prediction.ensemble, self.prediction.mutual_information)

    @property
    def answer(self) -> Answer:
        """What is shown now."""
        return self.corrected or self.first_answer


@dataclass
class Stopwatch:
    """Seconds by stage."""

    seconds: dict[str, float] = field(default_factory=dict)

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Time what happens inside."""
        began = time.perf_counter()
        yield
        self.seconds[name] = round(time.perf_counter() - began, 3)


def segment(volume: Volume, model: Model, options: SegmentOptions, *, progress: Progress = silent) -> Segmentation:
    """Segment a scan in HU (k, j, i).

    Raises:
        DiffusionSegmentError: OPTION, GEOMETRY, MODALITY, BODY_PART_MISMATCH, OUT_OF_MEMORY, OUT_OF_GPU_MEMORY.
    """
    session = open_session(volume, model, options, progress=progress)
    return delivered(session, model, bodypart=options.bodypart, progress=progress)


def open_session(volume: Volume, model: Model, options: SegmentOptions, *, progress: Progress = silent) -> Session:
    """Run all networks on a scan in HU (k, j, i). The same scan, options and device give the same bits.

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
        prediction = predict(
            image,
            model,
            plan,
            samples=samples,
            watch=watch,
            progress=progress,
            force=options.force,
            given=_given(options, volume, grid, model),
        )
    return Session(grid, image, prediction, plan, samples, wanted, volume.voxel_ml, watch.seconds)


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


def plan_of(options: SegmentOptions, model: Model) -> tuple[SamplingPlan, int]:
    """The sampling plan and the number of samples, after a check of every option.

    Raises:
        DiffusionSegmentError: OPTION.
    """
    defaults = model.description.defaults
    samples = defaults.samples if options.samples is None else options.samples
    plan = SamplingPlan(
        schedule=options.schedule or defaults.schedule,
        sampler=options.sampler or defaults.sampler,
        steps=defaults.steps if options.steps is None else options.steps,
        abar_start=defaults.abar_start if options.abar_start is None else options.abar_start,
        seed=options.seed,
    )
    for name, value, low, high in (("samples", samples, 1, 64), ("steps", plan.steps, 1, 100)):
        if not low <= value <= high:
            raise DiffusionSegmentError(ErrorCode.OPTION, f"{name} is {value}.", hint=f"Choose {low} to {high}.")
    if not 0 <= plan.abar_start < 1 and (plan.abar_start, plan.steps, samples) != (1, 1, 1):
        raise DiffusionSegmentError(
            ErrorCode.OPTION,
            f"abar_start is {plan.abar_start}.",
            hint="Choose 0 to below 1, or 1 with one sample of one step for a deterministic refiner.",
        )
    if not 0 <= plan.seed < 2**63:
        raise DiffusionSegmentError(ErrorCode.OPTION, f"The seed is {plan.seed}.", hint="Choose 0 or more.")
    for name, text, known in (("sampler", plan.sampler, SAMPLERS), ("schedule", plan.schedule, SCHEDULES)):
        if text not in known:
            raise unknown_name(name, text, known)
    return plan, samples


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
) -> Prediction:
    """All networks on a scan (z, y, x) in -1..1 on the model's grid; samples start from labels `given` there, if any.

    Raises:
        DiffusionSegmentError: BODY_PART_MISMATCH for another body part, or when hardly an organ shows, unless `force`.
    """
    with watch.stage("bodypart"):
        progress("bodypart", 0, 1)
        coordinates_mm = body_coordinates(image, model)
    if not force:
        check_body_part(coordinates_mm, image, model.description)
    box = body_box(image, least=TILE_SIDE)
    inside = tuple(s.stop - s.start for s in box)
    tile_image = padded(image[box][None], least=TILE_SIDE, value=-1.0)[0]
    tile_coordinates = padded(coordinates_mm[(slice(None), *box)], least=TILE_SIDE, value=0.0)
    with watch.stage("features"):
        stage1 = first_stage(
            tile_image, tile_coordinates, model, side=TILE_SIDE, overlap=TILE_OVERLAP, progress=progress
        )
    if not force:
        voxel_ml = float(np.prod(model.description.spacing_mm)) / 1000.0
        check_anatomy(stage1.pre, voxel_ml=voxel_ml, description=model.description)
    start = stage1 if given is None else replace(stage1, pre=_one_hot(given[box], stage1, model.description.classes))
    with watch.stage("refine"):
        statistics = refine(start, model, plan, samples=samples, progress=progress)
    crop = (slice(None), *(slice(0, n) for n in inside))
    refined, pre = statistics.mean[crop], stage1.pre[crop]
    return Prediction(
        pre=pre,
        start=start.pre[crop],
        refined=refined,
        ensemble=ENSEMBLE_WEIGHT * refined + (1 - ENSEMBLE_WEIGHT) * pre,
        mutual_information=statistics.mutual_information[crop[1:]],
        sample_labels=tuple(labels[crop[1:]] for labels in statistics.sample_labels),
        coordinates_mm=coordinates_mm,
        offset=(box[0].start, box[1].start, box[2].start),
        tiled_shape=stage1.tiling.shape,
    )


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
    predict_x0 = x0_predictor(stage1, model.refiner, model.device, progress=progress, total=total)
    for sample in range(samples):
        statistics.add(draw_sample(stage1.pre, predict_x0, plan, sample=sample))
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


@contextmanager
def memory_errors() -> Iterator[None]:
    """Tell a lack of memory in words.

    Raises:
        DiffusionSegmentError: OUT_OF_GPU_MEMORY or OUT_OF_MEMORY.
    """
    try:
        yield
    except torch.OutOfMemoryError as error:
        raise DiffusionSegmentError(
            ErrorCode.OUT_OF_GPU_MEMORY, "The graphics card has too little free memory.", hint="Choose the device cpu."
        ) from error
    except (MemoryError, RuntimeError) as error:
        if isinstance(error, RuntimeError) and "can't allocate memory" not in str(error):
            raise
        raise DiffusionSegmentError(
            ErrorCode.OUT_OF_MEMORY,
            "There is too little memory for this scan.",
            hint="Close programs, or crop the scan.",
        ) from error
