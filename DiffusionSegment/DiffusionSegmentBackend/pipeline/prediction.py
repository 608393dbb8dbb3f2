"""Prediction of all networks on a scan on the model's grid; in parts along the body axis where memory is short."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import cached_property

import torch
from torch import Tensor

from ..imaging.volume import Box
from ..models.model import Model
from ..models.tile_shape import TileShape
from ..schema.run_options import RunPlan
from .checks import enforce, judge_body_part, judge_organs, judge_side, organ_measures, share_in_reach
from .features import Stage1, body_box, body_coordinates, first_stage, padded
from .islands import remove_islands
from .parts import Part, parts_of
from .progress import Progress, counted, part_of, silent
from .refinement import TileChains
from .region import box_for, confined, confined_prediction
from .sampling import SamplingPlan, Window
from .session import ENSEMBLE_WEIGHT, Prediction, Stopwatch
from .uncertainty import SampleStatistics

# Receives the pre-segmentation (classes, z, y, x) and the grid voxel at which it begins.
ShowPresegmentation = Callable[[Tensor, tuple[int, int, int]], None]


@dataclass(frozen=True, kw_only=True)
class PredictionRequest:
    """Inputs of the networks.

    Attributes:
        image: the scan (z, y, x) on the model's grid, -1..1.
        run: the options of the run with the model's defaults filled in.
        tile: the tile shape of the networks.
        force: predict in spite of failed checks of the anatomy.
        keep_islands: do not remove islands from pre-segmentation and ensemble.
        presegmentation: labels (z, y, x) from which the samples start, instead of the probe's.
        region: mask (z, y, x), outside which everything is background.
        show: called with the pre-segmentation before the samples are drawn.
    """

    image: Tensor
    run: RunPlan
    tile: TileShape
    force: bool = False
    keep_islands: bool = False
    presegmentation: Tensor | None = None
    region: Tensor | None = None
    show: ShowPresegmentation | None = None

    @cached_property
    def box(self) -> Box:
        """The box (z, y, x) of the grid that the networks are applied to."""
        body = body_box(self.image, min_shape=self.tile.voxels)
        return body if self.region is None else box_for(self.region, body, tile=self.tile)


def predict(
    request: PredictionRequest,
    model: Model,
    *,
    watch: Stopwatch,
    progress: Progress = silent,
    max_slices: int | None = None,
) -> Prediction:
    """Apply all networks to a scan, to at most `max_slices` slices at once.

    In several parts, the maps are kept in half precision.

    Raises:
        DiffusionSegmentError: BODY_PART_MISMATCH for another part or too much of the body, UNUSUAL_APPEARANCE for the
            right one in which the organs are not recognised, unless forced.
    """
    box, region, given = request.box, request.region, request.presegmentation
    warnings = enforce(judge_side(box, model.description), force=request.force)
    with watch.stage("bodypart"):
        progress("bodypart", 0, 1)
        coordinates_mm = body_coordinates(request.image, model)
    share = share_in_reach(coordinates_mm, request.image, model.description.anatomy.body_z_mm)
    warnings += enforce(judge_body_part(share, model.description), force=request.force)
    tiled = _tiled_scan(request.image, coordinates_mm, box, model, max_slices, progress)
    crop = (slice(None), *(slice(0, s.stop - s.start) for s in box))
    with watch.stage("features"):
        pre = tiled.presegmentation()
    if region is None:
        measures = organ_measures(pre[crop], model.description)
        warnings += enforce(judge_organs(measures, model.description, share=share), force=request.force)
    smallest_piece = 0.0 if request.keep_islands else model.description.defaults.smallest_piece
    _show(pre[crop], request, smallest_piece)
    start = pre if given is None else _one_hot(given[box], tiled.shape, model.description.classes)
    with watch.stage("refine"):
        mean, information, labels = tiled.refined(start, request.run, only_in_doubt=given is None)
        ensemble = ENSEMBLE_WEIGHT * mean[crop] + (1 - ENSEMBLE_WEIGHT) * pre[crop]
        islands = torch.from_numpy(remove_islands(ensemble, smallest_piece=smallest_piece))
    prediction = Prediction(
        pre=pre[crop],
        start=start[crop],
        ensemble=ensemble,
        islands=islands,
        mutual_information=information[crop[1:]],
        sample_labels=tuple(sample[crop[1:]] for sample in labels),
        coordinates_mm=coordinates_mm,
        offset=(box[0].start, box[1].start, box[2].start),
        tiled_shape=tiled.shape,
        warnings=tuple(warnings),
    )
    return prediction if region is None else confined_prediction(prediction, region[box])


def _show(pre: Tensor, request: PredictionRequest, smallest_piece: float) -> None:
    """Pass the pre-segmentation (classes, z, y, x) of the box to `request.show`, without islands and confined."""
    if request.show is None:
        return
    shown = pre.clone()
    remove_islands(shown, smallest_piece=smallest_piece)
    if request.region is not None:
        shown = confined(shown, request.region[request.box])
    request.show(shown, (request.box[0].start, request.box[1].start, request.box[2].start))


@dataclass
class _TiledScan:
    """The volume that the tiles cover, and the networks' results on it part by part.

    The features are kept if there is a single part.
    """

    image: Tensor
    coordinates_mm: Tensor
    model: Model
    parts: list[Part]
    progress: Progress
    _cached: Stage1 | None = field(default=None)

    @property
    def shape(self) -> tuple[int, int, int]:
        """Shape (z, y, x) of the volume."""
        return self.image.shape[0], self.image.shape[1], self.image.shape[2]

    def stage(self, index: int) -> Stage1:
        """Features and pre-segmentation of one part."""
        if self._cached is not None:
            return self._cached
        context = self.parts[index].input
        stage = first_stage(
            self.image[context],
            self.coordinates_mm[:, context],
            self.model,
            progress=part_of(self.progress, index, len(self.parts)),
            keep_features=self.model.refiner is not None,
        )
        self._cached = stage if len(self.parts) == 1 else None
        return stage

    def empty(self, channels: int) -> Tensor:
        """An uninitialised map (channels, z, y, x); in half precision if there are several parts."""
        return torch.empty((channels, *self.shape), dtype=torch.float16 if len(self.parts) > 1 else torch.float32)

    def presegmentation(self) -> Tensor:
        """Pre-segmentation (classes, z, y, x) of the volume."""
        if len(self.parts) == 1:
            return self.stage(0).pre
        whole = self.empty(self.model.description.classes)
        for index, part in enumerate(self.parts):
            whole[:, part.core] = self.stage(index).pre[:, _core_of_input(part)]
        return whole

    def refined(self, start: Tensor, run: RunPlan, *, only_in_doubt: bool) -> tuple[Tensor, Tensor, list[Tensor]]:
        """Mean of the samples, their mutual information and their label maps, all of the volume."""
        mean, information = self.empty(self.model.description.classes), self.empty(1)[0]
        labels: list[Tensor] = []
        for index, part in enumerate(self.parts):
            statistics = self._refined_part(index, start, run, only_in_doubt=only_in_doubt)
            if len(self.parts) == 1:
                return statistics.mean, statistics.mutual_information, statistics.sample_labels
            core = _core_of_input(part)
            mean[:, part.core], information[part.core] = statistics.mean[:, core], statistics.mutual_information[core]
            labels = labels or [torch.empty(self.shape, dtype=torch.uint8) for _ in statistics.sample_labels]
            for whole, sample in zip(labels, statistics.sample_labels, strict=True):
                whole[part.core] = sample[core]
        return mean, information, labels

    def _refined_part(self, index: int, start: Tensor, run: RunPlan, *, only_in_doubt: bool) -> SampleStatistics:
        context = self.parts[index].input
        stage = replace(self.stage(index), pre=start[:, context].float())
        _, height, width = self.shape
        window = Window(self.shape, (context, slice(0, height), slice(0, width)))
        progress = part_of(self.progress, index, len(self.parts))
        return refine(
            stage,
            self.model,
            SamplingPlan.of(run),
            samples=run.samples,
            window=window,
            only_in_doubt=only_in_doubt,
            progress=progress,
        )


def _core_of_input(part: Part) -> slice:
    """Indices of the core slices of a part among its input slices."""
    return slice(part.core.start - part.input.start, part.core.stop - part.input.start)


def _tiled_scan(
    image: Tensor, coordinates_mm: Tensor, box: Box, model: Model, max_slices: int | None, progress: Progress
) -> _TiledScan:
    """The box of image and coordinates, padded to whole tiles."""
    tile = model.tile
    tiled_image = padded(image[box][None], tile=tile, value=-1.0)[0]
    tiled_coordinates = padded(coordinates_mm[(slice(None), *box)], tile=tile, value=0.0)
    parts = parts_of(tiled_image.shape[0], max_slices, tile)
    return _TiledScan(tiled_image, tiled_coordinates, model, parts, progress)


def _one_hot(labels: Tensor, shape: tuple[int, int, int], classes: int) -> Tensor:
    """Labels (z, y, x) as one-hot probabilities (classes, *shape); padding is background."""
    whole = torch.zeros(shape, dtype=torch.long)
    z, y, x = labels.shape
    whole[:z, :y, :x] = labels.long()
    return torch.nn.functional.one_hot(whole, classes).movedim(-1, 0).float()


def refine(
    stage1: Stage1,
    model: Model,
    plan: SamplingPlan,
    *,
    samples: int,
    window: Window | None = None,
    only_in_doubt: bool = False,
    progress: Progress = silent,
) -> SampleStatistics:
    """Draw K samples of S steps each from the noised pre-segmentation, all on the same features.

    `window` is the position of the input in a larger volume, whose noise field is used. With `only_in_doubt`, tiles in
    which hardly a voxel of the pre-segmentation is in doubt keep it in every sample. Without a refiner the
    pre-segmentation itself is the only sample: the ensemble is then the same.
    """
    statistics = SampleStatistics.empty(model.description.classes, stage1.tiling.shape)
    if model.refiner is None:
        statistics.add(stage1.pre)
        return statistics
    chains = TileChains(stage1, model.refiner, model.device, model.dtype, only_in_doubt=only_in_doubt)
    total = max(1, samples * plan.steps * sum(chains.sampled))
    chains.tick = counted(progress, "refine", total)
    for sample in range(samples):
        statistics.add(chains.sample(plan, sample=sample, window=window))
    progress("refine", total, total)
    return statistics
